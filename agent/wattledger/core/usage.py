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

from wattledger.core.holding import Holders, Weights, divide, holders_of, members_of
from wattledger.core.timeline import Brief, Segment, Timelines, cut
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
from wattledger.model.jobs import WHOLE_SHARE_PPM, Holding, JobKey, JobRun, Survey
from wattledger.units import NS_PER_S, PPM

POLICIES = ("allocated", "equal", "proportional", "none")
REMEMBER_NS = 60 * NS_PER_S
MAX_ASLEEP = 10_000
LEARN_NS = 2 * NS_PER_S


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
        self._asleep: dict[Payee, int] = {}  # what those had used who ended longer ago
        self._marks: dict[str, _Mark] = {}
        self._spent: dict[str, tuple[Mapping[Payee, int], Weights, int]] = {}
        self._holders: dict[str, Holders] = {}
        self._holdings: dict[tuple[str, ...], dict[Payee, tuple[Holding, ...]]] = {}
        self._timelines = Timelines()
        self._step_starts_ns: dict[Payee, int] = {}  # on CLOCK_BOOTTIME
        self._step_ends_ns: dict[Payee, int] = {}

    def observe(self, survey: Survey) -> None:
        """Take in a survey; the usages asked for from now on are by it."""
        before, old = self._survey, self._holders
        if before is None and self._start.busy_ns is None:
            self._start = _Mark({}, survey.busy_ns)
        self._survey = survey
        self._count_cpu_time(before, survey)
        self._note_steps(survey)
        if before is not None and _held_alike(before, survey):  # nearly always
            since_ns, now_ns = before.at.boottime_ns, survey.at.boottime_ns
            for device, holders in old.items():
                self._timelines.extend(device, (Segment(since_ns, now_ns, holders),))
            return
        self._holders, self._holdings = {}, {}
        self._running = {run.key: payee for payee, run in survey.runs.items()}
        self._note_holders(before, old, survey)

    def _count_cpu_time(self, before: Survey | None, survey: Survey) -> None:
        now_ns = survey.at.monotonic_ns
        # A run that ended may bring its last reading, also one that came and went in between.
        for payee in dict.fromkeys((*(before.runs if before is not None else ()), *survey.cpu_ns)):
            if payee not in survey.runs:
                used = max(survey.cpu_ns.get(payee, 0), self._used_ns.get(payee, 0))
                self._final[payee] = (used, now_ns)
        for payee, (used, ended_ns) in list(self._final.items()):
            if payee in survey.runs:
                del self._final[payee]
            elif now_ns - ended_ns > REMEMBER_NS:
                del self._final[payee]
                self._asleep[payee] = used
                if len(self._asleep) > MAX_ASLEEP:
                    del self._asleep[next(iter(self._asleep))]
        awake = {p: self._asleep.pop(p) for p in survey.runs if p in self._asleep}
        if awake:  # a run that was taken for ended: what it had used was booked then
            self._start = self._start._replace(used_ns={**self._start.used_ns, **awake})
            for device, mark in self._marks.items():
                self._marks[device] = mark._replace(used_ns={**awake, **mark.used_ns})
        ended = {payee: used for payee, (used, _) in self._final.items()}
        self._used_ns = {**survey.cpu_ns, **ended} if ended else survey.cpu_ns

    def _note_steps(self, survey: Survey) -> None:
        known, at = self._step_starts_ns, survey.at
        self._step_starts_ns = {
            step: known.get(step, min(step.start_ns - at.wall_ns, 0) + at.boottime_ns)
            for step in survey.steps
        }
        self._step_ends_ns = {
            step: min(end_ns - at.wall_ns, 0) + at.boottime_ns
            for step, end_ns in survey.ending.items()
        }

    def _note_holders(
        self, before: Survey | None, old: Mapping[str, Holders], survey: Survey
    ) -> None:
        """Who held the GPUs since the survey before."""
        at = survey.at
        to_boottime_ns = at.boottime_ns - at.wall_ns  # a stepped wall clock makes no difference
        since_ns = before.at.boottime_ns if before is not None else at.boottime_ns

        def boottime_ns(wall_ns: int) -> int:
            return min(max(wall_ns + to_boottime_ns, since_ns), at.boottime_ns)

        known: Mapping[Payee, JobRun] = before.runs if before is not None else {}
        begun_ns = {
            # One that is first seen now began somewhere since the last look.
            payee: since_ns if payee.start_ns >= at.wall_ns else boottime_ns(payee.start_ns)
            for payee in survey.runs
            if payee not in known
        }
        gone = [run for run in survey.ended if run.payee not in survey.runs]
        ended_ns = {run.payee: boottime_ns(run.end_ns or run.last_seen_ns) for run in gone}
        ended_ns |= {payee: boottime_ns(end_ns) for payee, end_ns in survey.ending.items()}
        for run in gone:
            end_ns = (run.end_ns or run.last_seen_ns) + to_boottime_ns
            if end_ns < since_ns:  # it was seen dead already, or held on to until it was read
                self._timelines.end(run.payee, end_ns)
        brief: dict[str, list[Brief]] = {}
        for run in gone:
            for device, share_ppm, _ in run.holdings:
                holders = old.get(device)
                if holders is None or run.payee not in dict(holders.weights):
                    start_ns = boottime_ns(run.payee.start_ns)
                    one = Brief(run.payee, share_ppm, start_ns, ended_ns[run.payee])
                    brief.setdefault(device, []).append(one)
                    alone = Holders(((run.payee, share_ppm),), WHOLE_SHARE_PPM)
                    self._learn(device, run.payee, alone, to_boottime_ns, since_ns)
        claimed = (claim.device for claim in survey.claims)
        for device in dict.fromkeys((*survey.processes, *claimed, *old, *brief)):
            new, was = self.holders(device), old.get(device)
            if was is None:
                was = new if before is None else Holders()
            for payee, weight in new.weights:
                if payee in known and payee not in dict(was.weights):
                    alone = Holders(((payee, weight),), new.whole)
                    self._learn(device, payee, alone, to_boottime_ns, since_ns)
            segments = cut(
                since_ns, at.boottime_ns, was, new, begun_ns, ended_ns, brief.get(device, ())
            )
            self._timelines.extend(device, segments)

    def _learn(
        self, device: str, payee: Payee, alone: Holders, to_boottime_ns: int, since_ns: int
    ) -> None:
        """A run began a moment before a survey that did not know yet what it holds."""
        start_ns = payee.start_ns + to_boottime_ns
        if since_ns - LEARN_NS < start_ns < since_ns:
            self._timelines.begin(device, alone, start_ns)

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
        asked = tuple(gpus)
        if asked not in self._holdings:
            self._holdings = {asked: self._find_holdings(asked)}
        return self._holdings[asked]

    def _find_holdings(self, gpus: Iterable[str]) -> dict[Payee, tuple[Holding, ...]]:
        held: dict[Payee, tuple[Holding, ...]] = {}
        for device in gpus:
            holders = self.holders(device)
            members = self._members(device)
            for payee, weight in holders.weights:
                part = Holding(device, weight * PPM // holders.whole, holders.exact)
                held[payee] = (*held.get(payee, ()), part)
                those = [(p, w) for p, w in members.get(payee, ()) if p != payee]
                all_ = sum(w for _, w in members.get(payee, ()))
                for step, own in those:
                    inside = part._replace(share_ppm=part.share_ppm * own // all_)
                    held[step] = (*held.get(step, ()), inside)
        return held

    def _members(self, device: str) -> dict[Payee, list[tuple[Payee, int]]]:
        return members_of(device, self._survey) if self._survey is not None else {}

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
        device, survey = interval.device, self._survey
        holders = self.holders(device)
        if recovered:
            before = self._before.get(device, {})
            both = tuple(item for item in holders.weights if item[0] in before)
            weights, whole = divide(
                both, holders.whole, self._members(device), lambda s: s in self._alive_before, 1
            )
            return Usage(device, weights, whole, UNATTRIBUTED, held=bool(both))
        weights, whole = holders.weights, holders.whole
        if survey is not None:
            to_boottime_ns = survey.at.boottime_ns - survey.at.wall_ns
            start_ns, end_ns = interval.start_ns + to_boottime_ns, interval.end_ns + to_boottime_ns
            weights, whole = self._timelines.over(device, start_ns, end_ns)
            if survey.steps:
                weights, whole = divide(
                    weights,
                    whole,
                    self._members(device),
                    lambda step: self._ran_ns(step, start_ns, end_ns),
                    end_ns - start_ns,
                )
        if weights:
            return Usage(device, weights, whole, IDLE, held=True)
        if survey is not None and device in survey.processes and processes is not None:
            return Usage(device, rest=SYSTEM if device in survey.strangers else IDLE)
        if holders.weights:
            return Usage(device, rest=IDLE)
        if processes is None:
            return Usage(device, rest=UNATTRIBUTED)
        return Usage(device, rest=SYSTEM if processes else IDLE)

    def _ran_ns(self, step: Payee, start_ns: int, end_ns: int) -> int:
        """How long a step ran in a span on CLOCK_BOOTTIME."""
        from_ns = max(self._step_starts_ns.get(step, start_ns), start_ns)
        return max(0, min(self._step_ends_ns.get(step, end_ns), end_ns) - from_ns)

    def _cpu(self, device: str, floor_uw: int, *, recovered: bool) -> Usage:
        weights, whole = self._cpu_time(device)
        if recovered:
            weights = tuple(item for item in weights if item[0] in self._alive_before)
            # The floor's part too: who bore it meanwhile cannot be told.
            nobody = ((UNATTRIBUTED, 1),)
            return Usage(device, weights, whole, UNATTRIBUTED, floor_uw, nobody, 1)
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


def _held_alike(before: Survey, survey: Survey) -> bool:
    """Nothing has changed by which it is known who holds what."""
    return not (survey.ended or survey.ending or before.ending) and (
        survey.claims == before.claims
        and survey.processes == before.processes
        and survey.sm == before.sm
        and survey.instances == before.instances
        and survey.steps == before.steps
        and survey.runs.keys() == before.runs.keys()
    )
