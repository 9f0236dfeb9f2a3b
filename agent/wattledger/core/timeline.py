"""Who held each GPU when: an interval is divided by who held it in each part of its time.

Surveys look once a turn; what begins or ends between two of them is cut in at its own instant. An
interval may be longer than a turn (a driver call that hung, NVML released for a while), so that
the past of a GPU is kept until an interval has covered it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import lcm
from typing import NamedTuple

from wattledger.core.holding import Holders, Weights
from wattledger.model import Payee
from wattledger.model.jobs import WHOLE_SHARE_PPM

MAX_SEGMENTS = 1000  # of one GPU; beyond, the oldest are taken as one


class Segment(NamedTuple):
    """From when to when (CLOCK_BOOTTIME) these held a GPU."""

    start_ns: int
    end_ns: int
    holders: Holders


class Brief(NamedTuple):
    """A run that no survey saw holding what it held; CLOCK_BOOTTIME."""

    payee: Payee
    share_ppm: int
    start_ns: int
    end_ns: int


def cut(
    start_ns: int,
    end_ns: int,
    old: Holders,
    new: Holders,
    begun_ns: Mapping[Payee, int],
    ended_ns: Mapping[Payee, int],
    brief: Sequence[Brief] = (),
) -> list[Segment]:
    """The time between two surveys, by who held a GPU in it.

    Who holds it by the later survey does so since it began, and not before those have ended who
    held it by the earlier.

    Args:
        start_ns: the earlier survey, on CLOCK_BOOTTIME.
        end_ns: the later one.
        old: by the earlier.
        new: by the later.
        begun_ns: when the runs began that began in between.
        ended_ns: when those ended that did.
        brief: those that held it in between only.
    """

    def runs(payee: Payee, at_ns: int) -> bool:
        return begun_ns.get(payee, at_ns) <= at_ns < ended_ns.get(payee, at_ns + 1)

    held = {payee for payee, _ in (*old.weights, *new.weights)}
    ends = [ended_ns[payee] for payee in held if payee in ended_ns]
    if (new == old and not brief and not ends) or start_ns >= end_ns:
        return [Segment(start_ns, end_ns, new)]
    edges = [
        *ends,
        *(begun_ns[payee] for payee, _ in new.weights if payee in begun_ns),
        *(edge_ns for one in brief for edge_ns in (one.start_ns, one.end_ns)),
    ]
    inside = sorted({edge_ns for edge_ns in edges if start_ns < edge_ns < end_ns})
    segments = []
    for from_ns, to_ns in zip((start_ns, *inside), (*inside, end_ns), strict=True):
        yet_to_end = any(payee in ended_ns and runs(payee, from_ns) for payee, _ in old.weights)
        if not yet_to_end and all(runs(payee, from_ns) for payee, _ in new.weights):
            holders = new
        else:
            holders = _running(old, from_ns, runs)
            if not holders.weights:
                holders = _running(new, from_ns, runs)
        present = [one for one in brief if one.start_ns <= from_ns < one.end_ns]
        segments.append(Segment(from_ns, to_ns, _with(holders, present)))
    return segments


def _running(holders: Holders, at_ns: int, runs: Callable[[Payee, int], bool]) -> Holders:
    return holders._replace(weights=tuple(i for i in holders.weights if runs(i[0], at_ns)))


def _with(holders: Holders, brief: Iterable[Brief]) -> Holders:
    """Besides those who hold it, some that did so briefly."""
    weights = {payee: weight * WHOLE_SHARE_PPM for payee, weight in holders.weights}
    added = False
    for one in brief:
        if one.payee not in weights:
            weights[one.payee] = one.share_ppm * holders.whole
            added = True
    if not added:
        return holders
    whole = max(holders.whole * WHOLE_SHARE_PPM, sum(weights.values()))
    return Holders(tuple(sorted(weights.items())), whole, holders.exact)


class Timelines:
    """The past of all GPUs, as far as no interval has covered it."""

    def __init__(self) -> None:
        self._segments: dict[str, list[Segment]] = {}

    def extend(self, device: str, segments: Iterable[Segment]) -> None:
        """What has come since the last survey."""
        known = self._segments.setdefault(device, [])
        for segment in segments:
            if known and known[-1].holders == segment.holders:
                known[-1] = known[-1]._replace(end_ns=segment.end_ns)
            else:
                known.append(segment)
        if len(known) > MAX_SEGMENTS:
            del known[: len(known) - MAX_SEGMENTS]

    def begin(self, device: str, alone: Holders, start_ns: int) -> None:
        """Somebody held a GPU earlier than the surveys knew: what was nobody's since was theirs."""
        amended: list[Segment] = []
        for one in self._segments.get(device, ()):
            if one.end_ns <= start_ns or one.holders.weights:
                amended.append(one)
                continue
            if one.start_ns < start_ns:
                amended.append(one._replace(end_ns=start_ns))
            amended.append(Segment(max(one.start_ns, start_ns), one.end_ns, alone))
        if amended:
            self._segments[device] = amended

    def end(self, payee: Payee, end_ns: int) -> None:
        """A run had ended earlier than the surveys knew: what it held since was nobody's."""
        for device, known in self._segments.items():
            if known[-1].end_ns <= end_ns:
                continue
            amended: list[Segment] = []
            for one in known:
                if one.end_ns <= end_ns or payee not in dict(one.holders.weights):
                    amended.append(one)
                    continue
                if one.start_ns < end_ns:
                    amended.append(one._replace(end_ns=end_ns))
                rest = tuple(item for item in one.holders.weights if item[0] != payee)
                holders = one.holders._replace(weights=rest)
                amended.append(Segment(max(one.start_ns, end_ns), one.end_ns, holders))
            self._segments[device] = amended

    def over(self, device: str, start_ns: int, end_ns: int) -> tuple[Weights, int]:
        """Who held a GPU in an interval: weights, and what they are parts of.

        What is older than all that is known was held by the first who are known, what is younger
        by the last.
        """
        known = self._segments.get(device)
        if not known:
            return (), 1
        while len(known) > 1 and known[0].end_ns <= start_ns:
            del known[0]
        inside = [
            (one.holders, max(0, min(to_ns, end_ns) - max(from_ns, start_ns)))
            for one, from_ns, to_ns in zip(
                known,
                (start_ns, *(s.start_ns for s in known[1:])),
                (*(s.end_ns for s in known[:-1]), end_ns),
                strict=True,
            )
        ]
        spans = [(holders, length_ns) for holders, length_ns in inside if length_ns]
        if not spans:
            return known[-1].holders.weights, known[-1].holders.whole
        if len(spans) == 1:
            return spans[0][0].weights, spans[0][0].whole
        common = lcm(*(holders.whole for holders, _ in spans))
        weights: dict[Payee, int] = {}
        for holders, length_ns in spans:
            for payee, weight in holders.weights:
                part = weight * (common // holders.whole) * length_ns
                weights[payee] = weights.get(payee, 0) + part
        whole = common * sum(length_ns for _, length_ns in spans)
        return tuple(item for item in sorted(weights.items()) if item[1]), whole
