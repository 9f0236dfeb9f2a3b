"""Whose books a scraped series is a copy of, and sums over them that count each joule once.

A node's counters survive restarts; they begin again at 0 with a new epoch of its ledger, which
`ledger_info{epoch}` names by a UUID. A scraped series is known by its *target labels* (`instance`,
`job`, `pod`, …), and both ways the two need not agree: one ledger may be scraped under several
sets of labels (a pod that was replaced, a pair of Prometheus servers, a renamed node), and one set
of labels may have shown several epochs. So what is summed is the last sample of each *epoch*, the
highest of those that copies of it show: within an epoch no counter falls.

    value of a job on a node = Σ over its epochs of max over the label sets of last_over_time
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from wattledger.fleet import promql
from wattledger.fleet.door import Door
from wattledger.fleet.reply import Course, Labels, Sample, courses, samples

OF_LEDGER = ("__name__", "epoch", "storage")
_BUCKETS = 2000
TAIL_S = 60
"""The end of a span is not asked by a range query: there VictoriaMetrics repeats the values of 30 s
ago (its -search.latencyOffset), whatever came since."""
_MOST_ODD = 150  # instances that are named in one query

Target = frozenset[tuple[str, str]]
Key = tuple[str, ...]


class Span(NamedTuple):
    """The time that is asked about, in Unix seconds."""

    since_s: int
    until_s: int

    @property
    def window_ms(self) -> int:
        """How long it is."""
        return max(1, self.until_s - self.since_s) * 1000


class Segment(NamedTuple):
    """A time in which a target showed one epoch: after `since_ms`, up to `until_ms`."""

    epoch: str
    since_ms: int
    until_ms: int


class Buckets(NamedTuple):
    """In which parts of a span series had samples.

    Attributes:
        step_s: how long each part is, but for the last.
        until_s: where the last part ends.
        tail_s: how long it is.
        rows: of each series the ends of such parts, and how many samples there were.
    """

    step_s: int
    until_s: int
    tail_s: int
    rows: list[Course]

    def length_s(self, at_s: float) -> int:
        """How long the part is that ends at an instant."""
        return self.tail_s if at_s == self.until_s else self.step_s


class Entry(NamedTuple):
    """What one ledger says under one key.

    Attributes:
        node: of `Fleet.node_of`.
        target: the label set that showed it last or most.
        key: the values of the metric's own labels.
        value: as it was scraped.
    """

    node: int
    target: Target
    key: Key
    value: float


class Fleet:
    """The ledgers that were scraped in a span of time.

    Args:
        door: where to ask.
        span: the time.
        match: matchers that every question carries.
    """

    def __init__(self, door: Door, span: Span, match: Sequence[str]) -> None:
        self.door = door
        self.span = span
        self.match = tuple(match)
        self.notes: dict[str, None] = {}
        self._epochs: dict[Target, set[str]] = {}
        for row in samples(self.ask_last("ledger_info")):
            epoch = row.labels.get("epoch", "")
            self._epochs.setdefault(target_of(row.labels, OF_LEDGER), set()).add(epoch)
        self._nodes = _components(self._epochs)
        self._segments: dict[Target, list[Segment]] = {}
        self._unknown: dict[Target, int] = {}
        self._odd = self._odd_instances()

    # ── questions ───────────────────────────────────────────────────────────────────────────────

    def ask_last(self, metric: str, matchers: Iterable[str] = (), by: str = "") -> object:
        """The `data` of the last samples of a metric in the span, summed by labels if asked."""
        inner = promql.selector(metric, [*self.match, *matchers], self.span.window_ms)
        asked = f"last_over_time({inner})"
        return self.door.query(f"sum by ({by}) ({asked})" if by else asked, self.span.until_s)

    def entries(self, metric: str, matchers: Sequence[str], own: Sequence[str]) -> list[Entry]:
        """What each ledger said last, each once.

        Args:
            metric: a counter of the books, without the prefix.
            matchers: what is asked for.
            own: the metric's own labels, of which the keys are made.
        """
        return self._resolved(samples(self.ask_last(metric, matchers)), metric, matchers, own)

    def sums(self, metric: str, matchers: Sequence[str], own: Sequence[str]) -> dict[Key, float]:
        """The sum over all ledgers, by key; the server sums up where nothing speaks against it."""
        whole: dict[Key, float] = {}
        odd = sorted(self._odd)
        if len(odd) > _MOST_ODD:  # many label sets for one ledger, or the reverse: one by one
            for entry in self.entries(metric, matchers, own):
                whole[entry.key] = whole.get(entry.key, 0.0) + entry.value
            return whole
        others = [promql.one_of("instance", odd, negative=True)] if odd else []
        for row in samples(self.ask_last(metric, [*matchers, *others], ", ".join(own))):
            whole[_key(row.labels, own)] = row.value
        if odd:
            those = [*matchers, promql.one_of("instance", odd)]
            for entry in self.entries(metric, those, own):
                whole[entry.key] = whole.get(entry.key, 0.0) + entry.value
        return whole

    # ── nodes ───────────────────────────────────────────────────────────────────────────────────

    def node_of(self, target: Target) -> int:
        """A number for the node: label sets that showed the same epoch are of the same one."""
        known = self._nodes.get(target)
        if known is None:  # its ledger_info is not in the metrics
            known = self._unknown.setdefault(target, -1 - len(self._unknown))
        return known

    def knows(self, target: Target) -> bool:
        """Whether it is known of which ledger a label set shows copies."""
        return target in self._nodes

    def is_simple(self, target: Target) -> bool:
        """Whether the label set showed one epoch, and alone showed it."""
        return target in self._nodes and dict(target).get("instance", "") not in self._odd

    def _odd_instances(self) -> set[str]:
        members: dict[int, list[Target]] = {}
        for target, node in self._nodes.items():
            members.setdefault(node, []).append(target)
        return {
            dict(target).get("instance", "")
            for those in members.values()
            for target in those
            if len(those) > 1 or len(self._epochs[target]) > 1
        }

    # ── epochs ──────────────────────────────────────────────────────────────────────────────────

    def _resolved(
        self, rows: Sequence[Sample], metric: str, matchers: Sequence[str], own: Sequence[str]
    ) -> list[Entry]:
        best: dict[tuple[str | Target, Key], Entry] = {}

        def offer(ledger: str | Target, target: Target, key: Key, value: float) -> None:
            known = best.get((ledger, key))
            if known is None or value > known.value:
                best[ledger, key] = Entry(self.node_of(target), target, key, value)

        several: set[Target] = set()
        for row in rows:
            target = target_of(row.labels, ("__name__", *own))
            epochs = self._epochs.get(target, set())
            if len(epochs) > 1:
                several.add(target)
            else:
                offer(next(iter(epochs), target), target, _key(row.labels, own), row.value)
        for target in sorted(several, key=sorted):
            for segment in self._segments_of(target):
                for row in self._in_segment(target, segment, metric, matchers):
                    if target_of(row.labels, ("__name__", *own)) == target:
                        offer(segment.epoch, target, _key(row.labels, own), row.value)
        return list(best.values())

    def _in_segment(
        self, target: Target, segment: Segment, metric: str, matchers: Sequence[str]
    ) -> list[Sample]:
        # Prometheus 2 counts a sample at the window's very beginning in: it is of the epoch before.
        window_ms = segment.until_ms - segment.since_ms - 1
        if window_ms < 1:
            return []
        all_of = [*promql.all_equal(dict(target)), *matchers]
        inner = promql.selector(metric, all_of, window_ms)
        return samples(self.door.query(f"last_over_time({inner})", segment.until_ms / 1000))

    def _segments_of(self, target: Target) -> list[Segment]:
        """When the target showed which epoch; the last goes on to the end of the span."""
        if target in self._segments:
            return self._segments[target]
        all_of = promql.all_equal(dict(target))
        seen = self.buckets("ledger_info", all_of)
        lives: list[tuple[int, int, str]] = []  # last ms, first ms, epoch
        for row in seen.rows:
            those = [*all_of, promql.equal("epoch", row.labels.get("epoch", ""))]
            first_s, last_s = row.points[0][0], row.points[-1][0]
            for edge in self.raw("ledger_info", those, seen, first_s)[:1]:
                first_s = edge.points[0][0]
            for edge in self.raw("ledger_info", those, seen, last_s)[:1]:
                last_s = edge.points[-1][0]
            lives.append((round(last_s * 1000), round(first_s * 1000), row.labels.get("epoch", "")))
        found: list[Segment] = []
        since_ms = self.span.since_s * 1000
        for last_ms, first_ms, epoch in sorted(lives):
            if found and first_ms < since_ms:
                text = f"{node_name(target)}: two ledgers are scraped under the same labels"
                self.notes[text] = None
            found.append(Segment(epoch, since_ms, last_ms))
            since_ms = last_ms
        # What the last one showed after its ledger_info is its own as well.
        found[-1:] = [found[-1]._replace(until_ms=self.span.until_s * 1000)] if found else []
        self._segments[target] = found
        return found

    # ── over time ───────────────────────────────────────────────────────────────────────────────

    def buckets(self, metric: str, matchers: Iterable[str], by: str = "") -> Buckets:
        """In which parts of the span there were samples; none of them is missed.

        Args:
            metric: without the prefix.
            matchers: besides those of every question.
            by: labels to sum up by; empty: each series for itself.
        """
        since_s, until_s = self.span
        step_s = max(1, (until_s - since_s) // _BUCKETS)
        tail_s = min(until_s - since_s, TAIL_S + (until_s - since_s - TAIL_S) % step_s)
        points: dict[Target, tuple[Labels, list[tuple[float, float]]]] = {}

        def count(window_s: int) -> str:
            inner = promql.selector(metric, [*self.match, *matchers], window_s * 1000)
            asked = f"count_over_time({inner})"
            return f"sum by ({by}) ({asked})" if by else asked

        if since_s + step_s <= until_s - tail_s:
            first_s, last_s = since_s + step_s, until_s - tail_s
            for row in courses(self.door.query_range(count(step_s), first_s, last_s, step_s)):
                points[target_of(row.labels, ())] = row.labels, list(row.points)
        for end in samples(self.door.query(count(tail_s), until_s)):
            key = target_of(end.labels, ())
            points.setdefault(key, (end.labels, []))[1].append((until_s, end.value))
        rows = [Course(labels, tuple(found)) for labels, found in points.values() if found]
        return Buckets(step_s, until_s, tail_s, rows)

    def raw(
        self, metric: str, matchers: Iterable[str], parts: Buckets, at_s: float
    ) -> list[Course]:
        """The samples of a metric as they were scraped, around a part of the span.

        A step more on either side: servers differ in whether a window's first instant is in it.

        Args:
            metric: without the prefix.
            matchers: besides those of every question.
            parts: of `buckets`.
            at_s: the part's end.
        """
        window_s = parts.length_s(at_s) + 2 * parts.step_s
        inner = promql.selector(metric, [*self.match, *matchers], window_s * 1000)
        return [row for row in courses(self.door.query(inner, at_s + parts.step_s)) if row.points]


def target_of(labels: Labels, own: Iterable[str]) -> Target:
    """The labels that the scrape gave, without those of the metric itself."""
    left_out = set(own)
    return frozenset((name, value) for name, value in labels.items() if name not in left_out)


def node_name(target: Target) -> str:
    """What a node is called: its `instance`; where there is none, all of its labels."""
    labels = dict(target)
    instance = labels.get("instance")
    return instance or ", ".join(f"{name}={value}" for name, value in sorted(labels.items())) or "?"


def _key(labels: Labels, own: Iterable[str]) -> Key:
    return tuple(labels.get(name, "") for name in own)


def _components(epochs: Mapping[Target, set[str]]) -> dict[Target, int]:
    """Label sets that showed a common epoch, directly or by way of others, have one number."""
    root: dict[str, str] = {}

    def find(epoch: str) -> str:
        while root.setdefault(epoch, epoch) != epoch:
            epoch = root[epoch]
        return epoch

    for those in epochs.values():
        first, *others = sorted(those)
        for other in others:
            root[find(other)] = find(first)
    numbers: dict[str, int] = {}
    return {
        target: numbers.setdefault(find(min(those)), len(numbers))
        for target, those in sorted(epochs.items(), key=lambda item: sorted(item[0]))
    }
