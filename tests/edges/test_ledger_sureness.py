"""The ledger's totals tell how they were measured and priced, whatever they are grouped by."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import START_WALL_NS, FakeClock
from ledgers import GPU, PRICE, batch, key, opened
from wattledger.core.footprint import footprint
from wattledger.ledger import LedgerReader
from wattledger.model import Amounts, EntryKey, FallbackLevel, Price, Quality
from wattledger.model.uncertainty import Parts, Sureness, together
from wattledger.units import SLOT_S
from wattledger_exporters.report import total_of

LIVE = PRICE._replace(
    level=FallbackLevel.LIVE,
    estimated=False,
    pue_source="config",
    wue_source="weather",
    ewif_source="mix",
)
CLEANER = LIVE._replace(intensity_ug_per_kwh=LIVE.intensity_ug_per_kwh // 2)
SLOTS = st.integers(6_000_000, 6_000_100).map(lambda n: n * SLOT_S)
KEYS = st.builds(
    lambda slot_s, quality, price: key(slot_s, GPU.name, quality=quality, price=price),
    SLOTS,
    st.sampled_from(Quality),
    st.sampled_from([PRICE, LIVE, CLEANER]),
)


def graded(entries: dict[EntryKey, int]) -> dict[Sureness, int]:
    """The energy by what tells how sure it is; what was recovered counts as metered."""
    wanted: dict[Sureness, int] = {}
    for entry, energy_uj in entries.items():
        quality = Quality.METERED if entry.quality is Quality.RECOVERED else entry.quality
        name = Sureness(quality, entry.price.part.grade)
        wanted[name] = wanted.get(name, 0) + energy_uj
    return wanted


def energies(parts: Parts) -> dict[Sureness, int]:
    return {name: amounts.energy_uj for name, amounts in parts.items()}


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(KEYS, st.integers(1, 10**13), min_size=1, max_size=12))
def test_every_grouping_tells_the_same_of_the_whole(entries: dict[EntryKey, int]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path, clock = Path(directory) / "ledger.sqlite", FakeClock()
        ledger = opened(path, clock)
        ledger.commit(batch(entries), clock.now())
        reader = LedgerReader(path)
        answers = [reader.totals(0, 2 * START_WALL_NS, by) for by in ("all", "device", "hour")]
        reader.close()
        ledger.close()
    for rows in answers:
        assert energies(total_of(rows).sure) == graded(entries)
        for row in rows:
            assert sum(energies(row.sure).values()) == row.amounts.energy_uj


@pytest.mark.parametrize("price", [PRICE, LIVE])
def test_one_price_splits_its_grams_and_litres_with_the_energy(
    price: Price, tmp_path: Path
) -> None:
    path, clock = tmp_path / "ledger.sqlite", FakeClock()
    ledger = opened(path, clock)
    uj = {Quality.METERED: 3_000_000_000, Quality.ESTIMATED: 1_000_000_000}
    entries = {key(SLOT_S, GPU.name, quality=q, price=price): energy for q, energy in uj.items()}
    ledger.commit(batch(entries), clock.now())
    reader = LedgerReader(path)
    (row,) = reader.totals(0, 2 * START_WALL_NS, "all")
    reader.close()
    ledger.close()
    for quality, energy_uj in uj.items():
        part = row.sure[Sureness(quality, price.part.grade)]
        exact = footprint(energy_uj, price)
        assert all(abs(found - wanted) <= 1 for found, wanted in zip(part, exact, strict=True)), (
            part,
            exact,
        )
    assert together(row.sure, row.sure).keys() == row.sure.keys()
    assert row.amounts != Amounts()
