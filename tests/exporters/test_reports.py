"""Totals as tables: exact beside human, CSV, JSON; and the query's parameters."""

from __future__ import annotations

import contextlib
import csv
import io
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

import snapshots
from wattledger.model import Amounts, Basis, TotalsRow
from wattledger.units import NS_PER_S
from wattledger_exporters import report
from wattledger_exporters.http import api
from wattledger_exporters.http.query import BadRequest, instant_ns, parameters, whole_number

NOW_NS = snapshots.NOW_NS
NOW_S = NOW_NS // NS_PER_S


def test_exact_integers_stand_beside_the_units() -> None:
    cpu = report.table(snapshots.rows())[0]
    assert cpu["energy_uj"] == "9007199254740993"  # 2^53 + 1, which no float64 holds
    assert cpu["energy_kwh"] == pytest.approx(2501.9998)
    assert set(cpu) == set(report.FIELDS)


@given(st.lists(st.tuples(*[st.integers(0, 2**80)] * 5), max_size=10))
def test_the_total_is_the_exact_sum(cells: list[tuple[int, int, int, int, int]]) -> None:
    rows = [TotalsRow(f"d{i}", Amounts(*cell[:4]), cell[4]) for i, cell in enumerate(cells)]
    total = report.row_dict(report.total_of(rows))
    for at, name in enumerate(report.FIELDS[7:12]):
        assert total[name] == str(sum(cell[at] for cell in cells))


def test_the_energy_with_pue_is_summed_or_not_known() -> None:
    rows = snapshots.rows()
    total = report.row_dict(report.total_of(rows))
    assert total["facility_uj"] == str(13_511_000_000_000_001 + 5_400_000_000_000)
    assert total["facility_kwh"] == pytest.approx(3754.55555)
    lacking = report.row_dict(report.total_of([*rows, TotalsRow("x", Amounts(), 0), *rows]))
    assert lacking["facility_uj"] is lacking["facility_kwh"] is None


def test_csv_carries_the_same_rows() -> None:
    rows = snapshots.rows()
    read = list(csv.DictReader(io.StringIO(report.to_csv(report.table(rows)))))
    assert [row["energy_uj"] for row in read] == [row["energy_uj"] for row in report.table(rows)]
    assert list(read[0]) == list(report.FIELDS)


def test_a_spreadsheet_takes_no_name_for_a_formula() -> None:
    evil = [TotalsRow("=cmd|' /C calc'!A1", Amounts(), 0), TotalsRow('a,"b\n', Amounts(), 0)]
    groups = [
        row["group"] for row in csv.DictReader(io.StringIO(report.to_csv(report.table(evil))))
    ]
    assert groups == ["'=cmd|' /C calc'!A1", 'a,"b\n']


def test_carbon_of_different_bases_is_told() -> None:
    rows = [
        TotalsRow("a", Amounts(1, 1), 0, (Basis.LIFECYCLE, Basis.LIFECYCLE)),
        TotalsRow("b", Amounts(1, 1), 0, (Basis.DIRECT,)),
    ]
    assert report.row_dict(rows[0])["basis"] == "lifecycle"
    assert report.row_dict(report.total_of(rows))["basis"] == "direct+lifecycle"


# ── instants ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2027-01-15T08:00:00Z", NOW_S),
        ("2027-01-15T09:00:00+01:00", NOW_S),
        ("2027-01-15T09:00:00 01:00", NOW_S),  # "+" not escaped in a URL
        ("2027-01-15 08:00:00+00:00", NOW_S),
        ("2027-01-15", NOW_S - 8 * 3600),
        ("1800000000", NOW_S),
        ("1800000000.5", NOW_S + 0.5),
        ("24h", NOW_S - 86_400),
        ("1h30m", NOW_S - 5_400),
        ("0s", NOW_S),
        ("0", 0),
        ("99999999d", 0),
    ],
)
def test_instants(text: str, seconds: float) -> None:
    assert instant_ns("since", text, NOW_NS) == seconds * NS_PER_S


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "2027-01-15T08:00:00",
        "-5",
        "1e9",
        "nan",
        "24 h",
        "h",
        "1969-12-31",
        "2027-13-01",
        "0001-01-01T00:00:00+23:59",
        "9" * 400,
        "9" * 20 + "s",
        "١٢h",
    ],
)
def test_what_is_no_instant_is_refused_with_the_name(text: str) -> None:
    with pytest.raises(BadRequest, match=r"^since="):
        instant_ns("since", text, NOW_NS)


@given(st.text(max_size=60))
def test_any_text_is_an_instant_or_a_bad_request(text: str) -> None:
    with contextlib.suppress(BadRequest):
        assert instant_ns("until", text, NOW_NS) >= 0


@given(st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1)))
def test_rfc_3339_is_exact_to_the_microsecond(when: datetime) -> None:
    aware = when.replace(tzinfo=UTC)
    exact_us = (aware - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    assert instant_ns("since", aware.isoformat(), NOW_NS) == exact_us * 1000


@pytest.mark.parametrize("text", ["-1", "1.5", "", "901", "1e3", "²", "0x1"])
def test_whole_numbers_are_whole_and_bounded(text: str) -> None:
    with pytest.raises(BadRequest, match="from 0 to 900"):
        whole_number("seconds", text, 900)
    assert whole_number("seconds", "900", 900) == 900


@pytest.mark.parametrize(
    ("query", "why"),
    [
        (b"sicne=1", "'sicne' is not known; known here: since, until"),
        (b"since=1&since=2", "'since' is given twice"),
        (b"&".join(b"since=1" for _ in range(50)), "at most 16"),
        (b"since=%ff", "not UTF-8"),
    ],
)
def test_odd_parameters_are_refused(query: bytes, why: str) -> None:
    with pytest.raises(BadRequest, match=why):
        parameters(query, ("since", "until"))


# ── what totals cover ───────────────────────────────────────────────────────────────────────────


def test_without_parameters_the_whole_epoch_is_meant() -> None:
    hour_ns = 3600 * NS_PER_S
    epoch_ns = 500_000 * hour_ns + 17 * 60 * NS_PER_S  # within a slot, and within an hour
    asked = api.totals_query({}, epoch_ns, NOW_NS)
    assert asked == (500_000 * hour_ns, NOW_NS, "all")


def test_hours_are_bounded() -> None:
    year_ns = 365 * 86_400 * NS_PER_S
    asked = api.totals_query({"by": "hour"}, NOW_NS - 3 * year_ns, NOW_NS)
    assert asked.since_ns == NOW_NS - 7 * 86_400 * NS_PER_S
    with pytest.raises(BadRequest, match="ask for by=day"):
        api.totals_query({"by": "hour", "since": "2020-01-01"}, 0, NOW_NS)


def test_an_interval_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(BadRequest, match="lies after until"):
        api.totals_query({"since": "1h", "until": "2h"}, 0, NOW_NS)
    with pytest.raises(BadRequest, match="is not one of"):
        api.totals_query({"by": "moon"}, 0, NOW_NS)
