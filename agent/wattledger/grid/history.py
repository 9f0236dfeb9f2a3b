"""The published past of a source: checked, and with a name for the very version that it is."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from wattledger.errors import GridError
from wattledger.grid.checks import check_signal
from wattledger.grid.source import HistorySource, Relay
from wattledger.model import GridSignal
from wattledger.model.settling import HistoryVersion, Published

_ANY_AGE_NS = 2**62


def voices(
    sources: Iterable[HistorySource], now_wall_ns: int, problems: dict[str, GridError]
) -> list[HistorySource]:
    """Who is asked about the past: in the place of a relay those that it passes on.

    May block.

    Args:
        sources: in order of preference; of two of one name and zone the first is asked.
        now_wall_ns: wall clock.
        problems: takes up, by name, what a relay failed at.
    """
    found: dict[tuple[str, str], HistorySource] = {}
    for source in sources:
        behind: Iterable[HistorySource] = (source,)
        if isinstance(source, Relay):
            try:
                behind = source.voices(now_wall_ns)
            except GridError as error:
                problems[source.name] = error
                continue
        for voice in behind:
            found.setdefault((voice.name, voice.zone), voice)
    return list(found.values())


def published(source: HistorySource, start_ns: int, end_ns: int, now_wall_ns: int) -> Published:
    """What a source says by now of a span. May block, for several requests.

    Signals that are unsound are gaps, as in the feed, unless all are.

    Args:
        source: whom to ask.
        start_ns: wall clock.
        end_ns: wall clock, exclusive.
        now_wall_ns: wall clock.

    Raises:
        GridError: it could not be asked to the end, or nothing that it gave is sound.
        ValueError: the span is empty.
    """
    good: list[GridSignal] = []
    problem: GridError | None = None
    for signal in source.between(start_ns, end_ns, now_wall_ns):
        try:
            check_signal(
                signal,
                zone=source.zone,
                basis=source.basis,
                now_wall_ns=now_wall_ns,
                max_age_ns=_ANY_AGE_NS,
            )
        except GridError as error:
            problem = error
        else:
            good.append(signal)
    if problem is not None and not good:
        raise problem
    good.sort(key=lambda signal: signal.valid_from_ns)
    version = HistoryVersion(
        source.name,
        source.zone,
        source.basis,
        start_ns,
        end_ns,
        len(good),
        _digest(good),
        now_wall_ns,
    )
    return Published(version, tuple(good))


def _digest(signals: list[GridSignal]) -> str:
    """Equal for equal words: whenever they were fetched, and however they were sent."""
    digest = hashlib.sha256()
    for signal in signals:
        digest.update(
            f"{signal.valid_from_ns} {signal.valid_to_ns} {signal.intensity_ug_per_kwh} "
            f"{int(signal.estimated)} {signal.ewif_ul_per_kwh}\n".encode()
        )
    return digest.hexdigest()
