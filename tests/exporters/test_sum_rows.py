"""Money and market-based CO2e in the lines of a receipt."""

from __future__ import annotations

import csv

import pytest

from wattledger.model import Amounts, TotalsRow
from wattledger.model.sums import Sums, Weighed
from wattledger.units import PPM, UJ_PER_KWH
from wattledger_exporters.report import table, to_csv
from wattledger_exporters.sums import sum_rows, told_sums


@pytest.mark.parametrize(
    ("energy_uj", "part"), [(UJ_PER_KWH, ""), (4 * UJ_PER_KWH, "of 25% of the energy; ")]
)
def test_what_has_no_band_is_said_to_have_none(energy_uj: int, part: str) -> None:
    weighed = Weighed(UJ_PER_KWH * PPM * PPM, UJ_PER_KWH)
    rows = sum_rows(told_sums(Sums({"EUR": weighed}, weighed), energy_uj))
    market = f"CO2e by the site's contracts{', ' if part else '; '}{part}no band"
    assert rows == [("cost", "1.000 EUR", f"{part}no band"), ("market", "1.000 g", market)]


def test_no_spreadsheet_takes_a_currency_for_a_formula() -> None:
    weighed = Weighed(UJ_PER_KWH * PPM * PPM, UJ_PER_KWH)
    row = TotalsRow("a", Amounts(UJ_PER_KWH), 0, sums=Sums({"=HYPERLINK()": weighed}))
    (told,) = csv.DictReader(to_csv(table([row])).splitlines())
    assert (told["currency"], told["costs"]) == ("'=HYPERLINK()", "1.000 =HYPERLINK()")
