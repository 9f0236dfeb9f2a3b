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
from wattledger.fleet.reply import Labels, Sample, courses, samples

_OF_LEDGER = ("__name__", "epoch", "storage")
_STEPS = 11_000  # of a subquery: as many points as Prometheus itself gives at most
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
            self._epochs.setdefault(target_of(row.labels, _OF_LEDGER), set()).add(epoch)
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
        known = self._segments.get(target)
        if known is not None:
            return known
        all_of = promql.all_equal(dict(target))
        step_s = max(1, self.span.window_ms // 1000 // _STEPS)
        window = f"[{promql.duration(self.span.window_ms)}:{step_s}s]"
        seen = {
            name: {
                row.labels.get("epoch", ""): row.value
                for row in samples(
                    self.door.query(
                        f"{name}(timestamp({promql.selector('ledger_info', all_of)}){window})",
                        self.span.until_s,
                    )
                )
            }
            for name in ("min_over_time", "max_over_time")
        }
        first_s, last_s = seen["min_over_time"], seen["max_over_time"]
        where = node_name(target)
        if self._epochs[target] - last_s.keys():
            self._note(f"{where}: an epoch of its ledger was too short to be told from the next")
        order = sorted(last_s, key=lambda epoch: last_s[epoch])
        found: list[Segment] = []
        since_ms = self.span.since_s * 1000
        for before, epoch in zip(["", *order], order, strict=False):
            if before and first_s[epoch] < last_s[before]:
                self._note(f"{where}: two ledgers are scraped under the same labels")
            is_last = epoch == order[-1]
            until_ms = self.span.until_s * 1000
            if not is_last:
                until_ms = self._last_ms(all_of, epoch, last_s[epoch], step_s)
            found.append(Segment(epoch, since_ms, until_ms))
            since_ms = until_ms
        self._segments[target] = found
        return found

    def last_page_s(self, target: Target) -> float | None:
        """When a label set that shows nothing any more was last scraped (Unix seconds)."""
        all_of = promql.all_equal(dict(target))
        step_s = max(1, self.span.window_ms // 1000 // _STEPS)
        window = f"[{promql.duration(self.span.window_ms)}:{step_s}s]"
        asked = f"timestamp({promql.selector('ledger_info', all_of)})"
        rows = samples(self.door.query(f"max_over_time({asked}{window})", self.span.until_s))
        if not rows:
            return None
        about_s = max(row.value for row in rows)
        return self._last_ms(all_of, None, about_s, step_s) / 1000

    def _last_ms(
        self, all_of: Sequence[str], epoch: str | None, about_s: float, step_s: int
    ) -> int:
        """When an epoch, or any, was last scraped; it was seen at `about_s`, to a step."""
        those = [*all_of, *([] if epoch is None else [promql.equal("epoch", epoch)])]
        window = promql.selector("ledger_info", those, (2 * step_s + 2) * 1000)
        rows = courses(self.door.query(window, about_s + step_s + 1))
        return max(
            (round(row.points[-1][0] * 1000) for row in rows if row.points),
            default=round(about_s * 1000),
        )

    def _note(self, text: str) -> None:
        self.notes[text] = None


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
