"""Settling: the published past is fetched, compared with the books, and handed to their writer.

Span after span, the newest first: many plans of providers show the last day only. A span is written
before the next is asked for, and of what a source says of it only what decides about a slot is
held, so that memory is bounded, and what was done stays done whatever comes after it. So is the
time that one settling asks for: what is left is the next one's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

from wattledger.core.settling import may_settle, needed, plan
from wattledger.errors import GridError
from wattledger.grid.history import Known, published, voices
from wattledger.grid.outcome import Outcome, failure
from wattledger.grid.source import HistorySource
from wattledger.model import Amounts, TotalsRow
from wattledger.model.settle_report import SettleReport
from wattledger.model.settling import PricedSlot, Published, Settlement
from wattledger.ports import Clock
from wattledger.units import NS_PER_S, SLOT_NS, SLOT_S

HOUR_NS = 3600 * NS_PER_S
DAY_NS = 24 * HOUR_NS
FIRST_NS = 22 * HOUR_NS  # within the last day, which every plan of a provider may see
SPAN_NS = 5 * DAY_NS
ASKING_NS = 600 * NS_PER_S  # of one settling, over all sources; writing is not counted


class SettlingBooks(Protocol):
    """What is asked of the books; see `LedgerReader`."""

    def priced_slots(self, since_ns: int, until_ns: int) -> list[PricedSlot]:
        """What the slots that begin in [since, until) were priced with."""
        ...

    def totals(self, since_ns: int, until_ns: int, by: str) -> list[TotalsRow]:
        """Amounts of the slots that begin in [since, until)."""
        ...


class SettleSources(NamedTuple):
    """Who knows the past.

    Attributes:
        sources: in order of preference.
        table_zone: the table's row that stands in for them.
        own: names and zones of all sources that are listed, whether or not they know their past.
    """

    sources: tuple[HistorySource, ...]
    table_zone: str
    own: frozenset[tuple[str, str]] = frozenset()


class Stopped(Exception):
    """The settlements are not taken any more: the process ends."""


class Settler:
    """Settles the past by what the sources have published since. Used from one thread at a time."""

    def __init__(
        self,
        sources: SettleSources,
        books: SettlingBooks,
        clock: Clock,
        take: Callable[[Sequence[Settlement]], None],
    ) -> None:
        """A settler.

        Args:
            sources: who knows the past.
            books: the books as they stand.
            clock: time.
            take: writes settlements and returns when they are written; raises `Stopped`.
        """
        self._sources = sources
        self._books = books
        self._clock = clock
        self._take = take

    def settle(self, window_ns: int) -> SettleReport:
        """Settle the slots of the last so many nanoseconds.

        Raises:
            LedgerError: the books cannot be read.
            Stopped: as `take` does.
        """
        now_ns = self._clock.now().wall_ns
        since_ns = max(0, now_ns - window_ns) // SLOT_NS * SLOT_NS
        changed = unpublished_uj = other_basis_uj = 0
        round_ = _Round(self._sources, self._clock, now_ns)
        until_ns = now_ns + 1  # a slot that begins now has begun
        for from_ns, to_ns in _spans(since_ns, until_ns):
            slots = self._books.priced_slots(from_ns, to_ns)
            if not slots:
                continue
            words = round_.ask(slots)
            found = plan(slots, words, table_zone=self._sources.table_zone, now_ns=now_ns)
            if found.settlements:
                self._take(found.settlements)
            changed += len(found.settlements)
            unpublished_uj += found.unpublished_uj
            other_basis_uj += found.other_basis_uj
        rows = self._books.totals(since_ns, until_ns, "all")
        return SettleReport(
            since_ns,
            now_ns,
            rows[0] if rows else TotalsRow("all", Amounts(), 0),
            changed,
            unpublished_uj,
            other_basis_uj,
            round_.asked(),
            tuple((label, str(error)) for label, error in sorted(round_.problems.items())),
        )


class _Round:
    """Whom one settling asks, and what came of it.

    Attributes:
        problems: by label, what a source failed at; it is left alone from then on.
    """

    def __init__(self, sources: SettleSources, clock: Clock, now_ns: int) -> None:
        self.problems: dict[str, GridError] = {}
        self._sources = sources
        self._clock = clock
        self._now_ns = now_ns
        self._known: list[Known] | None = None  # found out when there is something to ask
        self._asked: set[str] = set()
        self._left_ns = ASKING_NS

    def asked(self) -> tuple[str, ...]:
        """The names of those who were asked, in order of preference."""
        names = (one.source.name for one in self._known or () if one.label in self._asked)
        return tuple(dict.fromkeys(names))

    def ask(self, slots: Sequence[PricedSlot]) -> list[Published]:
        """What the sources say of these slots."""
        begun_ns = self._clock.now().boottime_ns
        end_ns = begun_ns + self._left_ns
        try:
            return [words for one in self._who() if (words := self._word(one, slots, end_ns))]
        finally:
            self._left_ns = end_ns - self._clock.now().boottime_ns

    def _who(self) -> list[Known]:
        if self._known is None:
            sources, _, own = self._sources
            self._known = voices(sources, self._now_ns, self.problems, own)
        return self._known

    def _word(self, one: Known, slots: Sequence[PricedSlot], end_ns: int) -> Published | None:
        """What one of them says; None: it is not asked, or failed."""
        name, zone, table_zone = one.source.name, one.source.zone, self._sources.table_zone
        if one.label in self.problems:
            return None
        if not any(may_settle(name, zone, slot.price, table_zone) for slot in slots):
            return None
        from_ns = slots[0].slot_s * NS_PER_S
        to_ns = (slots[-1].slot_s + SLOT_S) * NS_PER_S
        try:
            if self._clock.now().boottime_ns >= end_ns:
                text = (
                    f"one settling asks for {ASKING_NS // NS_PER_S} s; the rest is the next one's"
                )
                raise failure(Outcome.TIMEOUT, text)
            self._asked.add(one.label)
            words = published(one.source, from_ns, to_ns, self._now_ns)
        except GridError as error:
            self.problems[one.label] = error
            return None
        return needed(words, slots, self._now_ns)


def _spans(since_ns: int, until_ns: int) -> Iterator[tuple[int, int]]:
    """The parts of a span, the newest and shortest first."""
    to_ns = until_ns
    from_ns = (until_ns - FIRST_NS) // SLOT_NS * SLOT_NS
    while to_ns > since_ns:
        from_ns = max(from_ns, since_ns)
        yield from_ns, to_ns
        to_ns, from_ns = from_ns, from_ns - SPAN_NS
