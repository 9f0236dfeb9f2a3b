"""Settling: the published past is fetched, compared with the books, and handed to their writer.

Span after span, the newest first: many plans of providers show the last day only. A span is written
before the next is asked for, so that what is held in memory is bounded, and what was done stays
done whatever comes after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

from wattledger.core.settling import may_settle, plan
from wattledger.errors import GridError
from wattledger.grid.history import published, voices
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


class SettlingBooks(Protocol):
    """What is asked of the books; see `LedgerReader`."""

    def priced_slots(self, since_ns: int, until_ns: int) -> list[PricedSlot]:
        """What the slots that begin in [since, until) were priced with."""
        ...

    def totals(self, since_ns: int, until_ns: int, by: str) -> list[TotalsRow]:
        """Amounts of the slots that begin in [since, until)."""
        ...


class SettleSources(NamedTuple):
    """Who knows the past, in order of preference, and the table's row that stands in for them."""

    sources: tuple[HistorySource, ...]
    table_zone: str


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
        asked: set[str] = set()
        problems: dict[str, GridError] = {}
        until_ns = now_ns + 1  # a slot that begins now has begun
        known: list[HistorySource] | None = None
        for from_ns, to_ns in _spans(since_ns, until_ns):
            slots = self._books.priced_slots(from_ns, to_ns)
            if not slots:
                continue
            if known is None:
                known = voices(self._sources.sources, now_ns, problems)
            words = self._ask(known, slots, now_ns, asked, problems)
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
            tuple(source.name for source in known or () if source.name in asked),
            tuple((name, str(error)) for name, error in sorted(problems.items())),
        )

    def _ask(
        self,
        known: Sequence[HistorySource],
        slots: Sequence[PricedSlot],
        now_ns: int,
        asked: set[str],
        problems: dict[str, GridError],
    ) -> list[Published]:
        """What the sources say of the time of these slots; one that failed is left alone."""
        from_ns = slots[0].slot_s * NS_PER_S
        to_ns = (slots[-1].slot_s + SLOT_S) * NS_PER_S
        words = []
        for source in known:
            if source.name in problems:
                continue
            if not any(
                may_settle(source.name, source.zone, slot.price, self._sources.table_zone)
                for slot in slots
            ):
                continue
            asked.add(source.name)
            try:
                words.append(published(source, from_ns, to_ns, now_ns))
            except GridError as error:
                problems[source.name] = error
        return words


def _spans(since_ns: int, until_ns: int) -> Iterator[tuple[int, int]]:
    """The parts of a span, the newest and shortest first."""
    to_ns = until_ns
    from_ns = (until_ns - FIRST_NS) // SLOT_NS * SLOT_NS
    while to_ns > since_ns:
        from_ns = max(from_ns, since_ns)
        yield from_ns, to_ns
        to_ns, from_ns = from_ns, from_ns - SPAN_NS
