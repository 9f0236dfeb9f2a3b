"""Receipts: the figures, their provenance, and the text for people."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes import START_WALL_NS
from ledgers import PRICE
from wattledger.model import Amounts, Basis, Kind, Quality
from wattledger.model.jobbooks import Cell
from wattledger.model.jobs import RUN, SLURM, Held, Holding, JobKey, JobRun, job_payee
from wattledger.model.pricing import Price
from wattledger.model.receipts import GridPart, Receipt, ReceiptKey
from wattledger.model.sums import sums_of
from wattledger.units import NS_PER_S, UG_PER_G, UJ_PER_KWH
from wattledger_exporters.receipts import UNKNOWN, receipt_json, receipt_text, unknown_receipt
from wattledger_exporters.sums import SUM_NAMES

TABLE = GridPart("WORLD", "table", Basis.LIFECYCLE, True, 1_560_000)
LIVE = GridPart("GB", "neso", Basis.GENERATION, False, 1_200_000)
KWH = UJ_PER_KWH
PRICED = "1,000 g/kWh, table WORLD (lifecycle, an estimate) and 1 more, PUE 1.56"
SURE = (
    "energy -19/+15%, PUE -30/+22%, intensity ±24%, WUE ÷3…×3, EWIF ÷3…×3: "
    "judged from published ranges, no confidence interval"
)


def a_run(seconds: float = 10.0, **more: Any) -> JobRun:
    run = JobRun(
        job_payee(RUN, "r-1", START_WALL_NS),
        uid=1000,
        labels={"name": "train"},
        end_ns=START_WALL_NS + round(seconds * NS_PER_S),
    )
    return replace(run, **more)


def a_cell(energy_uj: int, co2e_ug: int = 0, *, held: Held | None = None) -> Cell:
    return Cell(Amounts(energy_uj, co2e_ug, energy_uj // 7, energy_uj // 3), held or Held())


def a_price(
    part: GridPart,
    cost_u: int | None = 250_000,
    currency: str = "EUR",
    market_ug: int | None = None,
) -> Price:
    return PRICE._replace(
        zone=part.zone,
        source=part.source,
        basis=part.basis,
        estimated=part.estimated,
        pue_ppm=part.pue_ppm,
        cost_u_per_kwh=cost_u,
        currency=currency,
        market_ug_per_kwh=market_ug,
    )


def a_receipt(**more: Any) -> Receipt:
    gpu = a_cell(3 * KWH, 4_680_000_000, held=Held(7_200_000, 3_600_000, KWH))
    cells = {
        ReceiptKey(Kind.GPU, Quality.METERED, TABLE): gpu,
        ReceiptKey(Kind.CPU, Quality.ESTIMATED, LIVE): a_cell(1 * KWH, 240_000_000),
    }
    weights = {TABLE: 3 * KWH * 1_000_000_000, LIVE: KWH * 200_000_000}
    sums = sums_of([(a_price(TABLE), 3 * KWH), (a_price(LIVE), KWH)])
    receipt = Receipt(a_run(3600), None, cells, START_WALL_NS, weights, sums)
    return replace(receipt, **more)


def test_the_figures_of_a_receipt() -> None:
    told = receipt_json(a_receipt(), exit_code=3)
    assert told["energy_kwh"] == {"gpu": 3.0, "cpu": 1.0, "dram": 0.0, "other": 0.0, "total": 4.0}
    assert told["co2e_g"] == 4920.0
    assert told["water_l"]["total"] == 6857142.857142
    assert told["cost"] == {"amount": pytest.approx((3 * 1.56 + 1.2) * 0.25), "currency": "EUR"}
    assert (told["duration_s"], told["mean_watts"]) == (3600.0, 4000.0)
    assert told["quality"] == {"metered": 0.75, "estimated": 0.25}
    assert told["estimated_share"] == 0.25
    assert told["held_idle_kwh"] == 1.0
    assert (told["held_device_hours"], told["held_idle_device_hours"]) == (2.0, 1.0)
    assert (told["exit_code"], told["measured_by"], told["complete"]) == (3, "daemon", True)
    assert told["exact"]["energy_uj"] == str(4 * KWH)
    assert told["exact"]["co2e_ug"] == "4920000000"
    assert told["exact"]["start_ns"] == str(START_WALL_NS)


def test_every_gram_names_where_its_intensity_is_from() -> None:
    neso, table = receipt_json(a_receipt())["grid"]
    assert (neso["zone"], neso["source"], neso["basis"]) == ("GB", "neso", "generation")
    assert (neso["estimated"], neso["energy_share"], neso["pue"]) == (False, 0.25, 1.2)
    assert neso["mean_intensity_g_per_kwh"] == 200.0
    assert table["mean_intensity_g_per_kwh"] == 1000.0
    assert table["estimated"] is True


def priced_at(*prices: Price, embodied_fg: int = 0) -> Receipt:
    """One kWh at each."""
    keys = [ReceiptKey(Kind.GPU, Quality.METERED, price.part) for price in prices]
    cells = {key: a_cell(KWH * keys.count(key)) for key in keys}
    sums = sums_of((price, KWH) for price in prices)._replace(embodied_fg=embodied_fg)
    return a_receipt(cells=cells, weights={}, sums=sums)


def test_no_price_is_no_cost_and_a_price_of_nothing_is_a_cost_of_nothing() -> None:
    told = receipt_json(priced_at(a_price(TABLE, None, "")))
    assert (told["cost"], told["costs"]) == (None, [])
    told = receipt_json(priced_at(a_price(TABLE, 0)))
    assert told["cost"] == {"amount": 0.0, "currency": "EUR"}


def test_energy_booked_before_a_price_was_known_is_said_not_guessed() -> None:
    bare = a_price(LIVE, None, "")
    told = receipt_json(priced_at(a_price(TABLE, market_ug=100_000_000), bare))
    assert told["cost"] == {"amount": pytest.approx(0.39), "currency": "EUR"}
    assert told["costs"] == [{**told["cost"], "energy_share": 0.5}]
    assert (told["market_co2e_g"], told["market_energy_share"]) == (pytest.approx(156.0), 0.5)
    assert told["embodied_co2e_g"] is None
    text = " ".join(receipt_text(told).split())
    assert "cost 0.3900 EUR of 50% of the energy" in text
    assert "market 156.0 g CO2e by the site's contracts, of 50% of the energy" in text
    assert "embodied" not in text


def test_currencies_are_shown_apart_and_never_added() -> None:
    told = receipt_json(priced_at(a_price(TABLE), a_price(LIVE, currency="CHF")))
    assert told["cost"] is None
    assert [(one["currency"], one["energy_share"]) for one in told["costs"]] == [
        ("CHF", 0.5),
        ("EUR", 0.5),
    ]
    assert "cost      0.3000 CHF + 0.3900 EUR" in receipt_text(told)


def test_what_making_the_hardware_emitted_is_a_figure_of_its_own() -> None:
    without = receipt_json(priced_at(a_price(TABLE)))
    told = receipt_json(priced_at(a_price(TABLE), embodied_fg=4_680_000_000_000_000))
    assert told["embodied_co2e_g"] == 4.68 and told["co2e_g"] == without["co2e_g"]
    assert told["uncertainty"]["embodied_co2e_g"] is not None
    text = receipt_text(told)
    assert "embodied  4.680 g (2.9–7.5) " in text and "of making the hardware; not in CO2e" in text
    assert len(text.splitlines()) <= 16


def test_a_receipt_of_a_daemon_that_knew_one_price_stays_readable() -> None:
    told = receipt_json(priced_at(a_price(TABLE)))
    old = {name: told[name] for name in told if name not in SUM_NAMES or name == "cost"}
    assert "cost      0.3900 EUR" in receipt_text(old)


def test_what_began_to_be_measured_late_is_incomplete_and_its_power_is_of_the_time_measured() -> (
    None
):
    late = a_receipt(since_ns=START_WALL_NS + 1800 * NS_PER_S)
    told = receipt_json(late)
    assert told["complete"] is False
    assert told["mean_watts"] == 8000.0
    assert "INCOMPLETE" in receipt_text(told)
    assert receipt_json(a_receipt(), complete=False)["complete"] is False


def test_a_run_that_goes_on() -> None:
    run = a_run(end_ns=0, last_seen_ns=START_WALL_NS + 5 * NS_PER_S)
    told = receipt_json(a_receipt(run=run))
    assert (told["end"], told["exit_code"], told["duration_s"]) == (None, None, 5.0)
    assert "has run for 5 s" in receipt_text(told)


def test_nothing_booked_is_no_division_by_zero() -> None:
    told = receipt_json(Receipt(a_run(0), since_ns=START_WALL_NS))
    assert told["energy_kwh"]["total"] == told["mean_watts"] == told["estimated_share"] == 0.0
    assert (told["quality"], told["grid"]) == ({}, [])
    assert "no energy was booked" in receipt_text(told)


def test_of_what_nothing_is_known_every_amount_is_none_and_not_0() -> None:
    told = unknown_receipt(Receipt(a_run(7.5)), exit_code=1)
    assert told.keys() == receipt_json(a_receipt()).keys()
    assert [told[name] for name in UNKNOWN] == [None] * len(UNKNOWN)
    assert (told["duration_s"], told["exit_code"], told["complete"]) == (7.5, 1, False)
    assert told["exact"].keys() == {"start_ns", "end_ns"}
    assert receipt_text(told, ["Why."]).splitlines() == [
        "wattledger: train took 7.5 s, exit code 1; not measured",
        "  Why.",
    ]


def test_the_text_for_people() -> None:
    run = a_run(3600, holdings=(Holding("GPU-7a", 1_000_000),))
    text = receipt_text(receipt_json(a_receipt(run=run), exit_code=0), ["One note."])
    assert text.splitlines() == [
        "wattledger: train took 1 h, exit code 0; measured by the daemon as run/r-1",
        "  energy    4.000 kWh (3.2–4.6)                 GPU 3.000, CPU 1.000",
        "            14,400,000 J                        mean 4,000 W",
        "  CO2e      4,920 g (3,100–6,700)               " + PRICED,
        "  water     6,857,143 L (3,000,000–16,000,000)  on site 2,057,143, grid 4,800,000",
        "  cost      1.470 EUR                           no band",
        "  held idle 1.000 kWh                           50% of 2 h GPU time",
        "  measured  75% by energy counters, 25% estimated",
        "  how sure  " + SURE,
        "  devices   GPU-7a",
        "  One note.",
    ]


def test_a_step_says_whose_and_the_direct_way_says_so() -> None:
    step = receipt_json(a_receipt(step_of=JobKey(SLURM, "4711")))
    assert step["step_of"] == {"manager": "slurm", "job_id": "4711"}
    assert "a step of slurm/4711" in receipt_text(step)
    assert "measured without a daemon" in receipt_text(
        receipt_json(a_receipt(), measured_by="direct")
    )


def test_many_gpus_and_a_hostile_name_stay_readable() -> None:
    held = tuple(Holding(f"GPU-{n}", 1_000_000) for n in range(64))
    run = a_run(labels={"name": "\x1b[2J\n" + "x" * 100_000}, holdings=held)
    text = receipt_text(receipt_json(a_receipt(run=run), complete=False))
    assert len(text.splitlines()) <= 14
    assert max(map(len, text.splitlines())) < 200
    assert "\x1b" not in text
    assert "and 56 more" in text


def test_a_tiny_energy_is_no_zero_and_not_in_scientific_notation() -> None:
    cells = {
        ReceiptKey(Kind.GPU, Quality.METERED, TABLE): a_cell(999_999, 3_000),
        ReceiptKey(Kind.CPU, Quality.ESTIMATED, TABLE): a_cell(1),
    }
    text = receipt_text(receipt_json(Receipt(a_run(0.3), cells=cells, since_ns=START_WALL_NS)))
    assert "energy    1.000 J " in text and "GPU 1.000, CPU <0.001; mean 3.333 W" in text
    assert "CO2e      3.000 mg" in text and "e-" not in text
    assert "measured  >99% by energy counters, <1% estimated" in text


@given(st.integers(0, 10**6), st.lists(st.integers(0, 10**15), min_size=1, max_size=5))
def test_the_intensity_is_that_of_the_price_however_little_was_used(
    tenths_g: int, energies_uj: list[int]
) -> None:
    """CO2e is in whole µg, rounded down: below some joules its quotient by energy says nothing."""
    key = ReceiptKey(Kind.CPU, Quality.METERED, LIVE)
    intensity_ug, energy_uj = tenths_g * UG_PER_G // 10, sum(energies_uj)
    weights = {LIVE: sum(uj * intensity_ug for uj in energies_uj)}
    cells = {key: a_cell(energy_uj, energy_uj * intensity_ug // KWH)}
    told = receipt_json(
        Receipt(a_run(), cells=cells, since_ns=START_WALL_NS, weights=weights),
    )
    said = told["grid"][0]["mean_intensity_g_per_kwh"]
    assert said == (tenths_g / 10 if energy_uj else None)
    assert ("g/kWh" in receipt_text(told)) == (said is not None)


def test_several_intensities_of_a_source_show_their_mean_by_energy() -> None:
    key = ReceiptKey(Kind.CPU, Quality.METERED, LIVE)
    weights = {LIVE: 3 * 100_000_000 + 1 * 300_000_000}
    receipt = Receipt(a_run(), cells={key: a_cell(4)}, since_ns=START_WALL_NS, weights=weights)
    assert receipt_json(receipt)["grid"][0]["mean_intensity_g_per_kwh"] == 150.0


def test_a_source_is_one_row_however_often_its_prices_and_the_pue_changed() -> None:
    """Its mean intensity and PUE are those of the energy; the one that priced most is told."""
    cells, weights = {}, {}
    parts = [
        *(LIVE._replace(pue_ppm=pue_ppm) for pue_ppm in (1_100_000, 1_200_000, 1_500_000)),
        LIVE._replace(level=1),
        LIVE._replace(pue_source="live", wue_source="weather"),
    ]
    for number, part in enumerate(parts):
        cells[ReceiptKey(Kind.GPU, Quality.METERED, part)] = a_cell((number + 1) * KWH)
        weights[part] = (number + 1) * KWH * (number + 1) * 100 * UG_PER_G
    cells[ReceiptKey(Kind.GPU, Quality.METERED, TABLE)] = a_cell(6 * KWH)
    weights[TABLE] = 6 * KWH * 436 * UG_PER_G
    told = receipt_json(a_receipt(cells=cells, weights=weights))
    assert [row["source"] for row in told["grid"]] == ["neso", "table"]
    live = told["grid"][0]
    assert live["energy_share"] == pytest.approx(15 / 21)
    mean_g = (1 + 4 + 9 + 16 + 25) * 100 / 15
    assert live["mean_intensity_g_per_kwh"] == pytest.approx(mean_g)
    assert live["pue"] == pytest.approx((1.1 + 2 * 1.2 + 3 * 1.5 + 9 * 1.2) / 15)
    text = receipt_text(told)
    assert "366.7 g/kWh, neso GB (generation) and 1 more, PUE 1.25333" in text
    assert told["grid"][1] == receipt_json(a_receipt())["grid"][1] | {
        "energy_share": 6 / 21,
        "mean_intensity_g_per_kwh": 436.0,
    }


GRIDS = st.sampled_from([TABLE, LIVE, LIVE._replace(estimated=True), TABLE._replace(pue_ppm=10**6)])
KEYS = st.builds(ReceiptKey, st.sampled_from(Kind), st.sampled_from(Quality), GRIDS)
NUMBERS = st.integers(0, 2**60)
CELLS = st.builds(
    Cell,
    st.builds(Amounts, NUMBERS, NUMBERS, NUMBERS, NUMBERS),
    st.builds(Held, NUMBERS, NUMBERS, NUMBERS),
)


@given(st.dictionaries(KEYS, CELLS, max_size=20))
def test_the_exact_figures_are_the_sums_of_the_cells_whatever_they_are(
    cells: dict[ReceiptKey, Cell],
) -> None:
    told = receipt_json(Receipt(a_run(), cells=cells, since_ns=START_WALL_NS))
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    exact = told["exact"]
    energy_uj = sum(cell.amounts.energy_uj for cell in cells.values())
    assert int(exact["energy_uj"]) == energy_uj
    assert int(exact["energy_uj"]) == sum(int(exact[f"energy_uj_{kind}"]) for kind in Kind)
    assert int(exact["co2e_ug"]) == sum(cell.amounts.co2e_ug for cell in cells.values())
    assert int(exact["held_idle_uj"]) == sum(cell.held.idle_uj for cell in cells.values())
    if energy_uj:
        assert abs(sum(told["quality"].values()) - 1) < 1e-9
        assert abs(sum(grid["energy_share"] for grid in told["grid"]) - 1) < 1e-9
    assert receipt_text(told)
