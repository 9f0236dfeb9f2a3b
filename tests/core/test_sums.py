"""Money, market-based and embodied CO2e: exact, and never lost or doubled by a commit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes import SITE, table_choice
from wattledger.core.footprint import price_of
from wattledger.core.summing import Summing
from wattledger.model import (
    AttributedInterval,
    Batch,
    DeviceInfo,
    EnergyInterval,
    EntryKey,
    Kind,
    Payee,
    PayeeKind,
    Price,
    Quality,
)
from wattledger.model.embodied import NO_EMBODIED, Embodied, rates_of
from wattledger.model.market import Contract, Market
from wattledger.model.paying import Usage
from wattledger.model.sums import (
    NO_SUMS,
    Sums,
    Weighed,
    of_text,
    read_node,
    sums_of,
    to_text,
    total,
)
from wattledger.units import NS_PER_S, PPM, UJ_PER_KWH, micro

GPU = DeviceInfo("GPU-1", Kind.GPU, "nvml", model="NVIDIA H100 80GB HBM3")
CPU = DeviceInfo("cpu0", Kind.CPU, "rapl")
JOB = Payee(PayeeKind.JOBS, "slurm", "7", 1)
IDLE = Payee(PayeeKind.IDLE)
BASE = price_of(table_choice(), SITE)
HOUR_NS = 3600 * NS_PER_S


def price(cost_u: int | None, currency: str, market_ug: int | None, pue_ppm: int) -> Price:
    return BASE._replace(
        cost_u_per_kwh=cost_u, currency=currency, market_ug_per_kwh=market_ug, pue_ppm=pue_ppm
    )


PRICES = st.builds(
    price,
    st.none() | st.integers(0, 10_000_000),
    st.sampled_from(["EUR", "CHF"]),
    st.none() | st.integers(0, 2_000_000_000),
    st.integers(PPM, 2 * PPM),
)
KEYS = st.builds(
    EntryKey,
    st.sampled_from([0, 300]),
    st.sampled_from([GPU.name, CPU.name]),
    st.sampled_from([JOB, IDLE]),
    st.sampled_from([Quality.METERED, Quality.RECOVERED]),
    PRICES,
)
STEPS = st.lists(
    st.tuples(
        st.dictionaries(KEYS, st.integers(1, 10**13), max_size=4),
        st.integers(0, 600),  # seconds since the step before
        st.sampled_from(["commits", "fails", "restarts"]),
    ),
    max_size=12,
)


def batch(
    energy_uj: Mapping[EntryKey, int],
    devices: tuple[DeviceInfo, ...] = (GPU, CPU),
) -> Batch:
    return Batch(energy_uj, {}, {}, devices, {}, (), {"other": "kept"}, 0)


def hold(
    summing: Summing,
    device: str,
    payee: Payee,
    span_ns: int,
    quality: Quality = Quality.METERED,
    part: int = 1,
    whole: int = 1,
) -> None:
    """An interval in which somebody holds a GPU, or a part of it."""
    interval = EnergyInterval(device, 0, span_ns, 5, quality)
    usage = Usage(device, ((payee, part),), whole, held=True)
    summing.charge(AttributedInterval(interval, ((payee, 5),)), usage, Kind.GPU)


def pay(summing: Summing, device: str, shares: Mapping[Payee, int], span_ns: int) -> None:
    """An interval of a device that nobody holds."""
    interval = EnergyInterval(device, 0, span_ns, sum(shares.values()), Quality.METERED)
    attributed = AttributedInterval(interval, tuple(shares.items()))
    summing.charge(attributed, Usage(device), Kind.CPU)


@given(STEPS)
def test_whatever_fails_or_restarts_the_sums_are_those_of_the_entries(
    steps: list[tuple[dict[EntryKey, int], int, str]],
) -> None:
    """Σ over the committed entries of energy × PUE × price, exactly, at any moment."""
    notes: Mapping[str, str] = {}
    runs: dict[Payee, Sums] = {}
    booked: dict[EntryKey, int] = {}
    pending: dict[EntryKey, int] = {}
    now_s, shown = 0, NO_SUMS
    summing = Summing(Embodied(), 0)
    summing.see((GPU, CPU), 0)
    for energy_uj, passed_s, what in steps:
        now_s += passed_s
        for key, uj in energy_uj.items():
            pending[key] = pending.get(key, 0) + uj
        if what == "restarts":  # what was not committed is gone with the process
            pending = {}
            summing = Summing(Embodied(), now_s * NS_PER_S)
            summing.see((GPU, CPU), now_s * NS_PER_S)
            continue
        made = summing.complete(batch(pending), notes, now_s * NS_PER_S)
        assert made.notes["other"] == "kept"
        if what == "fails":
            continue
        notes = {**notes, **made.notes}
        for payee, sums in made.sums.items():
            runs[payee] = runs.get(payee, NO_SUMS).plus(sums)
        for key, uj in pending.items():
            booked[key] = booked.get(key, 0) + uj
        pending = {}
        summing.committed()
        node = read_node(notes)
        whole = total(node.values())
        expected = sums_of((key.price, uj) for key, uj in booked.items())
        assert (dict(whole.costs), whole.market) == (dict(expected.costs), expected.market)
        of_job = sums_of((k.price, uj) for k, uj in booked.items() if k.payee == JOB)
        mine = runs.get(JOB, NO_SUMS)
        assert (dict(mine.costs), mine.market) == (dict(of_job.costs), of_job.market)
        for currency, cost in shown.costs.items():
            assert whole.costs[currency].amount >= cost.amount
        assert whole.market.amount >= shown.market.amount
        assert whole.embodied_fg >= shown.embodied_fg
        shown = whole


def test_time_is_counted_once_through_failing_commits_and_not_while_nobody_ran() -> None:
    summing = Summing(Embodied(), 0)
    summing.see((GPU,), 0)
    summing.complete(batch({}), {}, HOUR_NS)  # fails
    made = summing.complete(batch({}), {}, 2 * HOUR_NS)
    summing.committed()
    again = Summing(Embodied(), 10 * HOUR_NS)  # 8 hours later
    again.see((GPU,), 10 * HOUR_NS)
    made = again.complete(batch({}), made.notes, 11 * HOUR_NS)
    node = read_node(made.notes)
    assert node[Kind.GPU].embodied_g == pytest.approx(3 * 4.680, rel=1e-4)
    assert node[Kind.OTHER].embodied_g == pytest.approx(3 * 5_700_000 / 8 / (4 * 8760), rel=1e-8)


def test_a_gpu_that_leaves_weighs_nothing_from_then_on() -> None:
    summing = Summing(Embodied(host_ug=0), 0)
    summing.see((GPU,), 0)
    gone = DeviceInfo(GPU.name, Kind.GPU, "nvml", model=GPU.model, present=False)
    summing.see((gone,), HOUR_NS)
    made = summing.complete(batch({}), {}, 5 * HOUR_NS)
    assert read_node(made.notes)[Kind.GPU].embodied_g == pytest.approx(4.6804, rel=1e-4)


@pytest.mark.parametrize(
    ("embodied", "grams"),
    [
        (Embodied(), 4.6804),  # 164 kg over 4 years
        (Embodied(lifetime_ns=5 * 365 * 24 * HOUR_NS), 3.7443),
        (Embodied(gpus_ug=(("*", 10**12),)), 28.539),  # SCI's example: 1000 kg over 4 years
        (Embodied(gpus_ug=(("*h100*", 10**12),)), 28.539),
        (Embodied(gpus_ug=(("*A100*", 10**12),)), 4.6804),
    ],
)
def test_the_published_figures_per_hour(embodied: Embodied, grams: float) -> None:
    rate = rates_of(embodied, (GPU,)).gpus[GPU.name]
    assert rate * 3_600_000 / 1e15 == pytest.approx(grams, rel=1e-4)


@pytest.mark.parametrize(
    ("model", "kg"),
    [
        ("NVIDIA H100 80GB HBM3", 164.0),
        ("NVIDIA H200", 164.0),
        ("NVIDIA A100-SXM4-40GB", 127.6),
        ("NVIDIA A100-PCIE-40GB", 181.0),
        ("NVIDIA A100 80GB PCIe", 181.0),
        ("NVIDIA GH200 480GB", None),
        ("NVIDIA H100 PCIe", None),
        ("NVIDIA H100 NVL", None),
        ("NVIDIA GeForce RTX 4090", None),
        ("", None),
    ],
)
def test_what_nobody_published_is_absent(model: str, kg: float | None) -> None:
    rates = rates_of(Embodied(), (DeviceInfo("GPU-1", Kind.GPU, "nvml", model=model),))
    per_kg = 10**24 // (4 * 365 * 86_400_000)  # fg per kg over ms of 4 years, times 10⁶
    if kg is None:
        assert (dict(rates.gpus), rates.host, dict(rates.held)) == ({}, None, {})
        assert rates.unknown == (model,)
    else:
        assert rates.gpus["GPU-1"] == pytest.approx(kg * per_kg / 10**6, rel=1e-6)
        assert rates.unknown == ()


def test_off_counts_nothing() -> None:
    summing = Summing(NO_EMBODIED, 0)
    summing.see((GPU,), 0)
    assert summing.complete(batch({}), {}, HOUR_NS).notes == {"other": "kept"}


def test_jobs_bear_what_they_held_with_its_part_of_the_host() -> None:
    gpus = tuple(DeviceInfo(f"GPU-{n}", Kind.GPU, "nvml", model=GPU.model) for n in range(8))
    summing = Summing(Embodied(), 0)
    summing.see(gpus, 0)
    hold(summing, "GPU-3", JOB, HOUR_NS // 2, part=7, whole=7)
    hold(summing, "GPU-3", JOB, HOUR_NS, part=3, whole=6)
    hold(summing, "GPU-4", IDLE, HOUR_NS)
    hold(summing, "GPU-3", JOB, HOUR_NS, Quality.RECOVERED)  # no daemon saw it
    made = summing.complete(batch({}, gpus), {}, HOUR_NS)
    hours = 4 * 365 * 24
    assert set(made.sums) == {JOB}
    expected = 164_000 / hours + 5_700_000 / 8 / hours
    assert made.sums[JOB].embodied_g == pytest.approx(expected, rel=1e-8)


def test_time_weighs_what_was_known_of_the_hardware_when_it_passed() -> None:
    """The job that holds all of it bears what the node does, whatever is reloaded meanwhile."""
    summing = Summing(Embodied(host_ug=0), 0)
    summing.see((GPU,), 0)
    hold(summing, GPU.name, JOB, HOUR_NS)
    summing.reconfigure(Embodied(host_ug=0, lifetime_ns=24 * HOUR_NS), HOUR_NS)
    made = summing.complete(batch({}), {}, HOUR_NS)  # fails
    hold(summing, GPU.name, JOB, HOUR_NS)
    summing.reconfigure(NO_EMBODIED, 2 * HOUR_NS)
    hold(summing, GPU.name, JOB, HOUR_NS)
    made = summing.complete(batch({}), {}, 3 * HOUR_NS)
    assert made.sums[JOB].embodied_g == pytest.approx(4.6804 + 164_000 / 24, rel=1e-6)
    assert read_node(made.notes)[Kind.GPU].embodied_fg == made.sums[JOB].embodied_fg
    summing.committed()
    assert summing.complete(batch({}), {}, 4 * HOUR_NS).sums == {}


def test_what_is_switched_on_begins_then() -> None:
    summing = Summing(NO_EMBODIED, 0)
    summing.see((GPU,), 0)
    hold(summing, GPU.name, JOB, HOUR_NS)
    summing.reconfigure(Embodied(), HOUR_NS)
    made = summing.complete(batch({}), {}, HOUR_NS)
    assert (made.sums, made.notes) == ({}, {"other": "kept"})


def gpus_of(*models: str, present: bool = True) -> tuple[DeviceInfo, ...]:
    return tuple(
        DeviceInfo(f"GPU-{n}", Kind.GPU, "nvml", model=model, present=present)
        for n, model in enumerate(models)
    )


PER_KG = 10**21 // (4 * 365 * 86_400_000) / 1000  # of 4 years, in 10⁻¹⁵ g per ms


def test_the_host_is_borne_by_gpus_of_which_nothing_is_known_too() -> None:
    rates = rates_of(Embodied(host_ug=1500 * 10**9), (*gpus_of("NVIDIA L40S", "NVIDIA L4"), CPU))
    assert {name: rate / PER_KG for name, rate in rates.held.items()} == pytest.approx(
        {"GPU-0": 750, "GPU-1": 750}
    )
    assert (dict(rates.gpus), rates.unknown) == ({}, ("NVIDIA L4", "NVIDIA L40S"))
    mixed = rates_of(Embodied(host_ug=1500 * 10**9), gpus_of("NVIDIA L40S", "NVIDIA H200"))
    assert {name: rate / PER_KG for name, rate in mixed.held.items()} == pytest.approx(
        {"GPU-0": 750, "GPU-1": 914}
    )


@pytest.mark.parametrize(
    ("models", "kg"),
    [
        (["NVIDIA H100 80GB HBM3"], 712.5),  # a virtual machine with one of the eight
        (["NVIDIA A100-SXM4-80GB"] * 4, 2850),
        (["NVIDIA H200"] * 8, 5700),
        (["NVIDIA H200", "NVIDIA L4"], 712.5),
        (["NVIDIA A100 80GB PCIe"], None),
    ],
)
def test_a_server_for_eight_counts_for_as_many_as_are_there(
    models: list[str], kg: float | None
) -> None:
    host = rates_of(Embodied(), gpus_of(*models)).host
    assert host == (None if kg is None else pytest.approx(kg * PER_KG, rel=1e-6))
    told = rates_of(Embodied(host_ug=10**12), gpus_of(*models)).host
    assert told == pytest.approx(1000 * PER_KG, rel=1e-6)


def test_gpus_that_have_left_leave_no_host_behind() -> None:
    gone = gpus_of("NVIDIA H100 80GB HBM3", present=False)
    assert rates_of(Embodied(), (*gone, CPU)).host is None
    told = rates_of(Embodied(host_ug=10**12), (*gone, CPU))
    assert told.held["cpu0"] == told.host == pytest.approx(1000 * PER_KG, rel=1e-6)


def test_without_gpus_the_host_is_borne_by_the_energy_of_its_cpus() -> None:
    cpus = (CPU, DeviceInfo("cpu1", Kind.CPU, "rapl"))
    summing = Summing(Embodied(host_ug=10**12), 0)
    summing.see(cpus, 0)
    pay(summing, "cpu0", {JOB: 30, IDLE: 70}, HOUR_NS)
    pay(summing, "cpu1", {IDLE: 1000}, HOUR_NS)
    pay(summing, "cpu1", {JOB: 0}, HOUR_NS)  # no energy, no share
    made = summing.complete(batch({}, devices=cpus), {}, HOUR_NS)
    assert made.sums[JOB].embodied_g == pytest.approx(0.3 * 28.539 / 2, rel=1e-4)
    assert read_node(made.notes)[Kind.OTHER].embodied_g == pytest.approx(28.539, rel=1e-4)


@given(
    st.dictionaries(
        st.sampled_from(["EUR", "USD", "\U0001f4b0"]),
        st.builds(Weighed, st.integers(0, 10**40), st.integers(0, 2**63)),
    ),
    st.builds(Weighed, st.integers(0, 10**40), st.integers(0, 2**63)),
    st.integers(0, 10**30),
)
def test_sums_come_back_from_their_text(
    costs: dict[str, Weighed], market: Weighed, embodied_fg: int
) -> None:
    sums = Sums(costs, market, embodied_fg)
    assert of_text(to_text(sums)) == sums
    assert read_node({"sums": '{"gpu":' + to_text(sums) + "}"}) == {Kind.GPU: sums}


@pytest.mark.parametrize("note", ["", "{", "[]", '{"gpu": 3}', '{"tpu": {}}', '{"gpu": {}}'])
def test_a_note_that_cannot_be_read_is_none(note: str) -> None:
    assert read_node({"sums": note}) == {}


def test_what_a_kwh_costs() -> None:
    sums = sums_of([(price(250_000, "EUR", 100 * 10**6, 1_500_000), UJ_PER_KWH)])
    assert sums.costs["EUR"].amount == 0.375
    assert sums.market.amount == 150.0


def test_energy_without_a_price_is_not_free() -> None:
    priced, bare = price(0, "EUR", None, PPM), price(None, "", None, PPM)
    sums = sums_of([(priced, 5), (bare, 7)])
    assert sums.costs == {"EUR": Weighed(0, 5)}
    assert sums.market == Weighed()


SHARES = st.lists(st.integers(0, 300_000), max_size=3)


@given(SHARES, st.integers(0, 10**9), st.none() | st.integers(0, 10**9))
def test_contracts_first_then_the_residual_mix_then_the_location(
    shares: list[int], location_ug: int, residual_ug: int | None
) -> None:
    contracts = tuple(Contract("", ppm, n * 10**7) for n, ppm in enumerate(shares))
    made = Market(contracts, residual_ug).ug_per_kwh(location_ug)
    rest_ug = location_ug if residual_ug is None else residual_ug
    exact = sum(Fraction(ppm * n * 10**7, PPM) for n, ppm in enumerate(shares))
    exact += Fraction((PPM - sum(shares)) * rest_ug, PPM)
    assert abs(made - exact) <= Fraction(1, 2)


def test_a_contract_holds_in_its_time() -> None:
    site = SITE.at(0)
    assert site is SITE
    bounded = Market((Contract("wind", PPM, 0, 100, 200),), None)
    site = replace(SITE, market=bounded)
    choice = table_choice(400.0)
    made = {at: price_of(choice, site.at(at)).market_ug_per_kwh for at in (99, 100, 199, 200)}
    assert made == {99: micro(400), 100: 0, 199: 0, 200: micro(400)}
    assert price_of(choice, SITE).market_ug_per_kwh is None
