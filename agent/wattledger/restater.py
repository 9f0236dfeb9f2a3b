"""Restating: what somebody says of the site's past is brought to the entries that it covers.

Span after span, the newest first, as settling does it: a span is written before the next is looked
at. What is booked later into a restated span (energy recovered after a restart, or a restatement
without an end) is found by the next look: once a day, with each `settle` and with each `restate`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from wattledger.model import Amounts, TotalsRow
from wattledger.model.restating import Restatement, Stale, says_anew, spans
from wattledger.units import NS_PER_S

SPAN_NS = 5 * 86_400 * NS_PER_S


class RestatingBooks(Protocol):
    """What is asked of the books; see `LedgerReader`."""

    def restatements(self) -> tuple[Restatement, ...]:
        """All that were ever made, in that order."""
        ...

    def stale(self, since_ns: int, until_ns: int) -> list[Stale]:
        """What begins in [since, until) and is still to be restated."""
        ...

    def totals(self, since_ns: int, until_ns: int, by: str) -> list[TotalsRow]:
        """Amounts of the slots that begin in [since, until)."""
        ...


def record(
    made: Sequence[Restatement],
    known: Sequence[Restatement],
    take: Callable[[Sequence[Restatement]], None],
) -> tuple[Restatement, ...]:
    """Write the restatements that say something new.

    Args:
        made: in the order in which they were made.
        known: those that are in the books.
        take: writes them.

    Returns:
        Those that were written.
    """
    new: list[Restatement] = []
    for one in made:
        if one not in known and says_anew(one, (*known, *new)):
            new.append(one)
    if new:
        take(new)
    return tuple(new)


def restate(books: RestatingBooks, now_ns: int, take: Callable[[Sequence[Stale]], None]) -> int:
    """Bring what is restated to the entries.

    Args:
        books: as they stand.
        now_ns: wall clock.
        take: writes it.

    Returns:
        How many slots and hours were changed.

    Raises:
        LedgerError: the books cannot be read.
    """
    changed = 0
    for from_s, to_s in reversed(spans(books.restatements())):
        until_ns = min(to_s * NS_PER_S, now_ns + 1)  # a slot that begins now has begun
        for since_ns, before_ns in _newest_first(from_s * NS_PER_S, until_ns):
            found = books.stale(since_ns, before_ns)
            if found:
                take(found)
            changed += len(found)
    return changed


def restated_total(books: RestatingBooks, one: Restatement) -> TotalsRow:
    """The books of a restatement's span as they stand.

    Raises:
        LedgerError: the books cannot be read.
    """
    rows = books.totals(one.from_s * NS_PER_S, one.to_s * NS_PER_S, "all")
    return rows[0] if rows else TotalsRow("all", Amounts(), 0)


def _newest_first(since_ns: int, until_ns: int) -> Iterator[tuple[int, int]]:
    while until_ns > since_ns:
        from_ns = max(since_ns, until_ns - SPAN_NS)
        yield from_ns, until_ns
        until_ns = from_ns
