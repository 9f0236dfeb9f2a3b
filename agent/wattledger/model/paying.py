"""For whom: payees, who used a device, and shares that sum to the interval."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from wattledger.model.measuring import EnergyInterval


class PayeeKind(StrEnum):
    """For whom energy was used; the value of the metrics' `payee` label."""

    JOBS = "jobs"
    IDLE = "idle"  # nobody held or used the device
    SYSTEM = "system"  # processes outside any job
    UNATTRIBUTED = "unattributed"  # what cannot be told


class Payee(NamedTuple):
    """Who pays: a job's run, or one of idle, system and unattributed.

    A run is (manager, job id, start): ids are used again. For the other three all but `kind`
    is empty.
    """

    kind: PayeeKind
    manager: str = ""
    job_id: str = ""
    start_ns: int = 0


IDLE = Payee(PayeeKind.IDLE)
SYSTEM = Payee(PayeeKind.SYSTEM)
UNATTRIBUTED = Payee(PayeeKind.UNATTRIBUTED)


@dataclass(frozen=True, slots=True)
class Usage:
    """Who held and used one device over a span, as weights.

    Attributes:
        device: the device's stable name.
        weights: payee → weight; with `whole`, the payee's part is weight over whole.
        whole: at least the sum of the weights, above 0.
        rest: who pays what the weights leave.
        floor_uw: the device's power when idle; that much of its energy goes first to those who
            are to bear the floor, `idle` for what they leave.
        floor_weights: payee → weight, who bears the floor.
        floor_whole: at least the sum of those weights, above 0.
        held: the payees hold the device, whether they use it or not.
    """

    device: str
    weights: tuple[tuple[Payee, int], ...] = ()
    whole: int = 1
    rest: Payee = UNATTRIBUTED
    floor_uw: int = 0
    floor_weights: tuple[tuple[Payee, int], ...] = ()
    floor_whole: int = 1
    held: bool = False


@dataclass(frozen=True, slots=True)
class AttributedInterval:
    """An interval and who pays for it; the shares sum to `interval.energy_uj` exactly."""

    interval: EnergyInterval
    shares: tuple[tuple[Payee, int], ...]
