"""The United States: hourly generation by fuel from the EIA, with a key.

    GET https://api.eia.gov/v2/electricity/rto/fuel-type-data/data/?api_key=…&frequency=hourly
        &data[0]=value&facets[respondent][]=CISO&start=2024-03-06T10&sort[0][column]=period…
    {"response":{"total":"96","frequency":"hourly","data":[
        {"period":"2024-03-06T19","respondent":"CISO","fueltype":"NG","value":"8123",
         "value-units":"megawatthours"},…]},"apiVersion":"2.1.8"}

Documented at https://www.eia.gov/opendata/documentation.php. `period` is the end of an hour in
UTC; `value` may be text, a number, null or slightly negative. At most 5000 rows come at once, and
a key that asks too often is suspended. The intensity is made of the mix with the medians of
`data/fuel_factors.csv`, and marked as estimated. Some balancing authorities report their fuels a
day late: what is older than `grid.max_age` does not price the present.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from wattledger.grid.checks import as_object, instant_ns
from wattledger.grid.client import HttpClient
from wattledger.grid.mix import STORAGE, ewif_ul_per_kwh, g_per_kwh, whole
from wattledger.grid.outcome import Outcome, failure
from wattledger.grid.provider import (
    DAY_NS,
    HOUR_NS,
    Provider,
    collect,
    good_of,
    rows_of,
    token_of,
    utc,
)
from wattledger.model import Basis, GridSignal

HOST = "api.eia.gov"
URL = f"https://{HOST}/v2"
FUELS = {
    "COL": "coal",
    "NG": "gas",
    "OIL": "oil",
    "NUC": "nuclear",
    "WAT": "hydro",
    "SUN": "solar",
    "SNB": "solar",  # with batteries of its own
    "WND": "wind",
    "WNB": "wind",
    "GEO": "geothermal",
    "BAT": STORAGE,
    "PS": STORAGE,  # pumped water
    "UES": STORAGE,
    "OES": STORAGE,
}
_WINDOW_NS = 36 * HOUR_NS  # some balancing authorities report a day late
_LONGEST_NS = 2 * DAY_NS  # its rows are long: more would pass the client's bound
_ROWS = 5000
_ZONE = re.compile(r"US(-[A-Z0-9]{1,5})?-([A-Z0-9]{2,5})", re.ASCII)
_PERIOD = re.compile(r"\d{4}-\d\d-\d\dT\d\d", re.ASCII)


def is_zone(text: str) -> bool:
    """Whether it is `US-` and the code of a balancing authority: `US-CISO`, also `US-CAL-CISO`."""
    return _ZONE.fullmatch(text) is not None


class Eia(Provider):
    """The source `eia`.

    Args:
        client: the way out.
        zone: see `is_zone`.
        token_file: where the key lies; read at each request.
        url: the API's base with its version; default the provider's own.
        name: the `source` label.

    Raises:
        ValueError: the url must not be asked, or the zone is not one.
    """

    def __init__(
        self,
        client: HttpClient,
        *,
        zone: str,
        token_file: Path,
        url: str = "",
        name: str = "eia",
    ) -> None:
        found = _ZONE.fullmatch(zone)
        if found is None:
            raise ValueError(f"{zone!r} is not a balancing authority, such as US-CISO")
        super().__init__(
            client,
            url=url,
            default_url=URL,
            name=name,
            zone=zone,
            basis=Basis.LIFECYCLE,
            cadence_ns=HOUR_NS,
        )
        self._respondent = found[2]
        self._token_file = token_file

    def latest(self, now_wall_ns: int) -> list[GridSignal]:
        """The hours of the last day and a half that are whole. See `Source.latest`."""
        return self.parse(self._ask(now_wall_ns - _WINDOW_NS, now_wall_ns), now_wall_ns)

    def between(self, start_ns: int, end_ns: int, now_wall_ns: int) -> list[GridSignal]:
        """What is published for a span. See `History.between`."""
        return collect(
            start_ns,
            end_ns,
            _LONGEST_NS,
            lambda from_ns, to_ns: self.parse(self._ask(from_ns, to_ns), now_wall_ns),
        )

    def _ask(self, start_ns: int, end_ns: int) -> Any:
        query = {
            "frequency": "hourly",
            "data[0]": "value",
            "facets[respondent][]": self._respondent,
            "start": utc(start_ns, "%Y-%m-%dT%H"),
            "end": utc(end_ns + HOUR_NS, "%Y-%m-%dT%H"),  # named by their ends
            "sort[0][column]": "period",
            "sort[0][direction]": "desc",
            "length": str(_ROWS),
        }
        return self._get(
            "/electricity/rto/fuel-type-data/data/",
            query,
            secret_query={"api_key": token_of(self._token_file)},
        )

    def parse(self, reply: Any, now_wall_ns: int) -> list[GridSignal]:
        """A reply's signals, one for each hour that is whole.

        Raises:
            GridError: outcome `no_data`, `wrong_zone` or `bad_value`.
        """
        inner = as_object(reply, "the reply").get("response")
        if inner is None:
            raise failure(Outcome.NO_DATA, "the reply holds no data")
        hours: dict[int, dict[str, float]] = {}
        for value in rows_of(inner, "data"):
            row = as_object(value, "a row")
            if row.get("respondent") != self._respondent:
                raise failure(Outcome.WRONG_ZONE, f"asked for {self.zone}, answered for another")
            if row.get("value") is None:
                continue
            end_ns = _end_ns(row.get("period"))
            code = row.get("fueltype")
            if not isinstance(code, str) or row.get("value-units", "megawatthours") != (
                "megawatthours"
            ):
                raise failure(Outcome.BAD_VALUE, "a row is not an amount of energy by fuel")
            hours.setdefault(end_ns - HOUR_NS, {})[code] = _amount(row["value"])

        def signal(start_ns: int) -> GridSignal:
            return self._signal(
                g_per_kwh(complete[start_ns], FUELS),
                start_ns,
                start_ns + HOUR_NS,
                estimated=True,
                now_wall_ns=now_wall_ns,
                ewif_ul_per_kwh=ewif_ul_per_kwh(complete[start_ns], FUELS),
            )

        complete = whole(hours)
        return good_of(complete, signal, "the mix")


def _end_ns(value: Any) -> int:
    if not isinstance(value, str) or not _PERIOD.fullmatch(value):
        raise failure(Outcome.BAD_VALUE, "period is not an hour")
    return instant_ns(f"{value}:00Z", "period")


def _amount(value: Any) -> float:
    """MWh; the API gives them as texts or as numbers."""
    if not isinstance(value, bool) and isinstance(value, str | int | float):
        try:
            amount = float(value)
        except (ValueError, OverflowError):
            amount = math.nan
        if abs(amount) < 1e7:
            return amount
    raise failure(Outcome.BAD_VALUE, "an amount of energy is no plausible number")
