"""What the books say of a span against what the node really used in it."""

from __future__ import annotations

import time
from typing import NamedTuple

from bench.node import Node
from bench.process import Page, Process, series

COMMIT_S = 5


class Span(NamedTuple):
    """Two pages of the daemon and the instants up to which they are complete."""

    first: Page
    last: Page
    since_ns: int
    until_ns: int

    @property
    def seconds(self) -> float:
        return (self.until_ns - self.since_ns) / 1e9


class Error(NamedTuple):
    """One device: energy in the books less the true energy."""

    device: str
    joules: float
    true_joules: float

    @property
    def percent(self) -> float:
        return 100 * self.joules / self.true_joules


def fresh_page(process: Process) -> Page:
    """The page right after a commit, so that no scrape falls between commit and rendering."""
    name = ("wattledger_ledger_commits_total", frozenset[tuple[str, str]]())
    before = process.page()[name]
    deadline_s = time.monotonic() + 3 * COMMIT_S
    while True:
        page = process.page()
        if page[name] > before:
            return page
        if time.monotonic() > deadline_s:
            raise RuntimeError("the daemon does not commit")
        time.sleep(0.1)


def span(first: Page, last: Page) -> Span:
    name = ("wattledger_books_timestamp_seconds", frozenset[tuple[str, str]]())
    return Span(first, last, round(first[name] * 1e9), round(last[name] * 1e9))


def errors(node: Node, span: Span) -> dict[str, Error]:
    """Every device of the page."""
    before = series(span.first, "wattledger_energy_joules_total")
    found = {}
    for device, joules in series(span.last, "wattledger_energy_joules_total").items():
        true_joules = node.true_joules(device, span.since_ns, span.until_ns)
        found[device] = Error(device, joules - before[device] - true_joules, true_joules)
    return found


def by_quality(span: Span) -> dict[str, float]:
    """GPU energy of the span by how it was found, in J."""
    found = {}
    for key, value in span.last.items():
        name, labels = key
        named = dict(labels)
        if name == "wattledger_energy_quality_joules_total" and named["kind"] == "gpu":
            found[named["quality"]] = value - span.first[key]
    return found
