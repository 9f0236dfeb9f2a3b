"""The weather of a place: Open-Meteo. No key for non-commercial use; data under CC BY 4.0.

    GET https://api.open-meteo.com/v1/forecast?latitude=52.52&longitude=13.41
        &current=temperature_2m,relative_humidity_2m&temperature_unit=celsius&timezone=GMT
    {"latitude":52.52,"longitude":13.419998,"utc_offset_seconds":0,"timezone":"GMT",
     "current_units":{"time":"iso8601","interval":"seconds","temperature_2m":"°C",
                      "relative_humidity_2m":"%"},
     "current":{"time":"2026-03-26T16:15","interval":900,"temperature_2m":18.0,
                "relative_humidity_2m":50}}

Documented at https://open-meteo.com/en/docs; the terms at https://open-meteo.com/en/terms. Values
are of a weather model and new every quarter of an hour; the place is that of the model's cell.
`time` has no offset: it is GMT. A unit that is not said, or is another, is refused: 68 °F taken
for 68 °C, or a wet bulb in the wrong one, would be a plausible number and wrong.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

from wattledger.grid.address import check_base_url
from wattledger.grid.checks import as_object, instant_ns
from wattledger.grid.client import HttpClient
from wattledger.grid.outcome import Outcome, failure
from wattledger.grid.provider import MINUTE_NS, token_of

HOST = "api.open-meteo.com"
URL = f"https://{HOST}/v1"
QUARTER_NS = 15 * MINUTE_NS
_PARAMETERS = {"temperature_2m": "°C", "relative_humidity_2m": "%"}
_NAIVE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d", re.ASCII)
_NEAR_DEGREES = 1.0  # the cells of the coarsest model are half as wide
_COLDEST_C, _HOTTEST_C = -100.0, 70.0  # -89 and 57 have been measured


class Weather(NamedTuple):
    """The air at a place.

    Attributes:
        from_ns: wall clock.
        to_ns: exclusive.
        temperature_c: 2 m above the ground, in °C.
        humidity_percent: relative, likewise.
    """

    from_ns: int
    to_ns: int
    temperature_c: float
    humidity_percent: float


class OpenMeteo:
    """The weather source `open_meteo`.

    Args:
        client: the way out.
        latitude: degrees north.
        longitude: degrees east.
        url: the API's base with its version; empty: the provider's own.
        token_file: where a customer's key lies; None: none is sent.

    Raises:
        ValueError: the url must not be asked.
    """

    def __init__(
        self,
        client: HttpClient,
        *,
        latitude: float,
        longitude: float,
        url: str = "",
        token_file: Path | None = None,
    ) -> None:
        self.name = "open_meteo"
        self.cadence_ns = QUARTER_NS
        self.latitude, self.longitude = latitude, longitude
        self._client = client
        self._url = (url or URL).rstrip("/")
        self._host = check_base_url(self._url).host
        self._token_file = token_file

    def now(self) -> Weather:
        """The present weather; one request.

        Raises:
            GridError: there is none; `outcome` says how it ended.
        """
        query = {
            "latitude": f"{self.latitude:.4f}",
            "longitude": f"{self.longitude:.4f}",
            "current": ",".join(_PARAMETERS),
            "temperature_unit": "celsius",
            "timezone": "GMT",
        }
        key = {} if self._token_file is None else {"apikey": token_of(self._token_file)}
        reply = self._client.get_json(
            f"{self._url}/forecast?{urlencode(query)}",
            allow_hosts={self._host},
            private=self._host != HOST,
            secret_query=key,
        )
        return self.parse(reply)

    def parse(self, reply: Any) -> Weather:
        """A reply's weather.

        Raises:
            GridError: outcome `no_data`, `wrong_zone` or `bad_value`.
        """
        fields = as_object(reply, "the reply")
        if fields.get("current") is None:
            raise failure(Outcome.NO_DATA, "the reply holds no weather")
        current = as_object(fields["current"], "current")
        units = as_object(fields.get("current_units"), "current_units")
        for name, unit in _PARAMETERS.items():
            if units.get(name) != unit:
                raise failure(Outcome.BAD_VALUE, f"{name} is not said to be in {unit}")
        if fields.get("utc_offset_seconds", 0) != 0:
            raise failure(Outcome.BAD_VALUE, "the time is not in GMT")
        self._check_place(fields)
        if any(current.get(name) is None for name in _PARAMETERS):
            raise failure(Outcome.NO_DATA, "the weather of now is not known there")
        temperature_c = _number(current["temperature_2m"], _COLDEST_C, _HOTTEST_C, "temperature_2m")
        humidity = _number(current["relative_humidity_2m"], 0.0, 100.0, "relative_humidity_2m")
        text = current.get("time")
        if not isinstance(text, str) or not _NAIVE.fullmatch(text):
            raise failure(Outcome.BAD_VALUE, "time is no instant in GMT")
        start_ns = instant_ns(f"{text}Z", "time")
        return Weather(start_ns, start_ns + QUARTER_NS, temperature_c, humidity)

    def _check_place(self, fields: dict[str, Any]) -> None:
        """The answer has to be for the place asked for, or at least for its cell."""
        latitude = _number(fields.get("latitude"), -90, 90, "latitude")
        longitude = _number(fields.get("longitude"), -180, 180, "longitude")
        across = abs(longitude - self.longitude)
        across = min(across, 360.0 - across)
        # Near a pole the cells are narrow, and a degree is no way.
        near = across <= _NEAR_DEGREES or abs(self.latitude) > 85
        if abs(latitude - self.latitude) > _NEAR_DEGREES or not near:
            raise failure(
                Outcome.WRONG_ZONE,
                "the weather is of another place",
                hint="check site.weather.latitude and longitude, and its url",
            )


def _number(value: Any, low: float, high: float, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise failure(Outcome.BAD_VALUE, f"{what} is no number from {low:g} to {high:g}")
    return float(value)
