"""Great Britain: NESO's Carbon Intensity API. No key; CC BY 4.0.

    GET https://api.carbonintensity.org.uk/intensity
    {"data":[{"from":"2018-01-20T12:00Z","to":"2018-01-20T12:30Z",
              "intensity":{"forecast":266,"actual":263,"index":"moderate"}}]}

Documented at https://carbon-intensity.github.io/api-definitions/. It gives the last complete half
hour; `actual` is null until known, and then the forecast stands in. The value is CO2 at the
generator with imports and losses; wind, sun, water and nuclear count as 0: not comparable with
life-cycle data, hence its own basis.
"""

from __future__ import annotations

from typing import Any

from wattledger.grid.address import check_base_url
from wattledger.grid.checks import as_object, instant_ns, intensity_ug_per_kwh
from wattledger.grid.client import HttpClient
from wattledger.grid.outcome import Outcome, failure
from wattledger.model import Basis, GridSignal
from wattledger.units import NS_PER_S

HOST = "api.carbonintensity.org.uk"
URL = f"https://{HOST}"
ZONE = "GB"
HALF_HOUR_NS = 1800 * NS_PER_S
_MAX_ROWS = 64


class Neso:
    """The source `neso`.

    Args:
        client: the way out.
        url: the API's base; default the provider's own.
        zone: `GB`, the only one it knows.
        name: the `source` label.

    Raises:
        ValueError: the url must not be asked, or the zone is another.
    """

    basis = Basis.GENERATION
    cadence_ns = HALF_HOUR_NS

    def __init__(
        self, client: HttpClient, *, url: str = "", zone: str = ZONE, name: str = "neso"
    ) -> None:
        if zone != ZONE:
            raise ValueError(f"neso knows zone {ZONE} only")
        self.name = name
        self.zone = zone
        self.url = (url or URL).rstrip("/")
        self._client = client
        self._host = check_base_url(self.url).host

    def latest(self, now_wall_ns: int) -> list[GridSignal]:
        """The last complete half hour. See `Source.latest`."""
        reply = self._client.get_json(
            f"{self.url}/intensity", allow_hosts={self._host}, private=self._host != HOST
        )
        return self.parse(reply, now_wall_ns)

    def parse(self, reply: Any, now_wall_ns: int) -> list[GridSignal]:
        """A reply's signals.

        Raises:
            GridError: outcome `no_data` or `bad_value`.
        """
        rows = as_object(reply, "the reply").get("data")
        if rows is None or rows == []:
            # In outages it answers 200 with {}, and with an empty list for times it does not know.
            raise failure(Outcome.NO_DATA, "the reply holds no data")
        if not isinstance(rows, list):
            raise failure(Outcome.BAD_VALUE, "data is not a list")
        return [self._row(row, now_wall_ns) for row in rows[-_MAX_ROWS:]]

    def _row(self, value: Any, now_wall_ns: int) -> GridSignal:
        row = as_object(value, "a row")
        start_ns, end_ns = instant_ns(row.get("from"), "from"), instant_ns(row.get("to"), "to")
        if end_ns - start_ns != HALF_HOUR_NS or start_ns % HALF_HOUR_NS:
            raise failure(Outcome.BAD_VALUE, "the period is not a half hour")
        intensity = as_object(row.get("intensity"), "intensity")
        actual, forecast = intensity.get("actual"), intensity.get("forecast")
        if actual is None and forecast is None:
            raise failure(Outcome.NO_DATA, "the half hour has neither an actual nor a forecast")
        return GridSignal(
            intensity_ug_per_kwh=intensity_ug_per_kwh(
                forecast if actual is None else actual, self.basis
            ),
            zone=ZONE,
            source=self.name,
            basis=self.basis,
            valid_from_ns=start_ns,
            valid_to_ns=end_ns,
            estimated=actual is None,
            fetched_at_ns=now_wall_ns,
            cadence_ns=HALF_HOUR_NS,
        )
