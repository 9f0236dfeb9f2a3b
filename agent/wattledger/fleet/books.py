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
from wattledger.fleet.amounts import per_unit
from wattledger.fleet.door import Door
from wattledger.fleet.epochs import Segment, last_in_each, newest, segments
from wattledger.fleet.reply import Course, Labels, Sample, courses, samples
from wattledger.fleet.targets import CLUSTER, OF_LEDGER, Target, label_of, target_of

_BUCKETS = 2000
TAIL_S = 60
"""The end of a span is not asked by a range query: there VictoriaMetrics repeats the values of 30 s
ago (its -search.latencyOffset), whatever came since."""

Key = tuple[str, ...]


class Span(NamedTuple):
    """The time that is asked about, in Unix seconds."""

    since_s: int
    until_s: int

    @property
    def window_ms(self) -> int:
        """How long it is."""
        return max(1, self.until_s - self.since_s) * 1000


class Buckets(NamedTuple):
    """In which parts of a span series had samples.

    Attributes:
        step_s: how long each part is, but for the last.
        until_s: where the last part ends.
        tail_s: how long it is.
        rows: of each series the ends of the first and of the last such part, and how many samples
            were in it.
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
        target: the label set that showed the ledger last.
        key: the values of the metric's own labels.
        amount: in µJ, µg, µL or ms.
    """

    node: int
    target: Target
    key: Key
    amount: int

    @property
    def cluster(self) -> str:
        """Where the node is; empty: the labels do not say."""
        return label_of(self.target, CLUSTER)


class Fleet:
    """The ledgers that were scraped in a span of time.

    Args:
        door: where to ask.
        span: the time.
        match: matchers that every question carries.
        whole: of a longer span around this one; nodes are called here as they are there.

    Attributes:
        odd: instances that are not all that a ledger was scraped as, or that showed several.
    """

    def __init__(
        self, door: Door, span: Span, match: Sequence[str], whole: Fleet | None = None
    ) -> None:
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
        self._whole = whole
        self.odd: set[str] = whole.odd if whole else self._odd_instances()
        self._newest: dict[str, Target] | None = None

    # ── questions ───────────────────────────────────────────────────────────────────────────────

    def ask_last(self, metric: str, matchers: Iterable[str] = (), by: str = "") -> object:
        """The `data` of the last samples of a metric in the span, summed by labels if asked."""
        inner = promql.selector(metric, [*self.match, *matchers], self.span.window_ms)
        asked = f"last_over_time({inner})"
        return self.door.query(f"sum by ({by}) ({asked})" if by else asked, self.span.until_s)

    def entries(
        self,
        metric: str,
        matchers: Sequence[str],
        own: Sequence[str],
        among: Sequence[str] = (),
    ) -> list[Entry]:
        """What each ledger said last, each once.

        Args:
            metric: a counter of the books, without the prefix.
            matchers: what is asked for.
            own: the metric's own labels, of which the keys are made.
            among: instances; empty: all there are.
        """
        those = [*matchers, *([promql.one_of("instance", among)] if among else [])]
        return self._resolved(samples(self.ask_last(metric, those)), metric, matchers, own)

    def sums(self, metric: str, matchers: Sequence[str], own: Sequence[str]) -> dict[Key, int]:
        """The sum over all ledgers of each cluster, in µJ, µg, µL or ms.

        The server sums up where nothing speaks against it, and in whole units: below 2**53 of
        them its float64 is exact.

        Args:
            metric: as of `entries`, like the others.
            matchers: what is asked for.
            own: the metric's own labels.

        Returns:
            By the cluster and the values of the metric's own labels.
        """
        whole: dict[Key, int] = {}
        odd = sorted(self.odd)
        by_server = promql.few(odd)
        if by_server:
            others = [promql.one_of("instance", odd, negative=True)] if odd else []
            by = (CLUSTER, *own)
            all_of = [*self.match, *matchers, *others]
            inner = promql.selector(metric, all_of, self.span.window_ms)
            last = f"round(last_over_time({inner}) * {per_unit(metric)})"
            asked = f"sum by ({', '.join(by)}) ({last})"
            for row in samples(self.door.query(asked, self.span.until_s)):
                whole[_key(row.labels, by)] = round(row.value)
        if odd:  # those alone, or where they are too many to be named, all nodes
            for entry in self.entries(metric, matchers, own, odd if by_server else ()):
                key = (entry.cluster, *entry.key)
                whole[key] = whole.get(key, 0) + entry.amount
        return whole

    # ── nodes ───────────────────────────────────────────────────────────────────────────────────

    def node_of(self, target: Target) -> int:
        """A number for the node: label sets that showed the same epoch are of the same one."""
        known = self._nodes.get(target)
        if known is None:  # its ledger_info is not in the metrics
            known = self._unknown.setdefault(target, -1 - len(self._unknown))
        return known

    @property
    def epochs(self) -> Mapping[Target, set[str]]:
        """The epochs that each label set showed."""
        return self._epochs

    def newest(self, epoch: str, target: Target) -> Target:
        """The label set that showed an epoch last; where it is not known, this one."""
        if self._whole:
            return self._whole.newest(epoch, target)
        if self._newest is None:
            shown: dict[str, list[Target]] = {}
            for one, epochs in self._epochs.items():
                for of_it in epochs:
                    shown.setdefault(of_it, []).append(one)
            self._newest = newest(self, {e: those for e, those in shown.items() if len(those) > 1})
        return self._newest.get(epoch, target)

    def knows(self, target: Target) -> bool:
        """Whether it is known of which ledger a label set shows copies."""
        return target in self._nodes

    def _odd_instances(self) -> set[str]:
        members: dict[int, list[Target]] = {}
        for target, node in self._nodes.items():
            members.setdefault(node, []).append(target)
        return {
            label_of(target, "instance")
            for those in members.values()
            for target in those
            if len(those) > 1 or len(self._epochs[target]) > 1
        }

    # ── epochs ──────────────────────────────────────────────────────────────────────────────────

    def _resolved(
        self, rows: Sequence[Sample], metric: str, matchers: Sequence[str], own: Sequence[str]
    ) -> list[Entry]:
        best: dict[tuple[str | Target, Key], Entry] = {}
        per = per_unit(metric)

        def offer(epoch: str | None, target: Target, row: Sample) -> None:
            key, amount = _key(row.labels, own), round(row.value * per)
            ledger = target if epoch is None else epoch
            known = best.get((ledger, key))
            if known is None or amount > known.amount:
                # Of its copies all that the ledger says is of one, whichever showed how much.
                shown_by = target if epoch is None else self.newest(epoch, target)
                best[ledger, key] = Entry(self.node_of(target), shown_by, key, amount)

        several: set[Target] = set()
        for row in rows:
            target = target_of(row.labels, ("__name__", *own))
            epochs = self._epochs.get(target, set())
            if len(epochs) > 1:
                several.add(target)
            else:
                offer(next(iter(epochs), None), target, row)
        if several:
            found = self._segments_of(several)
            for epoch, target, row in last_in_each(self, found, metric, matchers, own):
                offer(epoch, target, row)
        return list(best.values())

    def _segments_of(self, targets: set[Target]) -> dict[Target, list[Segment]]:
        new = targets - self._segments.keys()
        if new:
            self._segments |= segments(self, new)
        return {target: self._segments[target] for target in targets}

    # ── over time ───────────────────────────────────────────────────────────────────────────────

    def buckets(
        self, metric: str, matchers: Iterable[str], by: str = "", among: Sequence[str] = ()
    ) -> Buckets:
        """In which parts of the span there were samples; none of them is missed.

        Args:
            metric: without the prefix.
            matchers: besides those of every question.
            by: labels to sum up by; empty: each series for itself.
            among: instances, asked about some at a time; empty: all there are.
        """
        since_s, until_s = self.span
        step_s = max(1, (until_s - since_s) // _BUCKETS)
        tail_s = min(until_s - since_s, TAIL_S + (until_s - since_s - TAIL_S) % step_s)
        points: dict[Target, tuple[Labels, list[tuple[float, float]]]] = {}

        def count(window_s: int, those: Sequence[str]) -> str:
            inner = promql.selector(metric, those, window_s * 1000)
            asked = f"count_over_time({inner})"
            return f"sum by ({by}) ({asked})" if by else asked

        for some in self._some(matchers, among):
            if since_s + step_s <= until_s - tail_s:
                first_s, last_s = since_s + step_s, until_s - tail_s
                counted = count(step_s, some)
                for row in courses(self.door.query_range(counted, first_s, last_s, step_s)):
                    ends = [*row.points[:1], *row.points[1:][-1:]]
                    points[target_of(row.labels, ())] = row.labels, ends
            for end in samples(self.door.query(count(tail_s, some), until_s)):
                key = target_of(end.labels, ())
                points.setdefault(key, (end.labels, []))[1].append((until_s, end.value))
        rows = [Course(labels, tuple(found)) for labels, found in points.values() if found]
        return Buckets(step_s, until_s, tail_s, rows)

    def _some(self, matchers: Iterable[str], among: Sequence[str]) -> list[list[str]]:
        every = [*self.match, *matchers]
        if not among:
            return [every]
        return [[*every, promql.one_of("instance", some)] for some in promql.chunks(among)]

    def raw(
        self,
        metric: str,
        matchers: Iterable[str],
        parts: Buckets,
        at_s: float,
        among: Sequence[str] = (),
    ) -> list[Course]:
        """The samples of a metric as they were scraped, around a part of the span.

        A step more on either side: servers differ in whether a window's first instant is in it. But
        nothing after the span, which other answers do not know of: scrapes go on meanwhile.

        Args:
            metric: without the prefix.
            matchers: besides those of every question.
            parts: of `buckets`.
            at_s: the part's end.
            among: as of `buckets`.
        """
        window_s = parts.length_s(at_s) + 2 * parts.step_s
        asked_s = min(at_s + parts.step_s, self.span.until_s)
        found: list[Course] = []
        for some in self._some(matchers, among):
            inner = promql.selector(metric, some, window_s * 1000)
            found += courses(self.door.query(inner, asked_s))
        return [row for row in found if row.points]


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
