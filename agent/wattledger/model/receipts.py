"""What one command cost: the receipt of `wattledger run` and of `wattledger.measure`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from wattledger.model.jobbooks import Cell
from wattledger.model.jobs import JobKey, JobRun
from wattledger.model.measuring import Kind, Quality
from wattledger.model.pricing import GridPart as GridPart
from wattledger.model.pricing import Weights
from wattledger.model.sums import NO_SUMS, Sums


class ReceiptKey(NamedTuple):
    """The cells of a receipt."""

    kind: Kind
    quality: Quality
    grid: GridPart


@dataclass(frozen=True, slots=True)
class Receipt:
    """What one command cost.

    Attributes:
        run: the command as a run; `payee` is (run, its id, its start), `end_ns` 0 while it runs.
        step_of: the job inside which it ran and which pays for it; None: it pays itself.
        cells: amounts, each entry rounded as in the ledger.
        weights: the intensities by which they were priced.
        since_ns: wall clock from which on it was measured; after the start: a part is missing.
        sums: money, market-based CO2e, and the embodied one of the hardware that it held.
    """

    run: JobRun
    step_of: JobKey | None = None
    cells: Mapping[ReceiptKey, Cell] = field(default_factory=lambda: MappingProxyType({}))
    since_ns: int = 0
    weights: Weights = field(default_factory=lambda: MappingProxyType({}))
    sums: Sums = NO_SUMS
