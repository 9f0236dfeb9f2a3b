"""Bands: within their parts, whatever order or scale; and each term where it belongs."""

from __future__ import annotations

from math import exp, log, sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattledger.model import Amounts, FallbackLevel, Quality
from wattledger.model.pricing import Grade
from wattledger.model.uncertainty import (
    TERM_NAMES,
    TERMS,
    Band,
    Sureness,
    Term,
    bands_of,
    combine,
    split,
    together,
)

SURE = Grade(FallbackLevel.LIVE, False, "config", "config", "config")
TABLE = Grade(FallbackLevel.TABLE, True, "default", "default", "table")
HOUR = Amounts(1_000_000, 400_000, 3_000, 5_000)

FACTORS = st.floats(1.0, 20.0)
NAMED = st.builds(
    lambda name, low, high: Term(name, "x", 1 / low, high, ""),
    st.sampled_from(TERM_NAMES),
    FACTORS,
    FACTORS,
)
WEIGHTS = st.integers(1, 2**90)
PARTS = st.lists(
    st.tuples(WEIGHTS, st.lists(NAMED, max_size=4, unique_by=lambda term: term.name)),
    min_size=1,
    max_size=6,
)
NEARLY = 1e-9


def band(parts: list[tuple[int, list[Term]]]) -> Band:
    found = combine(parts)
    assert found is not None
    return found


@given(PARTS)
def test_a_total_is_as_sure_as_its_least_sure_part_at_worst(
    parts: list[tuple[int, list[Term]]],
) -> None:
    whole, alone = band(parts), [band([part]) for part in parts]
    assert 0 < whole.low <= 1 <= whole.high
    assert whole.low >= min(one.low for one in alone) * (1 - NEARLY)
    assert whole.high <= max(one.high for one in alone) * (1 + NEARLY)


@given(PARTS, st.randoms(use_true_random=False), st.integers(1, 10**6))
def test_neither_order_nor_scale_changes_a_band(
    parts: list[tuple[int, list[Term]]], random: object, scale: int
) -> None:
    known = band(parts)
    random.shuffle(parts)  # type: ignore[attr-defined]
    assert band(parts) == known
    scaled = band([(weight * scale, terms) for weight, terms in parts])
    assert scaled.low == pytest.approx(known.low) and scaled.high == pytest.approx(known.high)


@given(PARTS, st.integers(0, 5), NAMED)
def test_one_more_term_never_narrows(
    parts: list[tuple[int, list[Term]]], at: int, term: Term
) -> None:
    weight, terms = parts[at % len(parts)]
    parts[at % len(parts)] = weight, [other for other in terms if other.name != term.name]
    before = band(parts)
    parts[at % len(parts)][1].append(term)
    after = band(parts)
    assert after.low <= before.low * (1 + NEARLY)
    assert after.high >= before.high * (1 - NEARLY)


def test_terms_are_in_quadrature_and_parts_of_one_term_err_together() -> None:
    energy, pue = Term("energy", "a", 0.5, 2.0, ""), Term("PUE", "b", 0.8, 1.5, "")
    both = band([(7, [energy, pue])])
    assert both.high == pytest.approx(exp(sqrt(log(2.0) ** 2 + log(1.5) ** 2)))
    assert both.low == pytest.approx(exp(-sqrt(log(0.5) ** 2 + log(0.8) ** 2)))
    other = Term("energy", "c", 0.5, 8.0, "")
    mixed = band([(3, [energy]), (1, [other])])
    assert mixed.high == pytest.approx(2.0 ** (3 / 4) * 8.0 ** (1 / 4))
    assert mixed.low == pytest.approx(0.5)
    assert [(one.term.of, one.share) for one in mixed.terms] == [("a", 0.75), ("c", 0.25)]


def test_of_nothing_there_is_no_band() -> None:
    assert combine([]) is combine([(0, [TERMS[0]])]) is None
    bands = bands_of({Sureness(Quality.METERED, SURE): Amounts(5)})
    assert bands.energy is not None
    assert bands.co2e is bands.water is None


def terms_of(found: Band | None) -> list[tuple[str, str]]:
    assert found is not None
    return [(one.term.name, one.term.of) for one in found.terms]


def test_each_quantity_has_the_terms_of_its_product() -> None:
    bands = bands_of({Sureness(Quality.ESTIMATED, TABLE): HOUR})
    assert terms_of(bands.energy) == [("energy", "estimated")]
    assert terms_of(bands.co2e) == [
        ("energy", "estimated"),
        ("PUE", "default"),
        ("intensity", "table"),
    ]
    assert bands.water is not None
    assert {one.term.name: one.share for one in bands.water.terms} == {
        "energy": 1.0,
        "PUE": 5 / 8,  # of the grid's part only
        "WUE": 3 / 8,
        "EWIF": 5 / 8,
    }


@pytest.mark.parametrize(("grade", "of"), [
    (SURE, "measured"),
    (SURE._replace(estimated=True), "estimated"),
    (SURE._replace(level=FallbackLevel.LAST_GOOD, estimated=True), "estimated"),
    (TABLE, "table"),
    (TABLE._replace(estimated=False), "table"),
])  # fmt: skip
def test_the_kind_of_signal(grade: Grade, of: str) -> None:
    assert ("intensity", of) in terms_of(bands_of({Sureness(Quality.METERED, grade): HOUR}).co2e)


@pytest.mark.parametrize(("source", "of"), [
    ("config", "config"), ("live", "live"), ("default", "default"), ("", "default"),
])  # fmt: skip
def test_a_pue_that_nobody_says_the_source_of_is_no_surer_than_the_default(
    source: str, of: str
) -> None:
    parts = {Sureness(Quality.METERED, SURE._replace(pue_source=source)): HOUR}
    assert ("PUE", of) in terms_of(bands_of(parts).co2e)


def test_what_was_recovered_is_as_sure_as_what_was_metered() -> None:
    metered, recovered, integrated, estimated = (
        bands_of({Sureness(quality, SURE): HOUR}).energy
        for quality in (
            Quality.METERED,
            Quality.RECOVERED,
            Quality.INTEGRATED,
            Quality.ESTIMATED,
        )
    )
    assert metered == recovered
    assert metered and integrated and estimated
    assert metered.low > integrated.low > estimated.low
    assert metered.high < integrated.high < estimated.high


def test_every_term_is_a_band_of_its_own_and_has_a_reason() -> None:
    assert all(0 < term.low < 1 < term.high and len(term.why) > 40 for term in TERMS)
    assert len({(term.name, term.of) for term in TERMS}) == len(TERMS)
    assert tuple(dict.fromkeys(term.name for term in TERMS)) == TERM_NAMES


@given(st.integers(0, 2**60), st.integers(0, 2**60), st.integers(0, 2**60))
def test_amounts_are_split_to_the_microjoule(metered: int, integrated: int, estimated: int) -> None:
    energy_uj = metered + integrated + estimated
    amounts = Amounts(energy_uj, energy_uj // 3, energy_uj // 5, energy_uj // 7)
    parts = split(TABLE, amounts, estimated, integrated)
    found = {key.quality: part.energy_uj for key, part in parts.items()}
    wanted = {
        Quality.METERED: metered,
        Quality.INTEGRATED: integrated,
        Quality.ESTIMATED: estimated,
    }
    assert found == {quality: uj for quality, uj in wanted.items() if uj}
    assert sum(part.co2e_ug for part in parts.values()) <= amounts.co2e_ug
    doubled = together(parts, parts)
    assert {key: part.energy_uj for key, part in doubled.items()} == {
        key: 2 * part.energy_uj for key, part in parts.items()
    }
