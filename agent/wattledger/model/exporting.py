"""What exporters are told of ended runs, and what is told of exporters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from wattledger.model.jobbooks import RunBook
from wattledger.model.measuring import Quality


class EndedRun(NamedTuple):
    """A run that has ended and that an exporter has not delivered yet.

    Attributes:
        payee_id: of its row in the ledger.
        queued: the commit by which it came to wait; a later one: it was booked on since.
        record_id: a UUID of (the ledger's epoch, manager, job, start): the same each time that
            it is delivered, so that a receiver can tell what came twice.
        book: the run and its totals, as they were booked.
        quality_uj: its energy by how it was measured.
    """

    payee_id: int
    queued: int
    record_id: str
    book: RunBook
    quality_uj: Mapping[Quality, int]


class Delivery(NamedTuple):
    """What became of an ended run.

    Attributes:
        exporter: whose word that is.
        payee_id: of the run's row.
        queued: as in `EndedRun`; where the run was booked on since, it goes on waiting.
        refused_ns: wall clock at which the receiver refused it: it is kept; 0: it was delivered.
    """

    exporter: str
    payee_id: int
    queued: int
    refused_ns: int = 0


class Backlog(NamedTuple):
    """How many ended runs an exporter has not delivered.

    Attributes:
        waiting: those that are still to be delivered.
        refused: those that the receiver refused; they are tried again once a day.
    """

    waiting: int = 0
    refused: int = 0


@dataclass(frozen=True, slots=True)
class ExporterStatus:
    """The health of one exporter, for `exporter_*` metrics.

    Attributes:
        exporter: its name.
        up: its last turn succeeded, and none hangs.
        last_success_ns: wall clock; 0: none did yet.
        errors: reason → turns that failed since the start of the process.
        message: why it is not up.
        hint: what to do about it.
        delivered_runs: ended runs that a receiver acknowledged since the start of the process;
            None: it delivers none.
        backlog: ended runs that it has not delivered; None: it delivers none.
    """

    exporter: str
    up: bool
    last_success_ns: int = 0
    errors: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    message: str = ""
    hint: str = ""
    delivered_runs: int | None = None
    backlog: Backlog | None = None
