"""Which epoch of a ledger a target showed when, and what a metric said last in each.

A node whose ledger is begun anew at every start (diskless, reimaged) shows several epochs under
one set of labels. A fleet of them is asked in few questions: about many targets at a time, and
about many times in one query.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from wattledger.fleet import promql
from wattledger.fleet.reply import Labels, Sample, samples
from wattledger.fleet.targets import (
    CLUSTER,
    OF_LEDGER,
    Target,
    instances_of,
    label_of,
    node_name,
    target_of,
)

if TYPE_CHECKING:
    from wattledger.fleet.books import Buckets, Fleet


class Segment(NamedTuple):
    """A time in which a target showed one epoch: after `since_ms`, up to `until_ms`."""

    since_ms: int
    until_ms: int
    epoch: str


class _Life:
    """When an epoch was shown: from the beginning of a part of the span to the end of one."""

    def __init__(self, epoch: str, first_end_s: float, first_ms: int, last_s: float) -> None:
        self.epoch = epoch
        self.first_end_s = first_end_s
        self.last_end_s = last_s
        self.first_ms = first_ms
        self.last_ms = round(last_s * 1000)


def segments(fleet: Fleet, targets: Iterable[Target]) -> dict[Target, list[Segment]]:
    """When each target showed which epoch, in order of time; the last goes on to the span's end.

    Args:
        fleet: where; what is not clear is noted there.
        targets: those that showed several.
    """
    lives: dict[Target, list[_Life]] = {target: [] for target in targets}
    seen = fleet.buckets("ledger_info", (), among=instances_of(lives))
    for row in seen.rows:
        target = target_of(row.labels, OF_LEDGER)
        if target in lives:
            first_s, last_s = row.points[0][0], row.points[-1][0]
            begin_ms = round((first_s - seen.length_s(first_s)) * 1000)
            lives[target].append(_Life(row.labels.get("epoch", ""), first_s, begin_ms, last_s))
    _look_closer(fleet, seen, lives)
    for target, those in lives.items():
        those.sort(key=lambda life: (life.last_ms, life.first_ms))
        if any(after.first_ms < before.last_ms for before, after in pairwise(those)):
            text = f"{node_name(target)}: two ledgers are scraped under the same labels"
            fleet.notes[text] = None
    ends_ms = _common_ends(lives.values())
    found: dict[Target, list[Segment]] = {}
    for target, those in lives.items():
        since_ms = fleet.span.since_s * 1000
        found[target] = []
        for number, life in enumerate(those):
            # What the last one showed after its ledger_info is its own as well.
            is_last = number == len(those) - 1
            until_ms = fleet.span.until_s * 1000 if is_last else ends_ms[id(life)]
            found[target].append(Segment(since_ms, until_ms, life.epoch))
            since_ms = until_ms
    return found


def newest(fleet: Fleet, shown: Mapping[str, Sequence[Target]]) -> dict[str, Target]:
    """Which of several label sets showed an epoch last, to a part of the span.

    Of those that did together always the same one, such as of a pair of Prometheus servers.

    Args:
        fleet: where.
        shown: by epoch, those that showed it.
    """
    if not shown:
        return {}
    # What is not shown any more at the end of the span was renamed, replaced or taken away.
    now = promql.selector("ledger_info", fleet.match)
    last_s: dict[tuple[str, Target], float] = {
        _shown(row.labels): fleet.span.until_s
        for row in samples(fleet.door.query(now, fleet.span.until_s))
    }
    gone: set[Target] = set()
    for epoch, those in shown.items():
        if all((epoch, target) not in last_s for target in those):
            gone.update(those)
    if gone:
        for seen in fleet.buckets("ledger_info", (), among=instances_of(gone)).rows:
            last_s.setdefault(_shown(seen.labels), seen.points[-1][0])
    return {
        epoch: max(
            those,
            key=lambda target: (
                last_s.get((epoch, target), 0.0),
                label_of(target, CLUSTER),
                sorted(target),
            ),
        )
        for epoch, those in shown.items()
    }


def _shown(labels: Labels) -> tuple[str, Target]:
    return labels.get("epoch", ""), target_of(labels, OF_LEDGER)


def _look_closer(fleet: Fleet, seen: Buckets, lives: Mapping[Target, list[_Life]]) -> None:
    """Find the samples at the edges of lives that end and begin in the same part, or nearly."""
    unclear: dict[float, set[Target]] = {}
    for target, those in lives.items():
        those.sort(key=lambda life: life.last_end_s)
        for before, after in pairwise(those):
            begin_s = after.first_end_s - seen.length_s(after.first_end_s)
            # Servers differ in whether a part's first instant is in it.
            if begin_s <= before.last_end_s + seen.step_s:
                for at_s in (before.last_end_s, after.first_end_s, after.last_end_s):
                    unclear.setdefault(at_s, set()).add(target)
    for at_s, targets in sorted(unclear.items()):
        by_epoch = {(t, life.epoch): life for t in targets for life in lives[t]}
        for row in fleet.raw("ledger_info", (), seen, at_s, among=instances_of(targets)):
            target = target_of(row.labels, OF_LEDGER)
            life = by_epoch.get((target, row.labels.get("epoch", "")))
            if life is not None and life.first_end_s == at_s:
                life.first_ms = round(row.points[0][0] * 1000)
            if life is not None and life.last_end_s == at_s:
                life.last_ms = round(row.points[-1][0] * 1000)


def _common_ends(fleet: Iterable[Sequence[_Life]]) -> dict[int, int]:
    """An instant between each life and the next, as few different ones as there can be.

    Nodes that were away at the same time then are asked about together.
    """
    gaps = [
        # A millisecond more than none: Prometheus 2 counts a window's very beginning in.
        (max(before.last_ms, after.first_ms - 2), before.last_ms, id(before))
        for those in fleet
        for before, after in pairwise(those)
    ]
    ends_ms: dict[int, int] = {}
    end_ms = -1
    for latest_ms, earliest_ms, life in sorted(gaps):
        if earliest_ms > end_ms:
            end_ms = latest_ms
        ends_ms[life] = end_ms
    return ends_ms


class _Part(NamedTuple):
    """A part of a question: its text, and whose epochs it asks about."""

    text: str
    epochs: dict[Target, str]
    instances: frozenset[str]


def last_in_each(
    fleet: Fleet,
    found: Mapping[Target, Sequence[Segment]],
    metric: str,
    matchers: Sequence[str],
    own: Sequence[str],
) -> Iterator[tuple[str, Target, Sample]]:
    """What a metric said last in each segment: of which epoch, by which target.

    Args:
        fleet: where.
        found: of `segments`.
        metric: without the prefix.
        matchers: that select some of its series.
        own: its own labels.
    """
    for batch in _batches(list(_parts(fleet, found, metric, matchers))):
        epochs = {target: epoch for part in batch for target, epoch in part.epochs.items()}
        question = " or ".join(part.text for part in batch)
        for row in samples(fleet.door.query(question, fleet.span.until_s)):
            target = target_of(row.labels, ("__name__", *own))
            if target in epochs:
                yield epochs[target], target, row


def _parts(
    fleet: Fleet, found: Mapping[Target, Sequence[Segment]], metric: str, matchers: Sequence[str]
) -> Iterator[_Part]:
    together: dict[tuple[int, int], dict[Target, str]] = {}
    for target, those in found.items():
        for since_ms, until_ms, epoch in those:
            together.setdefault((until_ms, since_ms), {})[target] = epoch
    for (until_ms, since_ms), epochs in sorted(together.items(), key=lambda item: item[0]):
        window_ms = until_ms - since_ms - 1
        if window_ms < 1:
            continue
        for instances in promql.chunks(instances_of(epochs)):
            all_of = [*fleet.match, promql.one_of("instance", instances), *matchers]
            inner = promql.selector(metric, all_of, window_ms)
            offset_ms = fleet.span.until_s * 1000 - until_ms
            offset = f" offset {promql.duration(offset_ms)}" if offset_ms else ""
            asked = {t: e for t, e in epochs.items() if label_of(t, "instance") in instances}
            yield _Part(f"last_over_time({inner}{offset})", asked, frozenset(instances))


def _batches(parts: Sequence[_Part]) -> Iterator[list[_Part]]:
    """As many parts as a URL holds, no two of them about the same instance."""
    batch: list[_Part] = []
    for part in parts:
        texts = [*(one.text for one in batch), part.text]
        clash = any(part.instances & one.instances for one in batch)
        if batch and (clash or not promql.fits(texts)):
            yield batch
            batch = []
        batch.append(part)
    if batch:
        yield batch
