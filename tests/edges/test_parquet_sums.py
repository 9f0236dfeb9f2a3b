"""The Parquet export's sums, read by DuckDB, are the ledger's own, whatever became of it."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from ledgers import CPU, GPU, PRICE, batch, key
from parquets import DAY, DAY_S, RUN, Pages, ask, export
from restating import Node, noded, restatement, settlement
from wattledger.model import IDLE, Basis, EntryKey
from wattledger.model.settling import sum_of_settled
from wattledger.units import SLOT_S

OTHER = PRICE._replace(intensity_ug_per_kwh=987_654_321, basis=Basis.DIRECT)
SUMS = """
SELECT sum(energy_uj), sum(co2e_ug), sum(water_onsite_ul), sum(water_grid_ul), sum(settled_uj),
       sum(co2e_final_ug) - sum(co2e_ug), sum(water_grid_final_ul) - sum(water_grid_ul),
       sum(water_onsite_final_ul) - sum(water_onsite_ul), sum(restated_uj)
FROM lake
"""


def sums_of(node: Node) -> tuple[int, ...]:
    """The same of the ledger's own sums, which stay whatever is rolled up."""
    cells = [total.amounts for total in node.ledger.books.totals.values()]
    amounts = [sum(column) for column in zip(*cells, strict=True)]
    settled = sum_of_settled(node.ledger.books.settled)
    return (
        *amounts, settled.energy_uj, settled.co2e_ug, settled.water_grid_ul,
        settled.water_onsite_ul, settled.restated_uj,
    )  # fmt: skip


bookings = st.dictionaries(
    st.builds(
        lambda day, slot, device, payee, price: key(
            DAY_S + day * DAY + slot * SLOT_S, device, payee, price=price
        ),
        st.integers(0, 2),
        st.sampled_from([0, 1, 11, 12, 287]),
        st.sampled_from([GPU.name, CPU.name]),
        st.sampled_from([IDLE, RUN.payee]),
        st.sampled_from([PRICE, OTHER]),
    ),
    st.integers(1, 10**13),
    min_size=1,
    max_size=30,
)


@settings(
    max_examples=20,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    energy_uj=bookings,
    settled=st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from([0, 1, 11]), st.integers(1, 900))
    ),
    rolled_days=st.integers(0, 2),
    restated_h=st.integers(1, 60),
    most=st.sampled_from([1, 7, 2000]),
)
def test_its_sums_are_the_ledgers(
    tmp_path_factory: pytest.TempPathFactory,
    energy_uj: dict[EntryKey, int],
    settled: list[tuple[int, int, int]],
    rolled_days: int,
    restated_h: int,
    most: int,
) -> None:
    home = tmp_path_factory.mktemp("parquet")
    with noded(home / "ledger.sqlite") as node:
        node.clock.advance(4 * DAY)
        node.ledger.commit(batch(energy_uj, runs=(RUN,)), node.clock.now())
        for day, slot, grams in settled:
            node.settle(settlement(DAY_S + day * DAY + slot * SLOT_S, PRICE, grams))
        node.roll_up(DAY_S + rolled_days * DAY)
        node.say(restatement(-24, restated_h, pue_ppm=1_900_000, wue_ul_per_kwh=0))
        node.apply()
        files = export(Pages(home / "ledger.sqlite", most), home / "lake")
        assert ask(home / "lake", SUMS) == [sums_of(node)]
        by_basis: dict[str, int] = {}
        for cell, total in node.ledger.books.totals.items():
            uj = total.amounts.co2e_ug
            by_basis[cell.basis.value] = by_basis.get(cell.basis.value, 0) + uj
        asked = "SELECT basis, sum(co2e_ug) FROM lake GROUP BY ALL"
        assert dict(ask(home / "lake", asked)) == by_basis
    assert len(files) == len({one.slot_s // DAY for one in energy_uj})
