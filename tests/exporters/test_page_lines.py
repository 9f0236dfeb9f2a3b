"""Lines that are kept from page to page are, byte for byte, those that prometheus_client writes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.core import Metric
from prometheus_client.exposition import generate_latest as text_page
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics_page

import snapshots
from wattledger.model import Snapshot
from wattledger.model.jobbooks import PastRuns, RunBook
from wattledger.model.jobs import JobKey
from wattledger_exporters.lines import Families, Lines, label_value
from wattledger_exporters.metrics import CATALOGUE, help_text
from wattledger_exporters.prometheus import Renderer

# A counter with labels, one without, gauges likewise, and an info family.
NAMES = ("job_energy_kwh_total", "ledger_commits_total", "job_power_watts", "pue_ratio", "job_info")
INFO_LABELS = ("manager", "job_id", "name")


class Sample(NamedTuple):
    name: str
    labels: tuple[str, ...]
    value: float
    created_ns: int


texts = st.one_of(
    st.sampled_from(["a", "b", "", '"', "\\", "\\n", 'a"b\\', "\n", "\udc80", "é", "x" * 200]),
    st.text(st.characters(codec=None, exclude_categories=()), max_size=20),
)
numbers = st.one_of(
    st.sampled_from([0, 0.0, -0.0, 1, 1.0, -1.5, True, math.inf, -math.inf, math.nan, 5e-324]),
    st.floats(),
    st.integers(-(10**19), 10**19),
)


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    name = draw(st.sampled_from(NAMES))
    count = len(INFO_LABELS) if name == "job_info" else len(CATALOGUE[name].labels)
    labels = draw(st.tuples(*[texts] * count))
    return Sample(name, labels, draw(numbers), draw(st.sampled_from([0, 1, 10**18])))


class Collector:
    """What prometheus_client's own encoders are given, with metrics that it knows only so."""

    def __init__(self, page: Iterable[Sample], created: bool, others: Iterable[Metric]) -> None:
        families = {n: Metric(s.family, help_text(s), s.type) for n, s in CATALOGUE.items()}
        for sample in page:
            spec, family = CATALOGUE[sample.name], families[sample.name]
            names = INFO_LABELS if spec.type == "info" else spec.labels
            labels = {n: label_value(v) for n, v in zip(names, sample.labels, strict=True)}
            value = 1 if spec.type == "info" else sample.value
            family.add_sample(spec.sample, labels, value)
            if created and sample.created_ns and spec.type == "counter":
                family.add_sample(f"{spec.family}_created", labels, sample.created_ns / 1e9)
        self.families = [*(f for f in families.values() if f.samples), *others]

    def collect(self) -> list[Metric]:
        return self.families


def rendered(
    lines: Lines, page: Iterable[Sample], created: bool, others: Iterable[Metric]
) -> tuple[bytes, bytes]:
    families = Families(lines, created=created)
    for sample in page:
        if CATALOGUE[sample.name].type == "info":
            families.add_info(sample.name, dict(zip(INFO_LABELS, sample.labels, strict=True)))
        else:
            families.add(sample.name, sample.value, *sample.labels, created_ns=sample.created_ns)
    return families.pages(others)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(samples(), max_size=12), min_size=1, max_size=5), st.booleans())
def test_every_page_is_as_prometheus_client_writes_it(
    pages: list[list[Sample]], created: bool
) -> None:
    lines = Lines()
    other = Metric("process_open_fds", 'a "help"\\ of\nits own', "gauge")
    other.add_sample("process_open_fds", {"a": 'b"\n'}, 7)
    for page in pages:
        expected = Collector(page, created, [other])
        assert rendered(lines, page, created, [other]) == (
            text_page(expected, escaping="allow-utf-8"),
            openmetrics_page(expected, escaping="allow-utf-8"),
        )


@given(st.lists(numbers, min_size=2, max_size=8))
def test_a_series_shows_its_value_of_now(values: list[float]) -> None:
    lines = Lines()
    for value in values:
        page = [Sample("pue_ratio", ("config",), value, 0)]
        expected = text_page(Collector(page, False, ()), escaping="allow-utf-8")
        assert rendered(lines, page, False, ())[0] == expected


def test_what_left_the_page_is_forgotten() -> None:
    lines = Lines()
    for number in range(50):
        page = [Sample("job_power_watts", ("slurm", f"{number}-{i}"), 1.0, 0) for i in range(20)]
        rendered(lines, page, False, ())
    assert len(lines) <= 40


@given(st.lists(st.lists(st.integers(0, 2), min_size=3, max_size=3), min_size=1, max_size=6))
def test_a_group_is_filled_again_when_something_of_it_was_replaced(pages: list[list[int]]) -> None:
    """Three groups of which each page has some, in one of two states."""
    lines = Lines()
    states = [object(), object()]
    for page in pages:
        families, plain = Families(lines, created=True), Families(Lines(), created=True)
        for number, state in enumerate(page):
            if state == 2:
                continue  # it is not on this page

            def fill(to: Families, number: int = number, state: int = state) -> None:
                to.add("job_energy_kwh_total", 1.5, "slurm", f"{number}-{state}", "gpu")
                to.add("job_held_idle_seconds_total", state, "slurm", str(number), created_ns=9)

            families.group(number, (states[state],), partial(fill, families))
            fill(plain)
        assert families.pages() == plain.pages()


@pytest.mark.parametrize("created", [False, True])
def test_a_renderer_that_goes_on_renders_like_a_new_one(created: bool) -> None:
    """Over pages whose values move, whose jobs come and go, and whose names change."""
    going_on = Renderer()
    first = snapshots.with_jobs()
    jobs = first.books.jobs
    payee, book = next(iter(jobs.runs.items()))
    (over,) = (p for p, b in jobs.runs.items() if b.run.end_ns)
    renamed = replace(book.run, labels={**book.run.labels, "name": "other"})

    def having(**changes: object) -> Snapshot:
        changed = replace(jobs, **changes)  # type: ignore[arg-type]
        return replace(first, books=replace(first.books, jobs=changed))

    pages = [
        first,
        first,
        snapshots.with_jobs(job_power_uw={}, power_uw={}),
        having(runs={}),
        having(runs={payee: RunBook(renamed, book.cells)}),
        first,
        having(runs={**jobs.runs, over: replace(jobs.runs[over], cells=book.cells)}),
        having(past={**jobs.past, JobKey("slurm", "4712"): PastRuns(book.cells, 1)}),
        having(unlisted=frozenset([JobKey("slurm", "4712")])),
        first,
    ]
    for labels in (snapshots.JOB_LABELS, ("user",)):
        for snapshot in pages:
            how = {"created": created, "process": False, "labels": labels}
            assert going_on.render(snapshot, 1, **how) == Renderer().render(snapshot, 1, **how)  # type: ignore[arg-type]
