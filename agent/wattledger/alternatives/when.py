"""`wattledger when`: the cleanest window of a forecast, beside starting now."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from wattledger.core.windows import Curve, Window, periods_of
from wattledger.errors import GridError, WattledgerError
from wattledger.grid.source import Outlook, Source
from wattledger.model import GridSignal
from wattledger.units import format_duration
from wattledger_exporters.when import iso


class Skipped(NamedTuple):
    """A source that gave no answer, and why."""

    source: str
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class Found:
    """The answer.

    Attributes:
        asked_ns: wall clock; no window begins before.
        within_ns: how far ahead was looked for.
        soonest: the window that begins now, or where the forecast does.
        cleanest: the one with the lowest mean intensity.
        signals: the forecast of one source, oldest first.
        known_until_ns: wall clock, up to where it reaches.
        known_ns: how much of what was looked at it knows.
        skipped: the sources before it.
    """

    asked_ns: int
    within_ns: int
    soonest: Window
    cleanest: Window
    signals: tuple[GridSignal, ...]
    known_until_ns: int
    known_ns: int
    skipped: tuple[Skipped, ...]

    @property
    def gaps_ns(self) -> int:
        """What it does not know of the time from when it was asked to where it reaches."""
        reached_ns = min(self.known_until_ns, self.asked_ns + self.within_ns)
        return max(reached_ns - self.asked_ns - self.known_ns, 0)


def find(
    sources: Sequence[Source],
    length_ns: int,
    within_ns: int,
    clock: Callable[[], int],
    place: str,
) -> Found:
    """The cleanest window of the first source that forecasts one; no two sources are mixed.

    Args:
        sources: in order of preference.
        length_ns: of the window.
        within_ns: from now to its end, at least its length.
        clock: wall clock in ns.
        place: what was asked for, for people.

    Raises:
        WattledgerError: no source forecasts a window; says for each of them why.
    """
    skipped: list[Skipped] = []
    for source in sources:
        if not isinstance(source, Outlook):
            skipped.append(Skipped(source.name, "publishes no forecast", ""))
            continue
        now_ns = clock()
        try:
            signals = source.forecast(now_ns)
            curve = Curve(periods_of(signals))
        except GridError as error:
            skipped.append(Skipped(source.name, error.message, error.hint))
            continue
        span = (length_ns, now_ns, now_ns + within_ns)
        soonest, cleanest = curve.soonest(*span), curve.cleanest(*span)
        until_ns = max(signal.valid_to_ns for signal in signals)
        if soonest is None or cleanest is None:
            wanted = f"{format_duration(length_ns)} within {format_duration(within_ns)}"
            text = f"its forecast, up to {iso(until_ns)}, covers no {wanted} without a gap"
            skipped.append(Skipped(source.name, text, "ask for fewer hours"))
            continue
        _, known_ns = curve.known(now_ns, now_ns + within_ns)
        return Found(
            asked_ns=now_ns,
            within_ns=within_ns,
            soonest=soonest,
            cleanest=cleanest,
            signals=tuple(signals),
            known_until_ns=until_ns,
            known_ns=known_ns,
            skipped=tuple(skipped),
        )
    if not skipped:
        raise WattledgerError(
            f"no live source of {place} is configured, and the country table has no forecast",
            "list one under [[grid.source]], or name a zone that has one without a key, such as "
            "--zone GB, --zone DK1 or --zone DE",
        )
    reasons = "; ".join(f"{name}: {message}" for name, message, _ in skipped)
    hint = next((tried.hint for tried in skipped if tried.hint), "")
    raise WattledgerError(
        f"no forecast for {place}: {reasons}",
        hint or "name a source that has one with --source, or list one under [[grid.source]]",
    )
