"""The page: golden files, parsers, the catalogue, and labels from a hostile world."""

from __future__ import annotations

import gzip
import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.core import Metric
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text

import snapshots
from wattledger.model import (
    Basis,
    DeviceRecord,
    FallbackLevel,
    GridChoice,
    Kind,
    PayeeKind,
    Snapshot,
    Total,
)
from wattledger.units import UJ_PER_KWH
from wattledger_exporters import metrics
from wattledger_exporters.lines import LABEL_CHARS, label_value
from wattledger_exporters.metrics import CATALOGUE
from wattledger_exporters.prometheus import Page, Renderer

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"

Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def page(snapshot: Snapshot, **how: Any) -> Page:
    return Renderer().render(snapshot, 1, process=False, **how)


def series(families: Iterable[Metric]) -> Series:
    found: Series = {}
    for family in families:
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found, f"duplicate series {key}"
            found[key] = sample.value
    return found


def text_series(of: Page) -> Series:
    return series(parse_text(of.text.decode()))


def values(of: Page, name: str, **labels: str) -> dict[tuple[tuple[str, str], ...], float]:
    wanted = set(labels.items())
    return {
        key[1]: value
        for key, value in text_series(of).items()
        if key[0] == "wattledger_" + name and wanted <= set(key[1])
    }


# ── the golden pages ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "field", "created"),
    [
        ("metrics.txt", "text", False),
        ("metrics.openmetrics.txt", "openmetrics", False),
        ("metrics.created.openmetrics.txt", "openmetrics", True),
    ],
)
def test_page_is_as_recorded(name: str, field: str, created: bool) -> None:
    assert getattr(page(snapshots.snapshot(), created=created), field) == (
        (GOLDEN / name).read_bytes()
    ), "if the change is meant: `python tests/snapshots.py` records the pages anew"


def test_the_page_of_a_node_with_jobs_is_as_recorded() -> None:
    of = page(snapshots.with_jobs(), labels=snapshots.JOB_LABELS)
    assert of.text == (GOLDEN / "metrics.jobs.txt").read_bytes()


def test_gzipped_pages_are_the_plain_ones() -> None:
    of = page(snapshots.snapshot())
    assert gzip.decompress(of.text_gzip) == of.text
    assert gzip.decompress(of.openmetrics_gzip) == of.openmetrics
    assert len(of.text_gzip) < len(of.text) / 3


def test_rendering_is_repeatable_and_changes_nothing() -> None:
    snapshot = snapshots.snapshot()
    assert page(snapshot) == page(snapshot)


# ── parsers and the catalogue ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("created", [False, True])
def test_both_formats_say_the_same(created: bool) -> None:
    of = page(snapshots.with_jobs(), created=created, labels=snapshots.JOB_LABELS)
    assert series(parse_openmetrics(of.openmetrics.decode())) == text_series(of)


def test_every_metric_of_the_catalogue_is_on_the_page_and_no_other() -> None:
    shown = page(snapshots.with_jobs(), labels=snapshots.JOB_LABELS)
    names = {name for name, _ in text_series(shown)}
    assert names == {spec.sample for spec in CATALOGUE.values()}


def test_types_labels_and_help_are_the_catalogues() -> None:
    shown = page(snapshots.with_jobs(), labels=["user"])
    families = {f.name: f for f in parse_openmetrics(shown.openmetrics.decode())}
    for spec in CATALOGUE.values():
        family = families[spec.family]
        assert family.type == spec.type
        assert metrics.DOCS in family.documentation
        chosen = {"user"} if spec.name == "job_info" else set()
        assert all(set(s.labels) == {*spec.labels, *chosen} for s in family.samples)


def test_process_metrics_are_there_unless_left_out() -> None:
    names = {name for name, _ in text_series(Renderer().render(snapshots.snapshot(), 1))}
    assert "process_cpu_seconds_total" in names
    assert "process_resident_memory_bytes" in names
    assert not [name for name, _ in text_series(page(snapshots.snapshot())) if "process_" in name]


def test_document_is_generated_from_the_catalogue() -> None:
    document = (ROOT / "exporters" / "METRICS.md").read_text()
    assert document == metrics.markdown(), (
        "run `python -m wattledger_exporters.metrics > exporters/METRICS.md`"
    )


# ── what the figures are ────────────────────────────────────────────────────────────────────────


def test_energy_is_the_exact_sum_of_the_cells() -> None:
    snapshot = snapshots.snapshot()
    of = page(snapshot)
    for name in snapshot.books.devices:
        exact_uj = sum(
            total.amounts.energy_uj
            for key, total in snapshot.books.totals.items()
            if key.device == name
        )
        assert list(values(of, "energy_kwh_total", device=name).values()) == [exact_uj / UJ_PER_KWH]


def test_kinds_balance_over_payees_and_qualities() -> None:
    of = page(snapshots.snapshot())
    for kind in Kind:
        devices = math.fsum(values(of, "energy_joules_total", kind=kind).values())
        payees = math.fsum(values(of, "payee_energy_joules_total", kind=kind).values())
        qualities = math.fsum(values(of, "energy_quality_joules_total", kind=kind).values())
        assert devices == pytest.approx(payees, rel=1e-12)
        assert devices == pytest.approx(qualities, rel=1e-12)


def test_a_new_device_has_counters_at_zero() -> None:
    infos = snapshots.devices(1, gone=-1)[:1]
    name = infos[0].name
    snapshot = snapshots.snapshot(infos)
    snapshot = replace(snapshot, books=replace(snapshot.books, totals={}))
    of = page(snapshot)
    for counter in ("energy_kwh_total", "energy_joules_total", "unobserved_seconds_total"):
        assert list(values(of, counter, device=name).values()) == [0]
    assert values(of, "co2e_grams_total", device=name, basis=Basis.LIFECYCLE)
    assert len(values(of, "water_liters_total", device=name)) == 2
    assert len(values(of, "payee_energy_joules_total", kind="gpu")) == len(PayeeKind)


def test_a_device_that_left_keeps_its_counters() -> None:
    gone = snapshots.GPU.format(3)
    of = page(snapshots.snapshot())
    assert list(values(of, "device_present", device=gone).values()) == [0]
    assert next(iter(values(of, "energy_kwh_total", device=gone).values())) > 0
    assert not values(of, "power_watts", device=gone)


def test_energy_without_a_device_record_stays_on_the_page() -> None:
    snapshot = snapshots.snapshot()
    records = {k: v for k, v in snapshot.books.devices.items() if k != "cpu0"}
    of = page(replace(snapshot, books=replace(snapshot.books, devices=records)))
    assert next(iter(values(of, "energy_kwh_total", device="cpu0").values())) > 0


def test_what_never_happened_is_absent_and_not_zero() -> None:
    snapshot = snapshots.snapshot()
    signal = replace(snapshot.grid.signal, valid_from_ns=0)
    of = page(
        replace(
            snapshot,
            power_uw={},
            counter_power_ratio={},
            grid=GridChoice(signal, FallbackLevel.TABLE, True),
            books=replace(snapshot.books, books_ns=0),
            ledger=replace(snapshot.ledger, last_commit_ns=0),
        )
    )
    for name in (
        "power_watts",
        "gpu_counter_power_ratio",
        "uncertainty_ratio",
        "grid_signal_timestamp_seconds",
        "books_timestamp_seconds",
        "ledger_last_commit_timestamp_seconds",
        "ledger_commit_duration_seconds",
    ):
        assert not values(of, name), name
    assert list(values(of, "meter_up", meter="hwmon").values()) == [0]
    assert not values(of, "meter_last_success_timestamp_seconds", meter="hwmon")


def test_created_is_the_first_booking_of_the_series() -> None:
    of = page(snapshots.snapshot(), created=True)
    created = values(of, "energy_joules_created", device=snapshots.GPU.format(2))
    assert list(created.values()) == [snapshots.EPOCH_NS / 1e9 + 2]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 10**19), min_size=1, max_size=20))
def test_no_counter_falls_while_the_books_grow(steps_uj: list[int]) -> None:
    snapshot = snapshots.snapshot(snapshots.devices(1, gone=-1)[:1])
    key, total = next(iter(snapshot.books.totals.items()))
    before: Series = {}
    for step_uj in steps_uj:
        total = Total(total.amounts.plus(snapshots.amounts(step_uj)), total.first_booked_ns)
        books = replace(snapshot.books, totals={**snapshot.books.totals, key: total})
        now = text_series(page(replace(snapshot, books=books)))
        falls = [k for k, v in before.items() if k[0].endswith("_total") and now[k] < v]
        assert not falls
        before = now


# ── labels ──────────────────────────────────────────────────────────────────────────────────────

hostile = st.one_of(
    st.text(st.characters(codec=None, exclude_categories=()), max_size=300),
    st.sampled_from(
        [
            'x"} 1\nwattledger_energy_kwh_total{device="forged",kind="gpu"} 9e9',
            "a\\",
            '\\"',
            "\\n",
            'a\\\\n"',
            "\r",
            "\x00",
            "\u2028",
            "\x85",
            "\udcff\ud800",
            "\u202egnp",
            "x" * 1_000_000,
            "# EOF",
            "{}",
            ",=",
            " ",
            "",
        ]
    ),
)


@settings(max_examples=150, deadline=None)
@given(hostile, hostile, hostile, hostile)
def test_names_from_outside_cannot_forge_a_line(
    name: str, other: str, model: str, reason: str
) -> None:
    base = snapshots.devices(1, gone=-1)[0]
    infos = [replace(base, name=n, model=model) for n in {name, other}]
    snapshot = snapshots.snapshot(infos)
    meters = tuple(replace(meter, errors={reason: 1}) for meter in snapshot.meters)
    of = page(replace(snapshot, meters=meters))
    text = text_series(of)
    assert series(parse_openmetrics(of.openmetrics.decode())) == text
    found = {dict(labels)["device"] for n, labels in text if n == "wattledger_device_present"}
    assert found == {label_value(n) for n in {name, other}}
    assert len(found) == len({name, other})
    models = {dict(labels)["model"] for n, labels in text if n == "wattledger_device_info"}
    assert models == {label_value(model)}
    errors = {dict(labels)["reason"] for n, labels in text if n == "wattledger_meter_errors_total"}
    assert errors == {label_value(reason)}
    plain = page(snapshots.snapshot([replace(base, name=n) for n in ("a", "b")][: len(infos)]))
    assert of.text.count(b"\n") == plain.text.count(b"\n") + _error_lines(meters)


def _error_lines(meters: tuple[object, ...]) -> int:
    """Lines of `meter_errors_total` more than in the fixed snapshot, which has two."""
    return len(meters) - 2


@given(st.text(st.characters(codec=None, exclude_categories=()), max_size=300))
def test_a_label_value_is_printable_short_and_stable(raw: str) -> None:
    cleaned = label_value(raw)
    assert cleaned.isprintable()
    assert len(cleaned) <= LABEL_CHARS
    assert cleaned.encode().decode() == cleaned
    assert label_value(cleaned) == cleaned
    if raw.isprintable() and len(raw) <= LABEL_CHARS:
        assert cleaned == raw


def test_different_names_never_become_one_series() -> None:
    assert label_value("a\n") != label_value("a\r") != label_value("a\ufffd")
    assert label_value("x" * 200) != label_value("x" * 201)


def test_a_device_record_without_reading_is_no_obstacle() -> None:
    snapshot = snapshots.snapshot()
    records = {n: DeviceRecord(r.info) for n, r in snapshot.books.devices.items()}
    assert page(replace(snapshot, books=replace(snapshot.books, devices=records))).text


# ── jobs ────────────────────────────────────────────────────────────────────────────────────────


def test_no_name_of_a_job_or_a_person_is_shown_unasked() -> None:
    plain = page(snapshots.with_jobs()).text.decode()
    assert "user100" not in plain and "of mine" not in plain and "physics" not in plain
    users = page(snapshots.with_jobs(), labels=["user"])
    assert 'user="user1001"' in users.text.decode() and "physics" not in users.text.decode()
    (sum_kwh,) = values(users, "user_energy_kwh_total").values()
    assert sum_kwh == 3.0  # over both accounts


def test_a_jobs_series_are_the_sum_of_its_runs_and_the_rest_is_other() -> None:
    of = page(snapshots.with_jobs())
    energy = values(of, "job_energy_kwh_total", kind="gpu")
    shown = {dict(labels)["job_id"]: value for labels, value in energy.items()}
    assert shown == {"4711": 1 + 1_000_000 / 3.6e12, "4712": 2.0, "(other)": 3.0}
    assert {dict(labels)["manager"] for labels in values(of, "job_info")} == {"slurm"}
    assert list(values(of, "job_info").values()) == [1.0, 1.0]
    assert values(of, "jobs_over_limit_total") == {(): 1.0}
    assert [dict(labels)["job_id"] for labels in values(of, "job_device_info")] == ["4711"]


@given(st.text(max_size=300), st.text(max_size=300))
def test_no_jobs_name_can_forge_a_line(name: str, job_id: str) -> None:
    books = snapshots.job_books()
    book = next(iter(books.runs.values()))
    run = replace(book.run, payee=book.run.payee._replace(job_id=job_id), labels={"name": name})
    jobs = replace(books, runs={run.payee: replace(book, run=run)}, past={})
    snapshot = snapshots.with_jobs()
    snapshot = replace(snapshot, books=replace(snapshot.books, jobs=jobs))
    of = page(snapshot, labels=["name"])
    assert len(values(of, "job_info")) == 1
    assert series(parse_openmetrics(of.openmetrics.decode())) == text_series(of)


def test_ten_thousand_jobs_are_a_page_of_bounded_size() -> None:
    """As many as `jobs.max_series` lets through; the rest is one job's worth of series."""
    books = snapshots.job_books()
    book = next(iter(books.runs.values()))
    runs = {}
    for number in range(10_000):
        run = replace(book.run, payee=book.run.payee._replace(job_id=str(number)))
        runs[run.payee] = replace(book, run=run)
    unlisted = frozenset(run.run.key for run in list(runs.values())[1000:])
    jobs = replace(books, runs=runs, past={}, unlisted=unlisted, unlisted_count=9000)
    snapshot = snapshots.with_jobs()
    of = page(replace(snapshot, books=replace(snapshot.books, jobs=jobs)))
    assert len(values(of, "job_info")) == 1000
    assert len(of.text) < 2_000_000
