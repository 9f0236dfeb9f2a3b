"""Germany and its neighbours: Energy-Charts of Fraunhofer ISE. No key; CC BY 4.0.

    GET https://api.energy-charts.info/co2eq?country=de[&start=…&end=…]
    {"unix_seconds":[1709751600,…],"co2eq":[491.5,…,null],"co2eq_forecast":[null,…,505.0],
     "deprecated":false}

Documented at https://api.energy-charts.info. Parallel arrays of quarter hours: `co2eq` is null
where nothing is computed yet, and there the forecast stands in, marked as estimated. g of CO2
equivalents per kWh; that they are of the plants' whole life cycle is inferred from that word and
stated nowhere in its documentation. How often it may be asked is not published: it is asked once
for each quarter hour at most.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from wattledger.grid.checks import as_object
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
    utc,
)
from wattledger.model import Basis, GridSignal
from wattledger.units import NS_PER_S

HOST = "api.energy-charts.info"
URL = f"https://{HOST}"
QUARTER_NS = 15 * MINUTE_NS
_LONGEST_NS = 14 * DAY_NS
_PERIODS_NS = (QUARTER_NS, 2 * QUARTER_NS, HOUR_NS)
_WINDOW_NS = 6 * HOUR_NS  # before now: what is computed comes an hour or more late
_MAX_ROWS = 20_000
# Used unasked, for want of a configured source. The others are for those who name them.
KEYLESS = frozenset(("AT", "BE", "CH", "CZ", "DE", "LU", "NL", "PL"))
ZONES = KEYLESS | {
    *("AL", "BA", "BG", "CY", "DK", "EE", "ES", "FI", "FR", "GE", "GR", "HR", "HU", "IE", "IT"),
    *("LT", "LV", "MD", "ME", "MK", "NO", "PT", "RO", "RS", "SE", "SI", "SK", "UA", "XK"),
}


class EnergyCharts(Provider):
    """The source `energy_charts`.

    Args:
        client: the way out.
        zone: an ISO 3166 code of `ZONES`.
        url: the API's base; default the provider's own.
        name: the `source` label.

    Raises:
        ValueError: the url must not be asked, or the zone is not one.
    """

    def __init__(
        self, client: HttpClient, *, zone: str, url: str = "", name: str = "energy_charts"
    ) -> None:
        if zone not in ZONES:
            raise ValueError(f"energy_charts does not know {zone!r}")
        super().__init__(
            client,
            url=url,
            default_url=URL,
            name=name,
            zone=zone,
            basis=Basis.LIFECYCLE,
            cadence_ns=QUARTER_NS,
        )

    def latest(self, now_wall_ns: int) -> list[GridSignal]:
        """The last hours up to the present quarter. See `Source.latest`."""
        start_ns = now_wall_ns - _WINDOW_NS
        reply = self._ask(start_ns, now_wall_ns + HOUR_NS)
        begun = [
            signal
            for signal in self.parse(reply, now_wall_ns)
            if start_ns < signal.valid_to_ns and signal.valid_from_ns <= now_wall_ns
        ]
        if not begun:
            raise failure(Outcome.NO_DATA, "there is nothing for the last hours")
        return begun

    def between(self, start_ns: int, end_ns: int, now_wall_ns: int) -> list[GridSignal]:
        """What is computed or else forecast for a span. See `History.between`."""
        return collect(
            start_ns,
            end_ns,
            _LONGEST_NS,
            lambda from_ns, to_ns: self.parse(self._ask(from_ns, to_ns), now_wall_ns),
        )

    def forecast(self, now_wall_ns: int) -> list[GridSignal]:
        """The rest of what is forecast, a day or two. See `Outlook.forecast`."""
        reply = self._ask(now_wall_ns - HOUR_NS, now_wall_ns + 2 * DAY_NS)
        return coming(self.parse(reply, now_wall_ns, measured=False), now_wall_ns)

    def _ask(self, start_ns: int, end_ns: int) -> Any:
        form = "%Y-%m-%dT%H:%MZ"
        query = {
            "country": self.zone.lower(),
            "start": utc(start_ns, form),
            "end": utc(end_ns, form),
        }
        return self._get("/co2eq", query)

    def parse(self, reply: Any, now_wall_ns: int, *, measured: bool = True) -> list[GridSignal]:
        """A reply's signals.

        Args:
            reply: the parsed body.
            now_wall_ns: their `fetched_at_ns`.
            measured: take what is computed before what is forecast; False: forecasts only.

        Raises:
            GridError: outcome `no_data` or `bad_value`.
        """
        fields = as_object(reply, "the reply")
        times, known, ahead = (
            _array(fields, key) for key in ("unix_seconds", "co2eq", "co2eq_forecast")
        )
        if not times:
            raise failure(Outcome.NO_DATA, "the reply holds no data")
        for values in (known, ahead):
            # Of two arrays one may be left out; one that is shorter cannot be told apart.
            if values and len(values) != len(times):
                raise failure(Outcome.BAD_VALUE, "the arrays are not of the same length")
        starts = [_start_ns(second) for second in times]
        period_ns = min((b - a for a, b in pairwise(starts)), default=0)
        if period_ns not in _PERIODS_NS and len(starts) > 1:
            raise failure(Outcome.BAD_VALUE, "the times are not a row of quarter hours or hours")

        def signal(index: int) -> GridSignal | None:
            found = known[index] if known and measured else None
            value = found if found is not None else ahead[index] if ahead else None
            if value is None:
                return None
            start_ns = starts[index]
            return self._signal(
                value,
                start_ns,
                start_ns + (period_ns or QUARTER_NS),
                estimated=found is None,
                now_wall_ns=now_wall_ns,
            )

        return good_of(range(len(starts)), signal)


def _array(fields: dict[str, Any], key: str) -> list[Any]:
    values = fields.get(key)
    if values is None:
        return []
    if not isinstance(values, list) or len(values) > _MAX_ROWS:
        raise failure(Outcome.BAD_VALUE, f"{key} is not a list")
    return values


def _start_ns(second: Any) -> int:
    if isinstance(second, bool) or not isinstance(second, int) or not 0 <= second < 2**33:
        raise failure(Outcome.BAD_VALUE, "unix_seconds holds what is no time")
    if second % 900:
        raise failure(Outcome.BAD_VALUE, "a period does not begin with a quarter hour")
    return second * NS_PER_S
