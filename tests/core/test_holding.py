"""A GPU that several hold, commands inside jobs, and runs that begin or end within an interval."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from surveys import ALL, GPU, INNER, JOB_A, JOB_B, STEP, STEPS, WHOLE, at, ended, paid, survey
from wattledger.core.holding import holders_of, payer_of
from wattledger.core.usage import Payers
from wattledger.model import IDLE, Payee
from wattledger.model.jobs import Claim, Holding, job_payee

# ── several on one GPU ──────────────────────────────────────────────────────────────────────────


def test_those_who_share_a_gpu_pay_by_their_use_of_it() -> None:
    payers = Payers()
    both = {GPU: (JOB_A, JOB_B)}
    payers.observe(survey(0, *ALL[:2], processes=both, sm={GPU: {JOB_A: 210, JOB_B: 90}}))
    assert paid(payers, 0, 1) == {JOB_A: 700_000, JOB_B: 300_000}
    assert payers.holdings([GPU]) == {
        JOB_A: (Holding(GPU, 700_000),),
        JOB_B: (Holding(GPU, 300_000),),
    }
    payers.observe(survey(1, *ALL[:2], processes=both, sm={GPU: {JOB_A: 0, JOB_B: 0}}))
    assert paid(payers, 0, 1) == {JOB_A: 500_000, JOB_B: 500_000}
    assert not payers.holdings([GPU])[JOB_A][0].exact


def test_replicas_by_use_and_parts_that_are_known_as_they_are() -> None:
    payers = Payers()
    sm = {GPU: {JOB_A: 30, JOB_B: 10}}
    sliced = tuple(Claim(*p[1:3], GPU, 500_000, "kubelet", exact=False) for p in (JOB_A, JOB_B))
    payers.observe(survey(0, *ALL[:2], claims=sliced, sm=sm))
    assert paid(payers, 0, 1) == {JOB_A: 750_000, JOB_B: 250_000}
    mig = (Claim(*JOB_A[1:3], GPU, 428_571, "slurm"), Claim(*JOB_B[1:3], GPU, 571_428, "slurm"))
    payers.observe(survey(1, *ALL[:2], claims=mig, sm=sm))
    assert paid(payers, 0, 1) == {JOB_A: 428_571, JOB_B: 571_428, IDLE: 1}


# ── commands inside jobs ────────────────────────────────────────────────────────────────────────


def test_a_step_has_what_its_processes_use_and_its_job_holds_all() -> None:
    payers = Payers()
    claim = (Claim(*JOB_A[1:3], GPU, source="slurm"),)
    payers.observe(survey(0, *ALL, steps=STEPS, claims=claim, processes={GPU: (STEP,)}))
    assert paid(payers, 0, 1) == {STEP: 1_000_000}
    assert payers.holdings([GPU]) == {JOB_A: (WHOLE,), STEP: (WHOLE,)}
    on_it = {GPU: (JOB_A, STEP, INNER)}
    payers.observe(survey(1, *ALL, steps=STEPS, claims=claim, processes=on_it))
    assert paid(payers, 0, 1, 900_000) == dict.fromkeys((JOB_A, STEP, INNER), 300_000)
    payers.observe(survey(2, *ALL, steps=STEPS, claims=claim))
    assert paid(payers, 0, 1) == {JOB_A: 1_000_000}


def test_steps_make_their_job_pay_no_more() -> None:
    payers = Payers()
    on_it = {GPU: (STEP, INNER, JOB_B)}
    payers.observe(survey(0, *ALL, steps=STEPS, processes=on_it))
    assert paid(payers, 0, 1) == {STEP: 250_000, INNER: 250_000, JOB_B: 500_000}


@given(
    st.sets(st.sampled_from(ALL)),
    st.dictionaries(st.sampled_from(ALL), st.integers(0, 10**6)),
    st.lists(
        st.tuples(st.sampled_from(ALL), st.integers(0, 10**6), st.booleans(),
                  st.sampled_from(["slurm", "run", "kubelet"])), max_size=4),
    st.integers(1, 10**15),
)  # fmt: skip
def test_with_steps_folded_a_job_pays_what_it_pays_without(on_it, sm, claimed, energy_uj) -> None:  # type: ignore[no-untyped-def]
    processes = {GPU: tuple(sorted(on_it))}
    claims = tuple(Claim(p[1], p[2], GPU, ppm, who, exact) for p, ppm, exact, who in claimed)
    with_steps = survey(0, *ALL, steps=STEPS, processes=processes, sm={GPU: sm}, claims=claims)
    payers = Payers()
    payers.observe(with_steps)
    got = paid(payers, 0, 1, energy_uj)
    assert sum(got.values()) == energy_uj
    folded: dict[Payee, int] = {}
    for payee, share_uj in got.items():
        payer = payer_of(payee, STEPS)
        folded[payer] = folded.get(payer, 0) + share_uj
    running = {run.key: payee for payee, run in with_steps.runs.items()}
    holders = holders_of(GPU, with_steps, running)
    assert not {payee for payee, _ in holders.weights} & set(STEPS)
    for payee, weight in holders.weights:
        # To the microjoule of each part's rounding.
        assert abs(folded.get(payee, 0) - energy_uj * weight // holders.whole) <= len(ALL)


# ── edges ───────────────────────────────────────────────────────────────────────────────────────


def test_a_run_pays_from_its_start_to_its_end() -> None:
    payers = Payers()
    payers.observe(survey(0))
    begun = job_payee("slurm", "3", at(0.75).wall_ns)
    claim = (Claim("slurm", "3", GPU, source="slurm"),)
    payers.observe(survey(1, begun, claims=claim))
    assert paid(payers, 0, 1) == {begun: 250_000, IDLE: 750_000}
    payers.observe(survey(2, begun, claims=claim))
    assert paid(payers, 1, 2) == {begun: 1_000_000}
    payers.observe(survey(3, ended=(ended(begun, 2.4),)))
    assert paid(payers, 2, 3) == {begun: 400_000, IDLE: 600_000}
    payers.observe(survey(4, processes={GPU: ()}))
    assert paid(payers, 3, 4) == {IDLE: 1_000_000}


def test_a_run_that_came_and_went_between_two_looks_pays_for_its_time() -> None:
    payers = Payers()
    payers.observe(survey(0))
    short = job_payee("slurm", "3", at(0.2).wall_ns)
    payers.observe(survey(1, ended=(ended(short, 0.5, WHOLE),)))
    assert paid(payers, 0, 1) == {short: 300_000, IDLE: 700_000}


def test_a_gpu_passes_from_one_job_to_the_next() -> None:
    payers = Payers()
    payers.observe(survey(0, JOB_A, processes={GPU: (JOB_A,)}))
    assert paid(payers, -1, 0) == {JOB_A: 1_000_000}
    following = job_payee("slurm", "3", at(0.6).wall_ns)
    payers.observe(survey(1, following, ended=(ended(JOB_A, 0.5),), processes={GPU: (following,)}))
    assert paid(payers, 0, 1) == {JOB_A: 500_000, following: 400_000, IDLE: 100_000}


@pytest.mark.parametrize("step_s", [-7200, 7200])
def test_a_stepped_wall_clock_costs_a_run_nothing(step_s: int) -> None:
    payers = Payers()
    payers.observe(survey(0))
    begun = job_payee("slurm", "3", at(0.75).wall_ns)
    claim = (Claim("slurm", "3", GPU, source="slurm"),)
    payers.observe(survey(1, begun, claims=claim))
    paid(payers, 0, 1)
    stepped = at(2)._replace(wall_ns=at(2 + step_s).wall_ns)
    payers.observe(replace(survey(2, begun, claims=claim), at=stepped))
    assert paid(payers, 1 + step_s, 2 + step_s) == {begun: 1_000_000}


@given(
    st.lists(st.tuples(st.floats(-2, 2), st.floats(0, 2), st.booleans()), max_size=5),
    st.integers(1, 10**15),
)
def test_edges_neither_make_nor_lose_energy(spans, energy_uj) -> None:  # type: ignore[no-untyped-def]
    payers = Payers()
    payers.observe(survey(0))
    running, over = [], []
    for number, (start_s, length_s, lives) in enumerate(spans):
        payee = job_payee("slurm", str(number), at(start_s).wall_ns)
        (running if lives else over).append((payee, start_s + length_s))
    payers.observe(
        survey(
            1,
            *(payee for payee, _ in running),
            ended=tuple(ended(payee, end_s, WHOLE) for payee, end_s in over),
            claims=tuple(Claim(p.manager, p.job_id, GPU, source="slurm") for p, _ in running),
        )
    )
    got = paid(payers, 0, 1, energy_uj)
    assert sum(got.values()) == energy_uj
    assert min(got.values(), default=0) >= 0
    for payee, end_s in over:
        if end_s <= 0:
            assert payee not in got
