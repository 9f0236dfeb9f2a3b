"""Who pays: conservation, symmetry, nobody for what they neither hold nor use, order."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import FakeClock
from wattledger.core.attribution import attribute
from wattledger.core.usage import POLICIES, Payers
from wattledger.model import (
    IDLE,
    SYSTEM,
    UNATTRIBUTED,
    EnergyInterval,
    Instant,
    Kind,
    Payee,
    PayeeKind,
    Quality,
    Usage,
)
from wattledger.model.jobs import TRUST, Claim, Holding, JobRun, Survey, job_payee
from wattledger.units import NS_PER_S

GPU = "GPU-1"
T0 = FakeClock().now()
RUNS = [job_payee("slurm", str(n), 1000 + n) for n in range(5)]


def at(seconds: float) -> Instant:
    ns = round(seconds * NS_PER_S)
    return Instant(*(clock + ns for clock in T0))


def interval(device: str, energy_uj: int, quality: Quality = Quality.METERED) -> EnergyInterval:
    return EnergyInterval(device, T0.wall_ns, T0.wall_ns + NS_PER_S, energy_uj, quality)


def survey(seconds: float = 0, *payees: Payee, **more: object) -> Survey:
    runs = {payee: JobRun(payee) for payee in payees}
    return replace(Survey(at(seconds), runs), **more)  # type: ignore[arg-type]


def shares(
    payers: Payers,
    device: str,
    kind: Kind,
    energy_uj: int = 1_000_000,
    quality: Quality = Quality.METERED,
    processes: int | None = None,
    floor_uw: int = 0,
) -> dict[Payee, int]:
    one = interval(device, energy_uj, quality)
    usage = payers.usage(one, kind, processes=processes, floor_uw=floor_uw)
    return dict(attribute(one, usage).shares)


def test_a_gpu_is_its_holders_idle_included() -> None:
    payers = Payers()
    payers.observe(survey(0, *RUNS, processes={GPU: (RUNS[0],)}))
    assert shares(payers, GPU, Kind.GPU, processes=1) == {RUNS[0]: 1_000_000}
    payers.observe(survey(1, *RUNS, processes={GPU: (RUNS[0], RUNS[1])}))
    assert shares(payers, GPU, Kind.GPU, processes=2) == {RUNS[0]: 500_000, RUNS[1]: 500_000}
    assert payers.holdings([GPU]) == {
        run: (Holding(GPU, 500_000, exact=False),) for run in RUNS[:2]
    }


@pytest.mark.parametrize(
    ("processes", "strangers", "payee"),
    [(0, (), IDLE), (2, (GPU,), SYSTEM), (3, (), IDLE), (None, (), UNATTRIBUTED)],
)
def test_a_gpu_without_a_holder(
    processes: int | None, strangers: tuple[str, ...], payee: Payee
) -> None:
    payers = Payers()
    known = {} if processes is None else {GPU: ()}
    payers.observe(survey(0, processes=known, strangers=frozenset(strangers)))
    assert shares(payers, GPU, Kind.GPU, processes=processes) == {payee: 1_000_000}


def test_the_most_trusted_source_with_a_living_job_decides() -> None:
    payers = Payers()
    claims = [
        Claim("slurm", "0", GPU, source="jobstats"),
        Claim("slurm", "1", GPU, source="slurm"),
        Claim("slurm", "99", GPU, source="kubelet"),  # no such job is alive
        Claim("slurm", "2", GPU, source="myself"),  # nobody whose word counts
        Claim("slurm", "3", "GPU-2", source="kubelet"),
    ]
    payers.observe(survey(0, *RUNS, claims=tuple(claims), processes={GPU: (RUNS[4],)}))
    assert shares(payers, GPU, Kind.GPU) == {RUNS[1]: 1_000_000}


def test_parts_of_a_gpu_and_replicas_of_it() -> None:
    payers = Payers()
    parts = (
        Claim("slurm", "0", GPU, 500_000, "kubelet"),
        Claim("slurm", "1", GPU, 250_000, "kubelet"),
    )
    payers.observe(survey(0, *RUNS, claims=parts))
    expected = {RUNS[0]: 500_000, RUNS[1]: 250_000, IDLE: 250_000}
    assert shares(payers, GPU, Kind.GPU) == expected
    sliced = tuple(Claim("slurm", str(n), GPU, 1_000_000, "kubelet", exact=False) for n in (0, 1))
    payers.observe(survey(1, *RUNS, claims=sliced))
    assert shares(payers, GPU, Kind.GPU) == {RUNS[0]: 500_000, RUNS[1]: 500_000}
    assert not payers.holdings([GPU])[RUNS[0]][0].exact


def test_cpu_time_over_the_nodes_or_the_jobs_whichever_is_more() -> None:
    payers = Payers()
    payers.observe(survey(0, *RUNS[:2], cpu_ns={RUNS[0]: 0, RUNS[1]: 5}, busy_ns=1_000))
    shares(payers, "cpu0", Kind.CPU)
    payers.observe(survey(1, *RUNS[:2], cpu_ns={RUNS[0]: 300, RUNS[1]: 105}, busy_ns=2_000))
    expected = {RUNS[0]: 300_000, RUNS[1]: 100_000, SYSTEM: 600_000}
    assert shares(payers, "cpu0", Kind.CPU) == expected
    assert shares(payers, "cpu0", Kind.CPU) == expected  # a second interval of the same tick
    payers.observe(survey(2, *RUNS[:2], cpu_ns={RUNS[0]: 600, RUNS[1]: 405}, busy_ns=2_100))
    assert shares(payers, "cpu0", Kind.CPU) == {RUNS[0]: 500_000, RUNS[1]: 500_000}


def test_a_device_that_is_read_seldom_misses_nobody() -> None:
    payers = Payers()
    payers.observe(survey(0, RUNS[0], cpu_ns={RUNS[0]: 0}, busy_ns=0))
    shares(payers, "cpu0", Kind.CPU)
    payers.observe(survey(1, RUNS[0], cpu_ns={RUNS[0]: 500}, busy_ns=500))
    payers.observe(survey(2, RUNS[1], cpu_ns={RUNS[1]: 500}, busy_ns=1000))  # RUNS[0] has ended
    assert shares(payers, "cpu0", Kind.CPU) == {RUNS[0]: 500_000, RUNS[1]: 500_000}
    payers.observe(survey(3, RUNS[1], cpu_ns={RUNS[1]: 600}, busy_ns=1100))
    assert shares(payers, "cpu0", Kind.CPU) == {RUNS[1]: 1_000_000}


@pytest.mark.parametrize(
    ("policy", "floor"),
    [
        ("allocated", {RUNS[0]: 125_000, IDLE: 375_000}),
        ("equal", {RUNS[0]: 250_000, RUNS[1]: 250_000}),
        ("proportional", {RUNS[1]: 250_000, IDLE: 250_000}),
        ("none", {IDLE: 500_000}),
    ],
)
def test_idle_policies(policy: str, floor: dict[Payee, int]) -> None:
    payers = Payers(policy)
    payers.observe(survey(0, *RUNS[:2], cpu_ns=dict.fromkeys(RUNS[:2], 0), busy_ns=0))
    shares(payers, "cpu0", Kind.CPU)
    payers.observe(
        survey(
            1,
            *RUNS[:2],
            cpu_ns={RUNS[0]: 0, RUNS[1]: 500},
            busy_ns=1000,
            cpuset_ppm={RUNS[0]: 250_000},
        )
    )
    got = shares(payers, "cpu0", Kind.CPU, floor_uw=500_000)  # 0.5 J of 1 J
    dynamic = {RUNS[1]: 250_000, SYSTEM: 250_000}
    expected = {p: floor.get(p, 0) + dynamic.get(p, 0) for p in {**floor, **dynamic}}
    assert got == expected


def test_memory_over_all_there_is() -> None:
    payers = Payers()
    payers.observe(survey(0, RUNS[0], memory_bytes={RUNS[0]: 250}, memory_total_bytes=1000))
    assert shares(payers, "dram0", Kind.DRAM) == {RUNS[0]: 250_000, IDLE: 750_000}
    payers.observe(survey(1, RUNS[0], memory_bytes={RUNS[0]: 2000}, memory_total_bytes=1000))
    assert shares(payers, "dram0", Kind.DRAM) == {RUNS[0]: 1_000_000}


def test_what_was_counted_in_a_restart_is_for_those_alive_on_both_sides() -> None:
    before = [JobRun(RUNS[0], holdings=(Holding(GPU, 1_000_000),)), JobRun(RUNS[1])]
    payers = Payers(remembered=before, busy_ns=1000)
    payers.observe(
        survey(
            0,
            RUNS[0],
            RUNS[2],
            cpu_ns={RUNS[0]: 400, RUNS[2]: 100},
            busy_ns=2000,
            memory_bytes={RUNS[0]: 10, RUNS[2]: 10},
            memory_total_bytes=100,
            processes={GPU: (RUNS[0],), "GPU-2": (RUNS[2],)},
        )
    )
    recovered = Quality.RECOVERED
    assert shares(payers, GPU, Kind.GPU, quality=recovered) == {RUNS[0]: 1_000_000}
    assert shares(payers, "GPU-2", Kind.GPU, quality=recovered) == {UNATTRIBUTED: 1_000_000}
    assert shares(payers, "cpu0", Kind.CPU, quality=recovered) == {
        RUNS[0]: 400_000,
        UNATTRIBUTED: 600_000,
    }
    assert shares(payers, "dram0", Kind.DRAM, quality=recovered) == {
        RUNS[0]: 100_000,
        UNATTRIBUTED: 900_000,
    }


def test_before_any_survey_nothing_is_told() -> None:
    payers = Payers()
    assert shares(payers, GPU, Kind.GPU, processes=1) == {SYSTEM: 1_000_000}
    assert shares(payers, "cpu0", Kind.CPU) == {SYSTEM: 1_000_000}
    assert shares(payers, "dram0", Kind.DRAM) == {IDLE: 1_000_000}
    with pytest.raises(ValueError, match="policy"):
        Payers("some")


# ── properties ──────────────────────────────────────────────────────────────────────────────────

small = st.integers(0, 10**9)
subsets = st.lists(st.sampled_from(RUNS), unique=True)
nodes = st.fixed_dictionaries(
    {
        "alive": subsets,
        "cpu": st.dictionaries(st.sampled_from(RUNS), small),
        "busy": st.none() | st.integers(0, 10**10),
        "memory": st.dictionaries(st.sampled_from(RUNS), small),
        "memory_total": st.integers(0, 10**10),
        "cpuset": st.dictionaries(st.sampled_from(RUNS), st.integers(0, 10**6)),
        "on_gpu": subsets,
        "claims": st.lists(
            st.builds(
                Claim,
                st.just("slurm"),
                st.sampled_from([run.job_id for run in RUNS] + ["77"]),
                st.sampled_from([GPU, "GPU-2"]),
                st.integers(-5, 2_000_000),
                st.sampled_from([*TRUST, "forged"]),
                st.booleans(),
            ),
            max_size=6,
        ),
    }
)


def seen(node: dict, order: object = None) -> Survey:  # type: ignore[type-arg]
    alive = list(node["alive"])
    claims = list(node["claims"])
    if order is not None:
        order.shuffle(alive)  # type: ignore[attr-defined]
        order.shuffle(claims)  # type: ignore[attr-defined]

    def of(values: dict[Payee, int]) -> dict[Payee, int]:
        return {run: values[run] for run in alive if run in values}

    return Survey(
        at=at(1),
        runs={run: JobRun(run) for run in alive},
        cpu_ns=of(node["cpu"]),
        busy_ns=node["busy"],
        memory_bytes=of(node["memory"]),
        memory_total_bytes=node["memory_total"],
        cpuset_ppm=of(node["cpuset"]),
        processes={GPU: tuple(run for run in alive if run in node["on_gpu"])},
        claims=tuple(claims),
    )


def usages(payers: Payers, energy_uj: int, floor_uw: int) -> dict[str, Usage]:
    devices = {GPU: Kind.GPU, "GPU-2": Kind.GPU, "cpu0": Kind.CPU, "dram0": Kind.DRAM}
    return {
        device: payers.usage(interval(device, energy_uj), kind, processes=1, floor_uw=floor_uw)
        for device, kind in devices.items()
    }


@settings(max_examples=200, deadline=None)
@given(nodes, st.sampled_from(POLICIES), st.integers(1, 10**12), small, st.randoms())
def test_conservation_dummy_and_order(node, policy, energy_uj, floor_uw, order) -> None:  # type: ignore[no-untyped-def]
    payers, shuffled = Payers(policy, busy_ns=0), Payers(policy, busy_ns=0)
    payers.observe(seen(node))
    shuffled.observe(seen(node, order))
    others = usages(shuffled, energy_uj, floor_uw)
    alive = set(node["alive"])
    for device, usage in usages(payers, energy_uj, floor_uw).items():
        one = interval(device, energy_uj)
        got = dict(attribute(one, usage).shares)
        assert sum(got.values()) == energy_uj
        assert got == dict(attribute(one, others[device]).shares)
        jobs = {payee for payee in got if payee.kind is PayeeKind.JOBS}
        assert jobs <= alive
        if device == "GPU-2":
            claimed = {c.job_id for c in node["claims"] if c.device == device and c.share_ppm > 0}
            assert {payee.job_id for payee in jobs} <= claimed
        if device == "dram0":
            assert jobs <= {run for run, held in node["memory"].items() if held}
        if device == "cpu0" and policy == "none":
            assert jobs <= {run for run, used in node["cpu"].items() if used}


@given(st.sampled_from(POLICIES), small, small, st.integers(1, 10**12), small)
def test_equals_pay_the_same(policy, cpu, memory, energy_uj, floor_uw) -> None:  # type: ignore[no-untyped-def]
    two = RUNS[:2]
    payers = Payers(policy, busy_ns=0)
    payers.observe(
        survey(
            1,
            *two,
            cpu_ns=dict.fromkeys(two, cpu),
            busy_ns=10**9,
            memory_bytes=dict.fromkeys(two, memory),
            memory_total_bytes=10**10,
            cpuset_ppm=dict.fromkeys(two, 300_000),
            processes={GPU: tuple(two)},
        )
    )
    for device, usage in usages(payers, energy_uj, floor_uw).items():
        got = dict(attribute(interval(device, energy_uj), usage).shares)
        # To the microjoule of each rounding: the floor's and the rest's.
        assert abs(got.get(two[0], 0) - got.get(two[1], 0)) <= 2
