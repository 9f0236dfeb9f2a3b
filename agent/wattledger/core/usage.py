"""Who held and used each device: from surveys of jobs to `Usage`, device by device.

    GPU     its holders pay for all of it, idle included: they reserved it. Who holds it: the most
            trusted source that names a run which is alive; by processes, equal parts.
    CPU     the idle floor by the policy, the rest by CPU time over max(node busy, Σ jobs); what
            ran outside any job is `system`.
    DRAM    anonymous and shared memory over MemTotal; the rest is `idle`.
    other   follows the metered split of its tick (the caller knows it).

What a counter moved while no daemon was looking (`recovered`) is for runs that were alive on both
sides; what they leave is `unattributed`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from wattledger.model import (
    IDLE,
    SYSTEM,
    UNATTRIBUTED,
    EnergyInterval,
    Kind,
    Payee,
    Quality,
    Usage,
)
from wattledger.model.jobs import (
    TRUST,
    WHOLE_SHARE_PPM,
    Holding,
    JobKey,
    JobRun,
    Survey,
)
from wattledger.units import NS_PER_S, PPM

POLICIES = ("allocated", "equal", "proportional", "none")
REMEMBER_NS = 60 * NS_PER_S

Weights = tuple[tuple[Payee, int], ...]


class Holders(NamedTuple):
    """Who holds a device.

    Attributes:
        weights: run → weight; none: nobody.
        whole: what the weights are parts of.
        exact: False: it cannot be told how they share it, so equally.
    """

    weights: Weights = ()
    whole: int = 1
    exact: bool = True


def holders_of(device: str, survey: Survey, running: Mapping[JobKey, Payee]) -> Holders:
    """Who holds a GPU, by the most trusted source that names a run which is alive.

    Args:
        device: its UUID.
        survey: the latest.
        running: job → its run.
    """
    claimed = [
        (claim, running[JobKey(claim.manager, claim.job_id)])
        for claim in survey.claims
        if claim.device == device
        and claim.share_ppm > 0
        and claim.source in TRUST
        and JobKey(claim.manager, claim.job_id) in running
    ]
    if claimed:
        best = min(TRUST.index(claim.source) for claim, _ in claimed)
        weights: dict[Payee, int] = {}
        exact = True
        for claim, payee in claimed:
            if TRUST.index(claim.source) == best:
                share = min(claim.share_ppm, WHOLE_SHARE_PPM)
                weights[payee] = weights.get(payee, 0) + share
                exact = exact and claim.exact
        whole = max(WHOLE_SHARE_PPM, sum(weights.values()))
        alone = len(weights) == 1
        return Holders(tuple(sorted(weights.items())), whole, exact or alone)
    runs = [payee for payee in survey.processes.get(device, ()) if payee in survey.runs]
    if not runs:
        return Holders()
    return Holders(tuple((p, 1) for p in sorted(set(runs))), len(set(runs)), len(set(runs)) == 1)


class _Mark(NamedTuple):
    """Up to where a CPU device is booked."""

    used_ns: Mapping[Payee, int]
    busy_ns: int | None


class Payers:
    """Who pays, as the surveys tell. Keeps what is booked apart from what is not, by device."""

    def __init__(
        self,
        policy: str = "allocated",
        *,
        remembered: Iterable[JobRun] = (),
        busy_ns: int | None = None,
    ) -> None:
        """Payers before the first survey.

        Args:
            policy: who bears the CPU's idle floor, one of `POLICIES`.
            remembered: the runs that an earlier process knew as running.
            busy_ns: up to where it had booked the node's CPU time, if this is the same boot.

        Raises:
            ValueError: no such policy.
        """
        if policy not in POLICIES:
            raise ValueError(f"{policy!r} is no idle policy; there are {', '.join(POLICIES)}")
        self.policy = policy
        self._before: dict[str, dict[Payee, int]] = {}
        self._alive_before: set[Payee] = set()
        for run in remembered:
            self._alive_before.add(run.payee)
            for holding in run.holdings:
                self._before.setdefault(holding.device, {})[run.payee] = holding.share_ppm
        self._start = _Mark({}, busy_ns)
        self._survey: Survey | None = None
        self._running: dict[JobKey, Payee] = {}
        self._used_ns: Mapping[Payee, int] = {}
        self._final: dict[Payee, tuple[int, int]] = {}  # ended run → (CPU time, when)
        self._marks: dict[str, _Mark] = {}
        self._spent: dict[str, tuple[Mapping[Payee, int], Weights, int]] = {}
        self._holders: dict[str, Holders] = {}

    def observe(self, survey: Survey) -> None:
        """Take in a survey; the usages asked for from now on are by it."""
        before = self._survey
        if before is None and self._start.busy_ns is None:
            self._start = _Mark({}, survey.busy_ns)
        self._survey = survey
        self._running = {run.key: payee for payee, run in survey.runs.items()}
        now_ns = survey.at.monotonic_ns
        for payee in before.runs if before is not None else ():
            if payee not in survey.runs:
                self._final[payee] = (self._used_ns.get(payee, 0), now_ns)
        for payee in list(self._final):
            if payee in survey.runs or now_ns - self._final[payee][1] > REMEMBER_NS:
                del self._final[payee]
        ended = {payee: used for payee, (used, _) in self._final.items()}
        self._used_ns = {**survey.cpu_ns, **ended} if ended else survey.cpu_ns
        self._holders.clear()

    def holders(self, device: str) -> Holders:
        """Who holds a GPU now."""
        if self._survey is None:
            return Holders()
        found = self._holders.get(device)
        if found is None:
            found = self._holders[device] = holders_of(device, self._survey, self._running)
        return found

    def holdings(self, gpus: Iterable[str]) -> dict[Payee, tuple[Holding, ...]]:
        """Run → the GPUs that it holds."""
        held: dict[Payee, tuple[Holding, ...]] = {}
        for device in gpus:
            holders = self.holders(device)
            for payee, weight in holders.weights:
                part = Holding(device, weight * PPM // holders.whole, holders.exact)
                held[payee] = (*held.get(payee, ()), part)
        return held

    # ── usages ──────────────────────────────────────────────────────────────────────────────────

    def usage(
        self, interval: EnergyInterval, kind: Kind, *, processes: int | None, floor_uw: int
    ) -> Usage:
        """Who pays for an interval of a GPU, a CPU or DRAM.

        Args:
            interval: what was measured.
            kind: of its device.
            processes: how many processes its driver lists on a GPU; None: cannot be told.
            floor_uw: what a CPU draws when idle; 0: unknown.
        """
        recovered = interval.quality is Quality.RECOVERED
        if kind is Kind.GPU:
            return self._gpu(interval.device, processes, recovered=recovered)
        if kind is Kind.CPU:
            return self._cpu(interval.device, floor_uw, recovered=recovered)
        return self._dram(interval.device, recovered=recovered)

    def _gpu(self, device: str, processes: int | None, *, recovered: bool) -> Usage:
        holders = self.holders(device)
        if recovered:
            before = self._before.get(device, {})
            both = tuple(item for item in holders.weights if item[0] in before)
            return Usage(device, both, holders.whole, UNATTRIBUTED, held=bool(both))
        if holders.weights:
            return Usage(device, holders.weights, holders.whole, IDLE, held=True)
        survey = self._survey
        if survey is not None and device in survey.processes and processes is not None:
            return Usage(device, rest=SYSTEM if device in survey.strangers else IDLE)
        if processes is None:
            return Usage(device, rest=UNATTRIBUTED)
        return Usage(device, rest=SYSTEM if processes else IDLE)

    def _cpu(self, device: str, floor_uw: int, *, recovered: bool) -> Usage:
        weights, whole = self._cpu_time(device)
        if recovered:
            weights = tuple(item for item in weights if item[0] in self._alive_before)
            if not weights:
                return Usage(device, rest=UNATTRIBUTED)
            return Usage(device, weights, whole, UNATTRIBUTED, floor_uw)
        bearers, over = self._bearers(weights, whole) if floor_uw else ((), 1)
        return Usage(device, weights, whole, SYSTEM, floor_uw, bearers, over)

    def _cpu_time(self, device: str) -> tuple[Weights, int]:
        """CPU time of the runs since the device's last interval, over that of the node."""
        mark = self._marks.get(device, self._start)
        spent = self._spent.get(device)
        if spent is not None and spent[0] is self._used_ns:
            return spent[1], spent[2]  # another interval of the same tick
        weights = tuple(
            (payee, grown)
            for payee, used in self._used_ns.items()
            if (grown := used - mark.used_ns.get(payee, 0)) > 0
        )
        busy_ns = self._survey.busy_ns if self._survey is not None else None
        busy = busy_ns - mark.busy_ns if busy_ns is not None and mark.busy_ns is not None else 0
        whole = max(busy, sum(weight for _, weight in weights), 1)
        self._marks[device] = _Mark(self._used_ns, busy_ns)
        self._spent[device] = (self._used_ns, weights, whole)
        return weights, whole

    def _bearers(self, by_time: Weights, whole: int) -> tuple[Weights, int]:
        """Who bears the idle floor."""
        survey = self._survey
        if survey is None or not survey.runs or self.policy == "none":
            return (), 1
        if self.policy == "equal":
            return tuple((payee, 1) for payee in survey.runs), len(survey.runs)
        if self.policy == "proportional":
            return by_time, whole
        given = tuple(survey.cpuset_ppm.items())
        return given, max(PPM, sum(ppm for _, ppm in given))

    def _dram(self, device: str, *, recovered: bool) -> Usage:
        rest = UNATTRIBUTED if recovered else IDLE
        survey = self._survey
        if survey is None or not survey.memory_total_bytes:
            return Usage(device, rest=rest)
        weights = tuple(
            (payee, held)
            for payee, held in survey.memory_bytes.items()
            if held > 0 and (not recovered or payee in self._alive_before)
        )
        whole = max(survey.memory_total_bytes, sum(survey.memory_bytes.values()))
        return Usage(device, weights, whole, rest)
