"""Electricity Maps: zones of the whole world, with a token.

    GET https://api.electricitymaps.com/v3/carbon-intensity/latest?zone=…   (v4: the same)
    {"zone":"US-CAR-DUK","carbonIntensity":216,"datetime":"2024-03-06T19:00:00.000Z",
     "updatedAt":"2024-03-06T18:48:27.926Z","emissionFactorType":"lifecycle",
     "isEstimated":true,"estimationMethod":"TIME_SLICER_AVERAGE"}

Documented at https://app.electricitymaps.com/docs. Consumption-based (flow-traced) averages. The
value may be an integer, a float or null; `datetime` begins the hour it is valid for, and may lie
after `updatedAt`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from wattledger.errors import ConfigError
from wattledger.grid.address import check_base_url
from wattledger.grid.checks import as_object, instant_ns, intensity_ug_per_kwh
from wattledger.grid.client import HttpClient
from wattledger.grid.outcome import Outcome, failure
from wattledger.grid.secret import Secret, read_token
from wattledger.model import Basis, GridSignal
from wattledger.units import NS_PER_S

HOST = "api.electricitymaps.com"
URL = f"https://{HOST}/v3"
HOUR_NS = 3600 * NS_PER_S
_GRANULARITY_NS = {
    "5_minutes": 300 * NS_PER_S,
    "15_minutes": 900 * NS_PER_S,
    "hourly": HOUR_NS,
}
_ZONE = re.compile(r"[A-Z]{2,3}(-[A-Z0-9]{1,10}){0,3}", re.ASCII)


def is_zone(text: str) -> bool:
    """Whether a text is written as its zones are: `DE`, `DK-DK1`, `US-CAR-DUK`."""
    return _ZONE.fullmatch(text) is not None


class ElectricityMaps:
    """The source `electricity_maps`.

    Args:
        client: the way out.
        zone: as the provider writes it.
        token_file: where the token lies; read at each request, so that it may be rotated.
        url: the API's base with its version; default the provider's own.
        basis: `lifecycle` or `direct`.
        name: the `source` label.

    Raises:
        ValueError: the url must not be asked, the zone is not one, or the basis is not offered.
    """

    cadence_ns = HOUR_NS

    def __init__(
        self,
        client: HttpClient,
        *,
        zone: str,
        token_file: Path,
        url: str = "",
        basis: Basis = Basis.LIFECYCLE,
        name: str = "electricity_maps",
    ) -> None:
        if not is_zone(zone):
            raise ValueError(
                f"{zone!r} is not a zone of Electricity Maps, such as DE or US-CAR-DUK"
            )
        if basis not in (Basis.LIFECYCLE, Basis.DIRECT):
            raise ValueError('emission factors are "lifecycle" or "direct"')
        self.name = name
        self.zone = zone
        self.basis = basis
        self.url = (url or URL).rstrip("/")
        self._client = client
        self._token_file = token_file
        self._host = check_base_url(self.url).host

    def latest(self, now_wall_ns: int) -> list[GridSignal]:
        """The present hour, usually estimated. See `Source.latest`."""
        query = urlencode(
            {
                "zone": self.zone,
                "emissionFactorType": str(self.basis),
                # Else a zone it does not know is answered for the place that our address is at.
                "disableCallerLookup": "true",
            }
        )
        reply = self._client.get_json(
            f"{self.url}/carbon-intensity/latest?{query}",
            allow_hosts={self._host},
            private=self._host != HOST,
            secret_headers={"auth-token": self._token()},
        )
        return [self.parse(reply, now_wall_ns)]

    def _token(self) -> Secret:
        try:
            return read_token(self._token_file)
        except ConfigError as error:
            raise failure(Outcome.NO_TOKEN, error.faults[0][1]) from None

    def parse(self, reply: Any, now_wall_ns: int) -> GridSignal:
        """A reply's signal.

        Raises:
            GridError: outcome `no_data`, `wrong_zone` or `bad_value`.
        """
        fields = as_object(reply, "the reply")
        if fields.get("error") is not None or fields.get("status") == "no-data" or not fields:
            raise failure(Outcome.NO_DATA, f"there is no recent data for zone {self.zone}")
        if fields.get("zone") != self.zone:
            raise failure(Outcome.WRONG_ZONE, f"asked for zone {self.zone}, answered for another")
        if fields.get("emissionFactorType", str(self.basis)) != str(self.basis):
            raise failure(
                Outcome.BAD_VALUE, f"asked for {self.basis} factors, answered with others"
            )
        value = fields.get("carbonIntensity")
        if value is None:
            raise failure(Outcome.NO_DATA, f"zone {self.zone} has no value for this hour")
        estimated = fields.get("isEstimated", True)
        if not isinstance(estimated, bool):
            raise failure(Outcome.BAD_VALUE, "isEstimated is neither true nor false")
        granularity = fields.get("temporalGranularity", "hourly")
        if not isinstance(granularity, str) or granularity not in _GRANULARITY_NS:
            raise failure(Outcome.BAD_VALUE, "temporalGranularity is not one we know")
        start_ns = instant_ns(fields.get("datetime"), "datetime")
        return GridSignal(
            intensity_ug_per_kwh=intensity_ug_per_kwh(value, self.basis),
            zone=self.zone,
            source=self.name,
            basis=self.basis,
            valid_from_ns=start_ns,
            valid_to_ns=start_ns + _GRANULARITY_NS[granularity],
            estimated=estimated,
            fetched_at_ns=now_wall_ns,
            cadence_ns=HOUR_NS,
        )
