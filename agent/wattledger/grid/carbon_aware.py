"""The Carbon Aware SDK of the Green Software Foundation: a web API that a site runs itself.

    GET {url}/emissions/bylocation?location=eastus&time=…&toTime=…
    [{"location":"PJM_ROANOKE","time":"2022-09-06T20:45:00+00:00","rating":70,
      "duration":"00:05:00"},…]

    GET {url}/emissions/forecasts/current?location=eastus
    [{"location":"eastus","forecastData":[
        {"location":"eastus","timestamp":"2022-09-06T20:45:00+00:00","duration":5,"value":359.2},…]}]

Documented at https://carbon-aware-sdk.greensoftware.foundation. g/kWh of whatever stands behind it:
WattTime gives it marginal rates, Electricity Maps averages, so that the basis has to be stated. It
may name the grid's region where it was asked for a place. A value that its source lacks becomes a
rating of -1, which is refused as any below zero.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

from wattledger.grid.checks import as_object, instant_ns
from wattledger.grid.client import HttpClient
from wattledger.grid.outcome import Outcome, failure
from wattledger.grid.provider import (
    DAY_NS,
    HOUR_NS,
    MINUTE_NS,
    Provider,
    collect,
    coming,
    good_of,
    is_name,
    rows_of,
    utc,
)
from wattledger.model import Basis, GridSignal
from wattledger.units import NS_PER_S

_LONGEST_NS = 5 * DAY_NS
_WINDOW_NS = 3 * HOUR_NS
_DURATION = re.compile(r"(\d\d):(\d\d):(\d\d)", re.ASCII)


class CarbonAware(Provider):
    """The source `carbon_aware`.

    Args:
        client: the way out.
        zone: the location as the SDK is configured with it.
        url: where it listens.
        basis: what the provider behind it counts.
        name: the `source` label.

    Raises:
        ValueError: the url must not be asked, the zone is not one, or there is no url.
    """

    def __init__(
        self,
        client: HttpClient,
        *,
        zone: str,
        url: str,
        basis: Basis,
        name: str = "carbon_aware",
    ) -> None:
        if not is_name(zone):
            raise ValueError(f"{zone!r} is not a name of a location, such as eastus")
        super().__init__(
            client,
            url=url,
            default_url="",
            name=name,
            zone=zone,
            basis=basis,
            cadence_ns=HOUR_NS,
        )

    def latest(self, now_wall_ns: int) -> list[GridSignal]:
        """The last three hours. See `Source.latest`."""
        return self.parse(self._ask(now_wall_ns - _WINDOW_NS, now_wall_ns), now_wall_ns)

    def between(self, start_ns: int, end_ns: int, now_wall_ns: int) -> list[GridSignal]:
        """What the provider behind it has for a span. See `History.between`."""
        return collect(
            start_ns,
            end_ns,
            _LONGEST_NS,
            # The period that the span begins in began up to an hour before.
            lambda from_ns, to_ns: self.parse(self._ask(from_ns - HOUR_NS, to_ns), now_wall_ns),
        )

    def forecast(self, now_wall_ns: int) -> list[GridSignal]:
        """What it forecasts. See `Outlook.forecast`."""
        reply = self._get("/emissions/forecasts/current", {"location": self.zone})
        first = as_object(rows_of({"rows": reply}, "rows")[0], "a forecast")
        rows = rows_of(first, "forecastData")
        return coming(self._signals(rows, "timestamp", "value", now_wall_ns, True), now_wall_ns)

    def _ask(self, start_ns: int, end_ns: int) -> Any:
        query = {"location": self.zone, "time": utc(start_ns), "toTime": utc(end_ns)}
        return self._get("/emissions/bylocation", query)

    def parse(self, reply: Any, now_wall_ns: int) -> list[GridSignal]:
        """The signals of a reply about the past.

        Raises:
            GridError: outcome `no_data`, `wrong_zone` or `bad_value`.
        """
        rows = rows_of({"rows": reply}, "rows")
        return self._signals(rows, "time", "rating", now_wall_ns, False)

    def _signals(
        self, rows: list[Any], time: str, value: str, now_wall_ns: int, estimated: bool
    ) -> list[GridSignal]:
        fields = [as_object(row, "a row") for row in rows]
        named = [row.get("location") for row in fields]
        if any(not isinstance(name, str) or name != named[0] for name in named):
            raise failure(Outcome.WRONG_ZONE, "the rows are not all of one location")
        starts = sorted({instant_ns(row.get(time), time) for row in fields})
        step_ns = min((later - first for first, later in pairwise(starts)), default=HOUR_NS)

        def signal(row: dict[str, Any]) -> GridSignal:
            start_ns = instant_ns(row.get(time), time)
            return self._signal(
                row.get(value),
                start_ns,
                start_ns + _duration_ns(row.get("duration"), min(step_ns, HOUR_NS)),
                estimated=estimated,
                now_wall_ns=now_wall_ns,
            )

        return good_of(fields, signal)


def _duration_ns(value: Any, step_ns: int) -> int:
    """`hh:mm:ss` or minutes; where neither is said, from one row to the next."""
    found_ns = 0
    if isinstance(value, str) and (parts := _DURATION.fullmatch(value)):
        hours, minutes, seconds = map(int, parts.groups())
        found_ns = (hours * 3600 + minutes * 60 + seconds) * NS_PER_S
    elif isinstance(value, int) and not isinstance(value, bool):
        found_ns = value * MINUTE_NS
    elif value is not None:
        raise failure(Outcome.BAD_VALUE, "duration is neither minutes nor hh:mm:ss")
    # The SDK says 0 where its provider gives no length.
    if not 0 <= found_ns <= HOUR_NS:
        raise failure(Outcome.BAD_VALUE, "a period is longer than an hour")
    return found_ns or step_ns
