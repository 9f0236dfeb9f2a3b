"""The site's factors over time: WUE by the weather, PUE by a meter, over what is configured.

For an instant, each factor on its own:

    weather, live      the reading whose time has come last, until it ended longer ago than the age
                       limit, or says that no value holds
    config, default    as the settings have it

An instant before the first known reading is priced as now: what held then is not known. WUE moves
in steps of 0.01 L/kWh and PUE of 0.001, since each change opens new entries in the ledger.

`at`, `statuses` and `note` are for any thread and take no lock that a request is made under;
`poll_once` is for one thread of its own.
"""

from __future__ import annotations

import json
import logging
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from wattledger.core.cooling import (
    PUE_STEP_PPM,
    WUE_STEP_UL_PER_KWH,
    quantised,
    weather_wue_ul_per_kwh,
)
from wattledger.errors import GridError
from wattledger.grid.live_pue import HIGHEST_PPM, LOWEST_PPM
from wattledger.grid.open_meteo import OpenMeteo
from wattledger.grid.outcome import Outcome
from wattledger.grid.site_readings import SiteReading, SiteSource, check_times
from wattledger.model import SiteFactors, SourceStatus
from wattledger.ports import Clock
from wattledger.units import NS_PER_S, PPM

log = logging.getLogger(__name__)

HISTORY = 256  # readings kept: past slots are priced with what was in force in them
REMEMBERED = 16  # of them, over a restart
_LOOK_NS = 60 * NS_PER_S
_FIRST_RETRY_NS = 60 * NS_PER_S
_SLOW_RETRY_NS = 900 * NS_PER_S
_MAX_RETRY_NS = 86_400 * NS_PER_S
_SLOW = frozenset({Outcome.HTTP_401, Outcome.HTTP_403, Outcome.HTTP_404, Outcome.HTTP_429})
OUT_OF_RANGE = "the air is drier than 5 % or hotter than 50 °C, for which no WUE is known"


class WeatherWue:
    """The weather of a place as the WUE of cooling towers there; a `SiteSource`.

    Args:
        weather: who tells it.
        cycles: of concentration.
        least_l_per_kwh: the WUE in the cold.
    """

    def __init__(self, weather: OpenMeteo, cycles: float, least_l_per_kwh: float) -> None:
        self._weather = weather
        self._cycles = cycles
        self._least = least_l_per_kwh
        self.name = weather.name
        self.cadence_ns = weather.cadence_ns
        self.identity = f"{weather.latitude} {weather.longitude} {cycles} {least_l_per_kwh}"

    def latest(self, now_wall_ns: int) -> list[SiteReading]:  # noqa: ARG002 - of the protocol
        """The WUE of now. See `SiteSource.latest`."""
        air = self._weather.now()
        wue_ul = weather_wue_ul_per_kwh(
            air.temperature_c, air.humidity_percent, self._cycles, self._least
        )
        return [SiteReading(air.from_ns, air.to_ns, wue_ul)]


class _Factor(NamedTuple):
    """How a reading becomes a factor."""

    name: str
    step: int
    lowest: int
    highest: int
    put: Callable[[SiteFactors, int], SiteFactors]
    none_holds: str = ""


_WUE = _Factor(
    "wue",
    WUE_STEP_UL_PER_KWH,
    0,
    1000 * PPM,
    lambda site, value: replace(site, wue_ul_per_kwh=value, wue_source="weather"),
    OUT_OF_RANGE,
)
_PUE = _Factor(
    "pue",
    PUE_STEP_PPM,
    LOWEST_PPM,
    HIGHEST_PPM,
    lambda site, value: replace(site, pue_ppm=value, pue_source="live"),
)


class _Asked:
    """One factor, who tells it, and what came of asking. Written by the polling thread only."""

    def __init__(
        self, factor: _Factor, source: SiteSource, clock: Clock, max_age_ns: int, node: str
    ) -> None:
        self.factor = factor
        self.source = source
        self.key = f"{factor.name}:{zlib.crc32(source.identity.encode()):08x}"
        self._clock = clock
        self._max_age_ns = max_age_ns
        self._node = node
        self.readings: tuple[SiteReading, ...] = ()  # oldest first; replaced whole
        self.due_ns = 0  # on CLOCK_BOOTTIME
        self.outcomes: dict[str, int] = {}
        self.failures = 0
        self.last_success_ns = 0
        self.message = ""
        self.hint = ""

    def keep(self, fresh: Sequence[SiteReading]) -> None:
        """Take readings up; a newer word on the same time replaces the older one."""
        factor, by_start = self.factor, {one.from_ns: one for one in self.readings}
        for reading in fresh:
            value = reading.millionths
            if value is not None:
                value = min(quantised(value, factor.step), factor.highest)
            by_start[reading.from_ns] = reading._replace(millionths=value)
        self.readings = tuple(by_start[start] for start in sorted(by_start))[-HISTORY:]

    def value_at(self, wall_ns: int) -> int | None:
        """What the readings say of an instant; None: the settings hold."""
        readings = self.readings
        if not readings:
            return None
        if wall_ns < readings[0].from_ns:
            wall_ns = self._clock.now().wall_ns
        for reading in reversed(readings):
            if reading.from_ns <= wall_ns:
                return reading.millionths if wall_ns < reading.to_ns + self._max_age_ns else None
        return None

    def ask(self) -> None:
        """One request, and when the next is due."""
        retry_after_s: float | None = None
        try:
            now_ns = self._clock.now().wall_ns
            fresh = self.source.latest(now_ns)
            check_times(fresh, now_ns, self._max_age_ns)
        except GridError as error:
            outcome, retry_after_s = error.outcome, error.retry_after_s
            self.failures += 1
            self.message, self.hint = error.message, error.hint
            if self.failures == 1:
                log.warning("site source %s: %s [%s]", self.source.name, error, outcome)
        else:
            outcome = str(Outcome.OK)
            if self.failures:
                log.info("site source %s answers again", self.source.name)
            self.failures = 0
            self.last_success_ns = self._clock.now().wall_ns
            self.keep(fresh)
            held = self.readings[-1].millionths is not None
            self.message = "" if held else self.factor.none_holds
            self.hint = "" if held else "what the settings say holds meanwhile"
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1
        self.due_ns = self._clock.now().boottime_ns + self._rest_ns(outcome, retry_after_s)

    def _rest_ns(self, outcome: str, retry_after_s: float | None) -> int:
        cadence_ns = self.source.cadence_ns
        # Nodes that start together part ways: up to a tenth more, each its own, always the same.
        apart = zlib.crc32(f"{self._node}/{self.source.name}".encode()) % 1001
        if outcome == Outcome.OK:
            return cadence_ns + cadence_ns * apart // 10_000
        rest_ns = min(_FIRST_RETRY_NS << min(self.failures - 1, 16), max(cadence_ns, _LOOK_NS))
        if outcome in _SLOW:
            rest_ns = max(rest_ns, _SLOW_RETRY_NS)
        rest_ns += rest_ns * apart // 10_000
        if retry_after_s is not None:
            rest_ns = max(rest_ns, min(round(retry_after_s * NS_PER_S), _MAX_RETRY_NS))
        return rest_ns

    def status(self) -> SourceStatus:
        """Its health."""
        return SourceStatus(
            source=self.source.name,
            outcomes=dict(self.outcomes),
            last_success_ns=self.last_success_ns,
            message=self.message,
            hint=self.hint,
        )

    def inherit(self, other: _Asked) -> None:
        """Go on where another left off that asked for the same; what failed is tried at once."""
        self.readings, self.outcomes = other.readings, other.outcomes
        self.last_success_ns = other.last_success_ns
        if not other.failures:
            self.due_ns, self.message, self.hint = other.due_ns, other.message, other.hint


class SiteFeed:
    """A `ports.Site` over the settings' factors.

    Args:
        base: what the settings say.
        wue: who tells the WUE; None: the settings hold.
        pue: who tells the PUE; likewise.
        clock: time.
        max_age_ns: how long after its end a reading still holds.
        note: of an earlier run, as `note` gave it.
        node: any text that differs between nodes.
    """

    def __init__(
        self,
        base: SiteFactors,
        wue: SiteSource | None,
        pue: SiteSource | None,
        clock: Clock,
        *,
        max_age_ns: int,
        note: str = "",
        node: str = "",
    ) -> None:
        self._base = base
        self._clock = clock
        self._asked = [
            _Asked(factor, source, clock, max_age_ns, node)
            for factor, source in ((_WUE, wue), (_PUE, pue))
            if source is not None
        ]
        self._stopped = False
        for key, readings in _recalled(note).items():
            for asked in self._asked:
                if asked.key == key:
                    asked.keep([r for r in readings if _is_sound(r, asked.factor)])
        self._note = ""
        self._statuses: tuple[SourceStatus, ...] = ()
        self._publish()

    @property
    def asks(self) -> bool:
        """Whether there is anybody to ask: else it need not be polled."""
        return bool(self._asked)

    # ── any thread ──────────────────────────────────────────────────────────────────────────────

    def at(self, wall_ns: int) -> SiteFactors:
        """The factors in force at this instant; see `ports.Site.at`."""
        site = self._base.at(wall_ns)
        for asked in self._asked:
            value = asked.value_at(wall_ns)
            if value is not None:
                site = asked.factor.put(site, value)
        return site

    def statuses(self) -> tuple[SourceStatus, ...]:
        """The health of whoever is asked."""
        return self._statuses

    def note(self) -> str:
        """The last readings, to be kept over a restart."""
        return self._note

    def inherit(self, old: SiteFeed) -> None:
        """Take over what a feed of earlier settings knows; to be called before this one polls."""
        before = {asked.key: asked for asked in old._asked}
        for asked in self._asked:
            if other := before.get(asked.key):
                asked.inherit(other)
        self._publish()

    def request_stop(self) -> None:
        """Ask nothing more; a request in flight ends by its own deadline."""
        self._stopped = True

    # ── the polling thread ──────────────────────────────────────────────────────────────────────

    def poll_once(self) -> float:
        """Ask whoever is due. Returns: seconds until the next call is wanted, at most a minute."""
        rest_ns = _LOOK_NS
        for asked in self._asked:
            if self._stopped:
                break
            if self._clock.now().boottime_ns >= asked.due_ns:
                asked.ask()
                self._publish()
            rest_ns = min(rest_ns, asked.due_ns - self._clock.now().boottime_ns)
        return max(rest_ns, NS_PER_S) / NS_PER_S

    def _publish(self) -> None:
        self._statuses = tuple(asked.status() for asked in self._asked)
        kept = {asked.key: asked.readings[-REMEMBERED:] for asked in self._asked}
        self._note = json.dumps(kept, separators=(",", ":")) if any(kept.values()) else ""


def _recalled(note: str) -> dict[str, list[SiteReading]]:
    """What a note holds; nothing where it is none of ours."""
    try:
        return {key: [SiteReading(*row) for row in rows] for key, rows in json.loads(note).items()}
    except (ValueError, TypeError, AttributeError):
        return {}


def _is_sound(reading: SiteReading, factor: _Factor) -> bool:
    """Whether a reading that was kept is one: a note is a text in a file."""
    start, end, value = tuple[object, ...](reading)
    if type(start) is not int or type(end) is not int or not 0 <= start < end:
        return False
    return value is None or (type(value) is int and factor.lowest <= value <= factor.highest)
