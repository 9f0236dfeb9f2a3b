"""Sample lines: rendered once for each series, renewed where a value has changed.

A node with jobs has thousands of series, of which a commit changes the value of some and the
labels of none. prometheus_client writes each line anew, for each of two formats, which costs a
percent of a core; here it writes a series' line at first sight, later pages take it as it is or put
another value at its end. Both formats have the same sample lines, only the lines between differ.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from functools import lru_cache
from hashlib import sha256
from typing import NamedTuple, Protocol

from prometheus_client.core import Metric
from prometheus_client.exposition import generate_latest as text_page
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics_page
from prometheus_client.utils import floatToGoString

from wattledger import units
from wattledger_exporters.metrics import CATALOGUE, MetricSpec, help_text

LABEL_CHARS = 128
_HASH_CHARS = 8
# Our names are plain ASCII, where this escaping changes nothing; it is the encoders' fast path.
_ESCAPING = "allow-utf-8"
_EOF = b"# EOF\n"


def label_value(raw: str) -> str:
    """A label value that no page, parser or terminal can be hurt by.

    What is not printable (control characters, lone surrogates, bidirectional marks, line
    separators) becomes U+FFFD, and 128 characters are the most. An altered value ends in a hash
    of the original, so that two devices never become one series: Prometheus refuses a whole page
    for one duplicate.
    """
    if raw.isprintable() and len(raw) <= LABEL_CHARS:
        return raw
    digest = sha256(raw.encode("utf-8", "surrogatepass")).hexdigest()[:_HASH_CHARS]
    kept = raw[: LABEL_CHARS - _HASH_CHARS - 1]
    return "".join(c if c.isprintable() else "\ufffd" for c in kept) + "~" + digest


class _Collected:
    """Families for an encoder."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        """What the encoders ask for; prometheus_client's `Collector`."""
        return self._families


def text_of(*families: Metric) -> str:
    """Families in the text format 0.0.4."""
    return text_page(_Collected(families), escaping=_ESCAPING).decode()


def openmetrics_of(*families: Metric) -> str:
    """Families in OpenMetrics 1.0.0, without the mark of its end."""
    page: bytes = openmetrics_page(_Collected(families), escaping=_ESCAPING)  # type: ignore[no-untyped-call]
    return page.removesuffix(_EOF).decode()


class _Heads(NamedTuple):
    """What stands before a family's samples: in text, in text before `_created`, in OpenMetrics."""

    text: str
    created: str
    openmetrics: str


@lru_cache
def _heads(spec: MetricSpec) -> _Heads:
    explained = help_text(spec)
    family = Metric(spec.family, explained, spec.type)
    created = Metric(f"{spec.family}_created", explained, "gauge")
    return _Heads(text_of(family), text_of(created), openmetrics_of(family))


class _Line(NamedTuple):
    """A line, the value at its end, and where that begins."""

    value: float
    text: str
    cut: int


_Series = tuple[str, tuple[str, ...], tuple[str, ...]]
_ANY = "any"
_BEFORE = len(text_of(Metric(_ANY, "", "unknown")))
_AFTER = len("0.0\n")


def _first_line(sample: str, names: tuple[str, ...], raw: tuple[str, ...]) -> str:
    """The line up to its value, as prometheus_client writes it."""
    family = Metric(_ANY, "", "unknown")
    labels = {name: label_value(value) for name, value in zip(names, raw, strict=True)}
    family.add_sample(sample, labels, 0)
    return text_of(family)[_BEFORE:-_AFTER]


class _Part(NamedTuple):
    """What one family has of a group; see `_Family`."""

    family: str
    all: list[str]
    plain: list[str]
    created: list[str]


class Group(NamedTuple):
    """The lines of something that stood still."""

    state: tuple[object, ...]
    parts: list[_Part]


class Lines:
    """The lines of the page before this one, so that this one is cheap."""

    def __init__(self) -> None:
        self._before: dict[_Series, _Line] = {}
        self._now: dict[_Series, _Line] = {}
        self._groups_before: dict[Hashable, Group] = {}
        self._groups: dict[Hashable, Group] = {}

    def __len__(self) -> int:
        return len(self._before) + len(self._now) + len(self._groups_before) + len(self._groups)

    def turn(self) -> None:
        """A page is done; what was not on it is forgotten with the next."""
        self._before, self._now = self._now, {}
        self._groups_before, self._groups = self._groups, {}

    def group(self, key: Hashable, state: tuple[object, ...]) -> Group | None:
        """The lines of a group, if nothing of its state has been replaced."""
        known = self._groups_before.get(key)
        if (
            known is None
            or len(known.state) != len(state)
            or any(was is not now for was, now in zip(known.state, state, strict=True))
        ):
            return None
        self._groups[key] = known
        return known

    def keep(self, key: Hashable, group: Group) -> None:
        """Keep a group's lines for the next page."""
        self._groups[key] = group

    def line(self, sample: str, names: tuple[str, ...], raw: tuple[str, ...], value: float) -> str:
        """A sample's line.

        Args:
            sample: its full name.
            names: of its labels.
            raw: their values, as they come from outside.
            value: of the sample.
        """
        key = (sample, names, raw)
        known = self._before.get(key)
        if known is None:
            start = _first_line(sample, names, raw)
        elif known.value == value and value:  # 0.0 == -0.0, which are written differently
            self._now[key] = known
            return known.text
        else:
            start = known.text[: known.cut]
        shown: str = floatToGoString(value)  # type: ignore[no-untyped-call]
        text = f"{start}{shown}\n"
        self._now[key] = _Line(value, text, len(start))
        return text


class _Family:
    """A family's lines: all, and in the text format those of `_created` apart."""

    __slots__ = ("all", "created", "labels", "plain", "sample", "spec")

    def __init__(self, spec: MetricSpec) -> None:
        self.spec = spec
        self.sample = spec.sample
        self.labels = spec.labels
        self.all: list[str] = []
        self.plain: list[str] = []
        self.created: list[str] = []

    def lengths(self) -> tuple[int, int, int]:
        """How many lines there are of each sort."""
        return len(self.all), len(self.plain), len(self.created)


class Samples(Protocol):
    """What a snapshot's samples are put into; a page is one, see `Families`."""

    def add(self, name: str, value: float, *labels: str, created_ns: int = 0) -> None:
        """One sample of the catalogue's metric `name`; `created_ns`: first booked, 0: unknown."""
        ...

    def add_info(self, name: str, labels: Mapping[str, str]) -> None:
        """One sample of an info family with more labels than the catalogue names."""
        ...

    def group(self, key: Hashable, state: tuple[object, ...], fill: Callable[[], None]) -> None:
        """The samples of something that often stands still; see `Families.group`."""
        ...


class Families:
    """The families of one page, filled series by series; what stays empty is left out."""

    def __init__(self, lines: Lines, *, created: bool = False) -> None:
        """Args: lines: of the page before. created: `_created` is asked for."""
        self._lines = lines
        self._families = {name: _Family(spec) for name, spec in CATALOGUE.items()}
        self._created = created

    def add(self, name: str, value: float, *labels: str, created_ns: int = 0) -> None:
        """One sample; `created_ns` (0: unknown) only shows where that is asked for."""
        family = self._families[name]
        line = self._lines.line(family.sample, family.labels, labels, value)
        family.all.append(line)
        if self._created and family.spec.type == "counter":
            family.plain.append(line)
            if created_ns:
                created_s = units.seconds(created_ns)
                of_its_own = f"{family.spec.family}_created"
                line = self._lines.line(of_its_own, family.labels, labels, created_s)
                family.all.append(line)
                family.created.append(line)

    def add_info(self, name: str, labels: Mapping[str, str]) -> None:
        """One sample of an info family with more labels than the catalogue names."""
        family = self._families[name]
        line = self._lines.line(family.sample, tuple(labels), tuple(labels.values()), 1)
        family.all.append(line)

    def group(self, key: Hashable, state: tuple[object, ...], fill: Callable[[], None]) -> None:
        """The samples of something that often stands still.

        Args:
            key: what it is.
            state: immutable objects, all that its samples are made of.
            fill: adds the samples; not called where the page before had the same key and objects.
        """
        known = self._lines.group((key, self._created), state)
        if known is not None:
            for name, all_, plain, created in known.parts:
                family = self._families[name]
                family.all += all_
                family.plain += plain
                family.created += created
            return
        before = {name: family.lengths() for name, family in self._families.items()}
        fill()
        parts = [
            _Part(name, family.all[a:], family.plain[p:], family.created[c:])
            for name, family in self._families.items()
            for a, p, c in (before[name],)
            if family.lengths() != (a, p, c)
        ]
        self._lines.keep((key, self._created), Group(state, parts))

    def pages(self, others: Iterable[Metric] = ()) -> tuple[bytes, bytes]:
        """The page as text and as OpenMetrics.

        Args:
            others: families that are not of the catalogue, to stand after it.
        """
        text: list[str] = []
        openmetrics: list[str] = []
        for family in self._families.values():
            if not family.all:
                continue
            heads = _heads(family.spec)
            openmetrics += (heads.openmetrics, *family.all)
            text += (heads.text, *(family.plain or family.all))
            if family.created:
                text += (heads.created, *family.created)
        self._lines.turn()
        others = tuple(others)
        text.append(text_of(*others))
        openmetrics.append(openmetrics_of(*others))
        return "".join(text).encode(), "".join(openmetrics).encode() + _EOF
