"""What a metric is, and what the catalogue is written in."""

from __future__ import annotations

from typing import Literal, NamedTuple

PREFIX = "wattledger_"
DOCS = "exporters/METRICS.md"

MetricType = Literal["counter", "gauge", "info"]


class MetricSpec(NamedTuple):
    """One metric family.

    Attributes:
        name: as a sample carries it, without the prefix (a counter's ends in `_total`).
        type: `info` is OpenMetrics' name for a gauge that is always 1 and carries labels.
        help: what is inside, for people; the page adds the link to the document.
        labels: in the order in which values are given.
        section: heading of the document.
    """

    name: str
    type: MetricType
    help: str
    labels: tuple[str, ...]
    section: str

    @property
    def family(self) -> str:
        """The family's full name: a counter's without `_total`, an info's without `_info`."""
        suffix = {"counter": "_total", "info": "_info"}.get(self.type, "")
        return PREFIX + self.name.removesuffix(suffix)

    @property
    def sample(self) -> str:
        """The full name of its samples."""
        return PREFIX + self.name


def section(title: str, *rows: tuple[str, MetricType, tuple[str, ...], str]) -> list[MetricSpec]:
    """A section of the document: its heading, and (name, type, labels, help) of each metric."""
    return [MetricSpec(name, type_, text, labels, title) for name, type_, labels, text in rows]
