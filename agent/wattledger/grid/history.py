"""The published past of a source: checked, and with a name for the very version that it is."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from typing import NamedTuple

from wattledger.errors import GridError
from wattledger.grid.checks import check_signal
from wattledger.grid.source import HistorySource, Relay
from wattledger.model import GridSignal
from wattledger.model.settling import HistoryVersion, Published

_ANY_AGE_NS = 2**62


class Known(NamedTuple):
    """Somebody who knows the past.

    Attributes:
        source: who.
        label: what to call them here, each otherwise: `neso`, or `neso via wattledger`.
    """

    source: HistorySource
    label: str


def voices(
    sources: Iterable[HistorySource],
    now_wall_ns: int,
    problems: dict[str, GridError],
    own: Collection[tuple[str, str]] = (),
) -> list[Known]:
    """Who is asked about the past: in the place of a relay those that it passes on.

    What a relay says by the name of a source that is listed itself is nobody's word: what the one
    priced, the other must not settle. May block.

    Args:
        sources: in order of preference; of two of one name and zone behind two relays the first is
            asked.
        now_wall_ns: wall clock.
        problems: takes up, by label, what a relay failed at.
        own: names and zones of further sources that are listed, which do not know their past.
    """
    listed = list(sources)
    taken = {*own, *((one.name, one.zone) for one in listed if not isinstance(one, Relay))}
    found: list[Known] = []
    for source in listed:
        if not isinstance(source, Relay):
            found.append(Known(source, source.name))
            continue
        try:
            behind = source.voices(now_wall_ns)
        except GridError as error:
            problems[source.name] = error
            continue
        for voice in behind:
            if (voice.name, voice.zone) not in taken:
                taken.add((voice.name, voice.zone))
                found.append(Known(voice, f"{voice.name} via {source.name}"))
    return found


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
