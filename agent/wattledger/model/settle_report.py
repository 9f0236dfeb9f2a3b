"""What settling and restating came to."""

from __future__ import annotations

from typing import NamedTuple

from wattledger.model.books import TotalsRow
from wattledger.model.restating import Restatement


class SettleReport(NamedTuple):
    """What came of it.

    Attributes:
        since_ns: wall clock, where the slots looked at begin.
        until_ns: wall clock.
        total: the books of that time as they stand now.
        changed_slots: how many were priced anew, or for the first time.
        unpublished_uj: the energy that no source has published a price for.
        other_basis_uj: the energy that a source priced, and that has been published on another
            basis only since, which settles nothing.
        sources: who was asked.
        problems: (source, what went wrong).
    """

    since_ns: int
    until_ns: int
    total: TotalsRow
    changed_slots: int = 0
    unpublished_uj: int = 0
    other_basis_uj: int = 0
    sources: tuple[str, ...] = ()
    problems: tuple[tuple[str, str], ...] = ()


class SettleResult(NamedTuple):
    """How far a request to settle has come.

    Attributes:
        finished: whether it has.
        report: what came of it; None: it is not finished, or it failed.
        message: why it failed; empty where it did not.
    """

    finished: bool
    report: SettleReport | None = None
    message: str = ""


class Verified(NamedTuple):
    """How the books differ from what is recomputed of them.

    Attributes:
        differences: sentences, the first ones.
        found: how many there are in all.
    """

    differences: tuple[str, ...]
    found: int


class RestateResult(NamedTuple):
    """How far a restatement has come.

    Attributes:
        finished: whether all entries that it covers have been corrected.
        restatement: the one that is in force with it; None: there is none, see `message`.
        is_new: it was recorded now; not: its factors were in force already, nothing was.
        total: the books of its span as they stand now; None: it is not finished.
        message: why it could not be done; empty where it could.
    """

    finished: bool
    restatement: Restatement | None = None
    is_new: bool = False
    total: TotalsRow | None = None
    message: str = ""
