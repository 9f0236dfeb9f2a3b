"""Electricity Maps: zones of the whole world, with a token.

    GET https://api.electricitymaps.com/v3/carbon-intensity/latest?zone=…   (v4: the same)
    {"zone":"US-CAR-DUK","carbonIntensity":216,"datetime":"2024-03-06T19:00:00.000Z",
     "updatedAt":"2024-03-06T18:48:27.926Z","emissionFactorType":"lifecycle",
     "isEstimated":true,"estimationMethod":"TIME_SLICER_AVERAGE"}

    GET …/carbon-intensity/history                 the last 24 hours: {"zone":…,"history":[…]}
    GET …/carbon-intensity/past-range?start=…&end=…  at most 10 days:  {"zone":…,"data":[…]}
    GET …/carbon-intensity/forecast                {"zone":…,"forecast":[…]} (v4: "data")

Documented at https://app.electricitymaps.com/docs; the last two are part of paid plans.
Consumption-based (flow-traced) averages. The value may be an integer, a float or null; `datetime`
begins the hour it is valid for, and may lie after `updatedAt`.
"""

from __future__ import annotations

import re
from pathlib import Path
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
    rows_of,
    token_of,
    utc,
)
from wattledger.model import Basis, GridSignal

HOST = "api.electricitymaps.com"
URL = f"https://{HOST}/v3"
_GRANULARITY_NS = {
    "5_minutes": 5 * MINUTE_NS,
    "15_minutes": 15 * MINUTE_NS,
    "hourly": HOUR_NS,
}
_LONGEST_NS = 10 * DAY_NS
_HISTORY_NS = 23 * HOUR_NS  # of the 24 that every plan may see, those that are surely in it
_ZONE = re.compile(r"[A-Z]{2,3}(-[A-Z0-9]{1,10}){0,3}", re.ASCII)


def is_zone(text: str) -> bool:
    """Whether a text is written as its zones are: `DE`, `DK-DK1`, `US-CAR-DUK`."""
    return _ZONE.fullmatch(text) is not None


class ElectricityMaps(Provider):
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
        super().__init__(
            client,
            url=url,
            default_url=URL,
            name=name,
            zone=zone,
            basis=basis,
            cadence_ns=HOUR_NS,
        )
        self._token_file = token_file

    def latest(self, now_wall_ns: int) -> list[GridSignal]:
        """The present hour, usually estimated. See `Source.latest`."""
        return [self.parse(self._ask("latest"), now_wall_ns)]

    def between(self, start_ns: int, end_ns: int, now_wall_ns: int) -> list[GridSignal]:
        """What is published for a span; beyond the last day of a paid plan only. See `History`."""
        if start_ns >= now_wall_ns - _HISTORY_NS:
            return collect(
                start_ns,
                end_ns,
                _LONGEST_NS,
                lambda _from, _to: self.parse_series(self._ask("history"), now_wall_ns),
            )
        return collect(
            start_ns,
            end_ns,
            _LONGEST_NS,
            lambda from_ns, to_ns: self.parse_series(
                self._ask("past-range", start=utc(from_ns), end=utc(to_ns)), now_wall_ns
            ),
        )

    def forecast(self, now_wall_ns: int) -> list[GridSignal]:
        """The hours to come. See `Outlook.forecast`."""
        return coming(self.parse_series(self._ask("forecast"), now_wall_ns), now_wall_ns)

    def _ask(self, path: str, **more: str) -> Any:
        query = {
            "zone": self.zone,
            "emissionFactorType": str(self.basis),
            # Else a zone it does not know is answered for the place that our address is at.
            "disableCallerLookup": "true",
            **more,
        }
        token = {"auth-token": token_of(self._token_file)}
        return self._get(f"/carbon-intensity/{path}", query, secret_headers=token)

    def parse(self, reply: Any, now_wall_ns: int) -> GridSignal:
        """The signal of a reply about one hour.

        Raises:
            GridError: outcome `no_data`, `wrong_zone` or `bad_value`.
        """
        fields = as_object(reply, "the reply")
        if fields.get("error") is not None or fields.get("status") == "no-data" or not fields:
            raise failure(Outcome.NO_DATA, f"there is no recent data for zone {self.zone}")
        if fields.get("zone") != self.zone:
            raise failure(Outcome.WRONG_ZONE, f"asked for zone {self.zone}, answered for another")
        value = fields.get("carbonIntensity")
        if fields.get("emissionFactorType", str(self.basis)) != str(self.basis):
            raise failure(
                Outcome.BAD_VALUE, f"asked for {self.basis} factors, answered with others"
            )
        if value is None:
            raise failure(Outcome.NO_DATA, f"zone {self.zone} has no value for this hour")
        estimated = fields.get("isEstimated", True)
        if not isinstance(estimated, bool):
            raise failure(Outcome.BAD_VALUE, "isEstimated is neither true nor false")
        granularity = fields.get("temporalGranularity", "hourly")
        if not isinstance(granularity, str) or granularity not in _GRANULARITY_NS:
            raise failure(Outcome.BAD_VALUE, "temporalGranularity is not one we know")
        start_ns = instant_ns(fields.get("datetime"), "datetime")
        return self._signal(
            value,
            start_ns,
            start_ns + _GRANULARITY_NS[granularity],
            estimated=estimated,
            now_wall_ns=now_wall_ns,
        )

    def parse_series(self, reply: Any, now_wall_ns: int) -> list[GridSignal]:
        """The signals of a reply about many hours; what each row lacks, the reply says for all.

        Raises:
            GridError: outcome `no_data`, `wrong_zone` or `bad_value`.
        """
        common = {
            key: value
            for key, value in as_object(reply, "the reply").items()
            if key in ("zone", "emissionFactorType", "temporalGranularity")
        }
        if common.get("zone", self.zone) != self.zone:
            raise failure(Outcome.WRONG_ZONE, f"asked for zone {self.zone}, answered for another")
        return good_of(
            rows_of(reply, "data", "history", "forecast"),
            lambda row: self.parse(common | as_object(row, "a row"), now_wall_ns),
        )
