"""Who held and used each device: from surveys of jobs to `Usage`, device by device.

    GPU     its holders pay for all of it, idle included: they reserved it. Who holds it: the most
            trusted source that names a run which is alive; by processes, equal parts.
    CPU     the idle floor by the policy, the rest by CPU time over max(node busy, Σ jobs); what
            ran outside any job is `system`.
    DRAM    anonymous and shared memory over MemTotal; the rest is `idle`.
    other   follows the metered split of its tick (the caller knows it).

A run that began or ended within an interval of a GPU has the part of it in which it ran. What a
counter moved while no daemon was looking (`recovered`) is for runs that were alive on both sides;
what they leave is `unattributed`.

Commands inside a job (`Survey.steps`) have shares of their own here; whoever books folds them into
their job's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from wattledger.core.holding import Holders, Weights, among_steps, holders_of, payer_of
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
from wattledger.model.jobs import Holding, JobKey, JobRun, Survey
from wattledger.units import NS_PER_S, PPM

POLICIES = ("allocated", "equal", "proportional", "none")
REMEMBER_NS = 60 * NS_PER_S


class _Mark(NamedTuple):
    """Up to where a CPU device is booked."""

    used_ns: Mapping[Payee, int]
    busy_ns: int | None


class _Span(NamedTuple):
    """From when to when a run ran, on CLOCK_BOOTTIME; `end_ns` None: it runs."""

    start_ns: int
    end_ns: int | None
    seen_ns: int


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
        self._edges: dict[Payee, _Span] = {}  # runs that began or ended a short while ago
        self._let_go: dict[str, dict[Payee, int]] = {}  # GPU → ended run → share in ppm

    def observe(self, survey: Survey) -> None:
        """Take in a survey; the usages asked for from now on are by it."""
        before = self._survey
        if before is None and self._start.busy_ns is None:
            self._start = _Mark({}, survey.busy_ns)
        self._note_edges(before, survey)
        self._survey = survey
        self._running = {run.key: payee for payee, run in survey.runs.items()}
        now_ns = survey.at.monotonic_ns
        # A run that ended may bring its last reading, also one that came and went in between.
        for payee in dict.fromkeys((*(before.runs if before is not None else ()), *survey.cpu_ns)):
            if payee not in survey.runs:
                used = max(survey.cpu_ns.get(payee, 0), self._used_ns.get(payee, 0))
                self._final[payee] = (used, now_ns)
        for payee in list(self._final):
            if payee in survey.runs or now_ns - self._final[payee][1] > REMEMBER_NS:
                del self._final[payee]
        ended = {payee: used for payee, (used, _) in self._final.items()}
        self._used_ns = {**survey.cpu_ns, **ended} if ended else survey.cpu_ns
        self._holders.clear()

    def _note_edges(self, before: Survey | None, survey: Survey) -> None:
        """Who began and who ended since the survey before, and what the latter had held."""
        at = survey.at
        to_boottime_ns = at.boottime_ns - at.wall_ns  # a stepped wall clock makes no difference
        known: Mapping[Payee, JobRun] = before.runs if before is not None else {}
        for payee in survey.runs:
            if payee not in known:
                start_ns = payee.start_ns + to_boottime_ns
                if before is not None and payee.start_ns >= at.wall_ns:
                    start_ns = before.at.boottime_ns  # first seen now: it began since the last look
                self._edges[payee] = _Span(start_ns, None, at.boottime_ns)
        for run in survey.ended:
            if run.payee in survey.runs:
                continue
            last_ns = (run.end_ns or run.last_seen_ns) + to_boottime_ns
            start_ns = run.payee.start_ns + to_boottime_ns
            self._edges[run.payee] = _Span(start_ns, last_ns, at.boottime_ns)
            if before is not None and run.payee in before.steps:
                continue  # its job holds the device still, or is among the ended itself
            held = self._held_by(run.payee) if run.payee in known else ()
            for holding in held or run.holdings:
                self._let_go.setdefault(holding.device, {})[run.payee] = holding.share_ppm
        for payee, span in list(self._edges.items()):
            if at.boottime_ns - span.seen_ns > REMEMBER_NS:
                del self._edges[payee]
                for runs in self._let_go.values():
                    runs.pop(payee, None)

    def _held_by(self, payee: Payee) -> tuple[Holding, ...]:
        """What a run held as of the survey before; only of GPUs that were asked for since."""
        return self.holdings(tuple(self._holders)).get(payee, ())

    def holders(self, device: str) -> Holders:
        """Who pays for a GPU now; steps are not among them."""
        if self._survey is None:
            return Holders()
        found = self._holders.get(device)
        if found is None:
            found = self._holders[device] = holders_of(device, self._survey, self._running)
        return found

    def holdings(self, gpus: Iterable[str]) -> dict[Payee, tuple[Holding, ...]]:
        """Run → the GPUs that it holds; a step what it has of its job's."""
        held: dict[Payee, tuple[Holding, ...]] = {}
        for device in gpus:
            holders = self.holders(device)
            inside = self._with_steps(device)
            steps = self._survey.steps if self._survey is not None else {}
            parts = [*holders.weights] if inside is holders else []
            if inside is not holders:
                parts += [(p, w * (inside.whole // holders.whole)) for p, w in holders.weights]
                parts += [(p, w) for p, w in inside.weights if p in steps]
            for payee, weight in parts:
                part = Holding(device, weight * PPM // inside.whole, holders.exact)
                held[payee] = (*held.get(payee, ()), part)
        return held

    def _with_steps(self, device: str) -> Holders:
        holders = self.holders(device)
        if self._survey is None or not self._survey.steps or not holders.weights:
            return holders
        return among_steps(device, holders, self._survey)

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
            return self._gpu(interval, processes, recovered=recovered)
        if kind is Kind.CPU:
            return self._cpu(interval.device, floor_uw, recovered=recovered)
        return self._dram(interval.device, recovered=recovered)

    def _gpu(self, interval: EnergyInterval, processes: int | None, *, recovered: bool) -> Usage:
        device = interval.device
        holders = self._with_steps(device)
        if recovered:
            before = self._before.get(device, {})
            steps = self._survey.steps if self._survey is not None else {}
            both = tuple(i for i in holders.weights if payer_of(i[0], steps) in before)
            return Usage(device, both, holders.whole, UNATTRIBUTED, held=bool(both))
        if self._edges:
            weights, whole = self._within(interval, holders)
        else:
            weights, whole = holders.weights, holders.whole
        if weights:
            return Usage(device, weights, whole, IDLE, held=True)
        survey = self._survey
        if survey is not None and device in survey.processes and processes is not None:
            return Usage(device, rest=SYSTEM if device in survey.strangers else IDLE)
        if holders.weights:
            return Usage(device, rest=IDLE)
        if processes is None:
            return Usage(device, rest=UNATTRIBUTED)
        return Usage(device, rest=SYSTEM if processes else IDLE)

    def _within(self, interval: EnergyInterval, holders: Holders) -> tuple[Weights, int]:
        """The holders' weights times how long each ran in an interval, over all of it."""
        survey, let_go = self._survey, self._let_go.get(interval.device, {})
        edges = [payee for payee, _ in holders.weights if payee in self._edges]
        if survey is None or not (edges or let_go):
            return holders.weights, holders.whole
        to_boottime_ns = survey.at.boottime_ns - survey.at.wall_ns
        start_ns, end_ns = interval.start_ns + to_boottime_ns, interval.end_ns + to_boottime_ns
        length_ns = end_ns - start_ns
        if length_ns <= 0:
            return holders.weights, holders.whole

        def ran_ns(payee: Payee) -> int:
            span = self._edges.get(payee)
            if span is None:
                return length_ns
            until_ns = end_ns if span.end_ns is None else min(span.end_ns, end_ns)
            return max(0, until_ns - max(span.start_ns, start_ns))

        weights: dict[Payee, int] = {}
        for payee, weight in holders.weights:
            weights[payee] = weight * PPM * ran_ns(payee)
        for payee, share_ppm in let_go.items():
            if payee not in weights:
                weights[payee] = share_ppm * holders.whole * ran_ns(payee)
        present = tuple(item for item in sorted(weights.items()) if item[1])
        return present, max(holders.whole * PPM * length_ns, sum(w for _, w in present), 1)

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
            alike = tuple((payee, 1) for payee in survey.runs if payee not in survey.steps)
            return alike, max(len(alike), 1)
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
