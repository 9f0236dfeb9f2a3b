"""Who held a GPU when: nobody pays for time in which another held it, and none is lost."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from surveys import (
    ALL,
    GPU,
    JOB_A,
    JOB_B,
    WHOLE,
    at,
    ended,
    paid,
    survey,
)
from wattledger.core.attribution import attribute
from wattledger.core.holding import Holders, payer_of
from wattledger.core.timeline import Brief, Segment, Timelines, cut
from wattledger.core.usage import Payers
from wattledger.model import IDLE, SYSTEM, UNATTRIBUTED, EnergyInterval, Kind, Payee, Quality
from wattledger.model.jobs import RUN, USER, Claim, JobRun, Survey, job_payee
from wattledger.units import NS_PER_S

CLAIM_A = (Claim(*JOB_A[1:3], GPU, source="slurm"),)


def test_a_command_that_begins_takes_nothing_from_its_job() -> None:
    """A job that wraps each of its epochs pays for its GPU all the time."""
    step = job_payee(RUN, "s", at(0.9).wall_ns)
    payers = Payers()
    payers.observe(survey(0, JOB_A, claims=CLAIM_A, processes={GPU: (JOB_A,)}))
    payers.observe(
        survey(1, JOB_A, step, claims=CLAIM_A, processes={GPU: (step,)}, steps={step: JOB_A})
    )
    assert paid(payers, 0, 1) == {JOB_A: 900_000, step: 100_000}
    payers.observe(survey(2, JOB_A, ended=(ended(step, 1.5),), claims=CLAIM_A))
    assert paid(payers, 1, 2) == {JOB_A: 1_000_000}


def test_a_command_of_its_own_pays_from_its_start_its_session_until_then() -> None:
    session = job_payee(USER, "1000", at(-50).wall_ns)
    command = job_payee(RUN, "s", at(0.75).wall_ns)
    payers = Payers()
    payers.observe(survey(0, session, processes={GPU: (session,)}))
    payers.observe(survey(1, session, command, processes={GPU: (command,)}))
    assert paid(payers, 0, 1) == {session: 750_000, command: 250_000}


def test_a_command_that_is_killed_costs_its_job_no_more() -> None:
    step = job_payee(RUN, "s", at(-50).wall_ns)
    halves = tuple(Claim(*job[1:3], GPU, 500_000, source="slurm") for job in (JOB_A, JOB_B))
    both = {"claims": halves, "processes": {GPU: (step, JOB_B)}}
    payers = Payers()
    payers.observe(survey(0, JOB_A, JOB_B, step, steps={step: JOB_A}, **both))
    payers.observe(survey(1, JOB_A, JOB_B, claims=halves, ended=(ended(step, 0.9),)))
    assert paid(payers, 0, 1) == {JOB_A: 500_000, JOB_B: 500_000}


def test_a_long_interval_is_divided_by_all_that_happened_in_it() -> None:
    """NVML was released for a quarter of an hour: one interval, two jobs and a pause."""
    later = job_payee("slurm", "9", at(780).wall_ns)
    payers = Payers()
    payers.observe(survey(0, JOB_A, claims=CLAIM_A, processes={GPU: ()}))
    for second in range(1, 900):
        if second < 60:
            payers.observe(survey(second, JOB_A, claims=CLAIM_A, processes={GPU: ()}))
        elif second == 60:
            payers.observe(survey(60, ended=(ended(JOB_A, 60),), processes={GPU: ()}))
        elif second <= 780:
            payers.observe(survey(second, processes={GPU: ()}))
        else:
            claim = (Claim("slurm", "9", GPU, source="slurm"),)
            payers.observe(survey(second, later, claims=claim, processes={GPU: ()}))
    assert paid(payers, 0, 900, 900) == {JOB_A: 60, later: 120, IDLE: 720}


def test_a_clock_that_was_set_back_before_a_restart_costs_nobody_the_gpu() -> None:
    ahead = job_payee("slurm", "1", at(3000).wall_ns)
    payers = Payers(remembered=[JobRun(ahead, holdings=(WHOLE,))])
    for second in range(3):
        payers.observe(survey(second, ahead, claims=CLAIM_A))
        assert paid(payers, second - 1, second) == {ahead: 1_000_000}


def test_a_run_that_comes_back_without_the_gpu_pays_nothing_for_it() -> None:
    payers = Payers()
    payers.observe(survey(0, JOB_A, processes={GPU: (JOB_A,)}))
    payers.observe(survey(1, JOB_B, processes={GPU: (JOB_B,)}, ended=(ended(JOB_A, 0.5),)))
    assert paid(payers, 0, 1) == {JOB_A: 500_000, JOB_B: 500_000}
    payers.observe(survey(11, JOB_A, JOB_B, processes={GPU: (JOB_B,)}))
    assert paid(payers, 10, 11) == {JOB_B: 1_000_000}


def test_a_run_that_wakes_after_long_does_not_pay_its_past_again() -> None:
    used, busy = 3600 * NS_PER_S, 5000 * NS_PER_S

    def cpu(start_s: int) -> dict[Payee, int]:
        ends_ns = at(start_s + 1).wall_ns
        one = EnergyInterval("cpu0", at(start_s).wall_ns, ends_ns, 1000, Quality.METERED)
        return dict(attribute(one, payers.usage(one, Kind.CPU, processes=None, floor_uw=0)).shares)

    payers = Payers()
    payers.observe(survey(0, JOB_A, cpu_ns={JOB_A: used}, busy_ns=busy))
    cpu(-1)
    payers.observe(survey(1, busy_ns=busy + NS_PER_S, ended=(ended(JOB_A, 0.5),)))
    cpu(0)
    for second in range(2, 100):
        payers.observe(survey(second, busy_ns=busy + second * NS_PER_S))
        cpu(second - 1)
    payers.observe(survey(100, JOB_A, cpu_ns={JOB_A: used}, busy_ns=busy + 100 * NS_PER_S))
    assert cpu(99) == {SYSTEM: 1000}
    quarter = used + NS_PER_S // 4
    payers.observe(survey(101, JOB_A, cpu_ns={JOB_A: quarter}, busy_ns=busy + 101 * NS_PER_S))
    assert cpu(100) == {JOB_A: 250, SYSTEM: 750}


def test_what_moved_while_nobody_looked_is_no_new_commands() -> None:
    young = job_payee(RUN, "n", at(-0.5).wall_ns)
    payers = Payers(remembered=[JobRun(JOB_A, holdings=(WHOLE,))])
    payers.observe(
        survey(0, JOB_A, young, claims=CLAIM_A, processes={GPU: (young,)}, steps={young: JOB_A})
    )
    one = EnergyInterval(GPU, at(-600).wall_ns, at(0).wall_ns, 1000, Quality.RECOVERED)
    usage = payers.usage(one, Kind.GPU, processes=1, floor_uw=0)
    assert dict(attribute(one, usage).shares) == {JOB_A: 1000}


def test_the_floor_of_a_downtime_is_told_to_nobody() -> None:
    payers = Payers(remembered=[JobRun(JOB_A)], busy_ns=0)
    payers.observe(survey(0, JOB_A, cpu_ns={JOB_A: 50}, busy_ns=100))
    one = EnergyInterval("cpu0", at(-10).wall_ns, at(0).wall_ns, 1000, Quality.RECOVERED)
    usage = payers.usage(one, Kind.CPU, processes=None, floor_uw=40)
    assert dict(attribute(one, usage).shares) == {JOB_A: 300, UNATTRIBUTED: 700}


def test_a_command_pays_to_its_end_though_it_is_read_a_moment_later() -> None:
    command = job_payee(RUN, "s", at(-50).wall_ns)
    payers = Payers()
    payers.observe(survey(0, command, processes={GPU: (command,)}))
    ending = {command: at(0.4).wall_ns}
    payers.observe(survey(1, command, processes={GPU: (command,)}, ending=ending))
    assert paid(payers, 0, 1) == {command: 400_000, IDLE: 600_000}


def test_a_step_pays_to_its_end_and_its_job_on() -> None:
    step = job_payee(RUN, "s", at(-50).wall_ns)
    more = {"claims": CLAIM_A, "processes": {GPU: (step,)}, "steps": {step: JOB_A}}
    payers = Payers()
    payers.observe(survey(0, JOB_A, step, **more))
    payers.observe(survey(1, JOB_A, step, **more, ending={step: at(0.4).wall_ns}))
    assert paid(payers, 0, 1) == {step: 400_000, JOB_A: 600_000}


def test_what_a_run_holds_may_be_told_a_moment_after_it_was_seen() -> None:
    """A survey falls between the making of a job's cgroup and the reading of its prolog's file."""
    begun = job_payee("slurm", "3", at(0.1).wall_ns)
    payers = Payers()
    payers.observe(survey(-0.7, processes={GPU: ()}))
    assert paid(payers, -1, 0) == {IDLE: 1_000_000}
    payers.observe(survey(0.3, begun, processes={GPU: ()}))
    claim = (Claim("slurm", "3", GPU, source="slurm"),)
    payers.observe(survey(1.3, begun, claims=claim, processes={GPU: ()}))
    assert paid(payers, 0, 1) == {begun: 900_000, IDLE: 100_000}

    payers = Payers()
    payers.observe(survey(-0.7, processes={GPU: ()}))
    payers.observe(survey(0.3, begun, processes={GPU: ()}))
    payers.observe(survey(1.3, ended=(ended(begun, 0.4, WHOLE),), processes={GPU: ()}))
    assert paid(payers, 0, 1) == {begun: 300_000, IDLE: 700_000}


# ── properties ──────────────────────────────────────────────────────────────────────────────────

moment = st.integers(0, 1000)
weights = st.dictionaries(st.sampled_from(ALL), st.integers(1, 1000), max_size=3).map(
    lambda w: Holders(tuple(sorted(w.items())), max(1000, sum(w.values())))
)


@given(
    weights,
    weights,
    st.dictionaries(st.sampled_from(ALL), moment),
    st.dictionaries(st.sampled_from(ALL), moment),
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 1_000_000), moment, moment), max_size=3),
)
def test_a_cut_covers_its_time_once(old, new, begun, over, short) -> None:  # type: ignore[no-untyped-def]
    brief = [
        Brief(job_payee("slurm", f"b{n}", 0), ppm, min(a, b), max(a, b)) for n, ppm, a, b in short
    ]
    begun = {payee: at_ns for payee, at_ns in begun.items() if payee not in dict(old.weights)}
    over = {payee: at_ns for payee, at_ns in over.items() if payee not in dict(new.weights)}
    segments = cut(0, 1000, old, new, begun, over, brief)
    assert segments[0].start_ns == 0
    assert segments[-1].end_ns == 1000
    for one, following in pairwise(segments):
        assert one.end_ns == following.start_ns > one.start_ns
    known = {*dict(old.weights), *dict(new.weights), *(one.payee for one in brief)}
    for one in segments:
        assert sum(weight for _, weight in one.holders.weights) <= one.holders.whole
        for payee, _ in one.holders.weights:
            assert payee in known
            assert begun.get(payee, 0) <= one.start_ns or payee in {b.payee for b in brief}
            assert one.start_ns < over.get(payee, 1001)


@given(
    st.lists(st.tuples(st.integers(1, 50), weights), min_size=1, max_size=20),
    st.integers(-50, 300),
    st.integers(1, 400),
)
def test_an_interval_is_the_sum_of_its_parts(parts, start, length) -> None:  # type: ignore[no-untyped-def]
    timelines, now, truth = Timelines(), 0, {}
    segments = []
    for duration, holders in parts:
        segments.append(Segment(now, now + duration, holders))
        now += duration
    timelines.extend(GPU, segments)
    got, whole = timelines.over(GPU, start, start + length)
    segments[0] = segments[0]._replace(start_ns=-10_000)
    segments[-1] = segments[-1]._replace(end_ns=10_000)
    for from_ns, to_ns, holders in segments:
        inside = max(0, min(to_ns, start + length) - max(from_ns, start))
        for payee, weight in holders.weights:
            truth[payee] = truth.get(payee, 0) + weight / holders.whole * inside / length
    assert sum(weight for _, weight in got) <= whole
    for payee in ALL:
        assert abs(dict(got).get(payee, 0) / whole - truth.get(payee, 0)) < 1e-9


@given(
    st.lists(
        st.tuples(
            st.sets(st.sampled_from(ALL)),
            st.sets(st.sampled_from(ALL)),
            st.booleans(),
            st.integers(1, 40),
        ),
        max_size=12,
    ),
    st.integers(1, 10**12),
)
def test_whatever_comes_and_goes_a_turns_energy_is_divided_wholly(turns, energy_uj) -> None:  # type: ignore[no-untyped-def]
    payers, alive, now = Payers(), set(), 0
    for runs, on_it, read, seconds in turns:
        now += seconds
        gone = tuple(ended(payee, now - 0.5) for payee in sorted(alive - runs))
        alive = runs
        seen: Survey = survey(
            now, *sorted(runs), ended=gone, processes={GPU: tuple(sorted(on_it & runs))}
        )
        payers.observe(
            replace(
                seen,
                steps={p: q for p, q in ((ALL[2], ALL[0]), (ALL[3], ALL[2])) if {p, q} <= runs},
            )
        )
        if read:
            got = paid(payers, now - seconds, now, energy_uj)
            assert sum(got.values()) == energy_uj
            assert min(got.values()) >= 0
            payers_of = {payer_of(p, {}) for p in got}
            assert payers_of <= {*ALL, IDLE, SYSTEM, UNATTRIBUTED}


def test_an_end_that_is_known_late_counts_all_the_same() -> None:
    """A command is surveyed until it was read a last time: what comes after its end is not its."""
    payers = Payers()
    payers.observe(survey(0, JOB_A, processes={GPU: (JOB_A,)}))
    payers.observe(survey(1, JOB_A, processes={GPU: (JOB_A,)}))
    assert paid(payers, -0.3, 0.7) == {JOB_A: 1_000_000}
    payers.observe(survey(2, ended=(ended(JOB_A, 0.7),), processes={GPU: ()}))
    assert paid(payers, 0.7, 1.7) == {IDLE: 1_000_000}


@given(weights, weights, st.sampled_from(ALL), st.integers(-10, 2010))
def test_whose_end_was_earlier_leaves_the_rest_as_it_was(first, then, payee, end_ns) -> None:  # type: ignore[no-untyped-def]
    timelines = Timelines()
    timelines.extend(GPU, [Segment(0, 1000, first), Segment(1000, 2000, then)])
    before = timelines.over(GPU, 0, 2000)
    timelines.end(payee, end_ns)
    got = timelines.over(GPU, 0, 2000)
    for one in ALL:
        was, now = (dict(weights).get(one, 0) / whole for weights, whole in (before, got))
        assert now <= was + 1e-12 if one == payee else abs(now - was) < 1e-12
    after = timelines.over(GPU, max(0, min(end_ns, 1999)), 2000)
    assert payee not in dict(after[0]) or end_ns >= 2000
