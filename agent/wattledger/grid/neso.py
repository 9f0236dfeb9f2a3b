"""Great Britain and its regions: NESO's Carbon Intensity API. No key; CC BY 4.0.

    GET https://api.carbonintensity.org.uk/intensity
    {"data":[{"from":"2018-01-20T12:00Z","to":"2018-01-20T12:30Z",
              "intensity":{"forecast":266,"actual":263,"index":"moderate"}}]}

    GET …/intensity/{from}/{to}                   at most 14 days
    GET …/intensity/{from}/fw48h                  the next 48 hours

    GET …/regional/regionid/13   or …/regional/postcode/RG10
    {"data":[{"regionid":13,"dnoregion":"UKPN London","shortname":"London","data":[
        {"from":"2018-01-20T12:00Z","to":"2018-01-20T12:30Z",
         "intensity":{"forecast":266,"index":"moderate"},"generationmix":[…]}]}]}
    GET …/regional/intensity/{from}/{to}/regionid/13   …/{from}/fw48h/postcode/RG10: the outer
                                                  list may be the one object in it

Documented at https://carbon-intensity.github.io/api-definitions/. `/intensity` gives the last
complete half hour; `actual` is null until known, and then the forecast stands in; regions have a
forecast only. The value is CO2 at the generator with imports and losses; wind, sun, water and
nuclear count as 0: not comparable with life-cycle data, hence its own basis.
"""

from __future__ import annotations

import re
from typing import Any

from wattledger.grid.checks import as_object, instant_ns
from wattledger.grid.client import HttpClient
from wattledger.grid.outcome import Outcome, failure
from wattledger.grid.provider import (
    DAY_NS,
    MINUTE_NS,
    Provider,
    collect,
    coming,
    good_of,
    rows_of,
    utc,
)
from wattledger.model import Basis, GridSignal

HOST = "api.carbonintensity.org.uk"
URL = f"https://{HOST}"
ZONE = "GB"
HALF_HOUR_NS = 30 * MINUTE_NS
_LONGEST_NS = 13 * DAY_NS  # 14 are allowed; the half hours at both ends come along
_MAX_ROWS = 64
_REGIONS = frozenset(str(number) for number in range(1, 18))
_POSTCODE = re.compile(r"[A-Z]{1,2}[0-9][A-Z0-9]?", re.ASCII)  # the outward part


def is_zone(text: str) -> bool:
    """Whether it is `GB`, a region of it (`GB-13` is London) or an outward postcode (`GB-RG10`)."""
    return text == ZONE or _region(text) is not None


def _region(zone: str) -> tuple[str, str] | None:
    """The last part of the path that asks for a region's zone; None: it is none."""
    country, _, part = zone.partition("-")
    if country != ZONE:
        return None
    if part in _REGIONS:
        return ("regionid", part)
    return ("postcode", part) if _POSTCODE.fullmatch(part) else None


class Neso(Provider):
    """The source `neso`.

    Args:
        client: the way out.
        url: the API's base; default the provider's own.
        zone: see `is_zone`.
        name: the `source` label.

    Raises:
        ValueError: the url must not be asked, or the zone is none of its own.
    """

    def __init__(
        self, client: HttpClient, *, url: str = "", zone: str = ZONE, name: str = "neso"
    ) -> None:
        if not is_zone(zone):
            raise ValueError(f"neso knows {ZONE}, its regions and its postcodes only")
        super().__init__(
            client,
            url=url,
            default_url=URL,
            name=name,
            zone=zone,
            basis=Basis.GENERATION,
            cadence_ns=HALF_HOUR_NS,
        )
        self._region = _region(zone)

    def latest(self, now_wall_ns: int) -> list[GridSignal]:
        """The last complete half hour; of a region the present one. See `Source.latest`."""
        if self._region is None:
            return self.parse(self._get("/intensity"), now_wall_ns)
        return self.parse(self._get("/regional/" + "/".join(self._region)), now_wall_ns)

    def between(self, start_ns: int, end_ns: int, now_wall_ns: int) -> list[GridSignal]:
        """What is published for a span. See `History.between`."""
        return collect(
            start_ns,
            end_ns,
            _LONGEST_NS,
            lambda from_ns, to_ns: self._span(from_ns, utc(to_ns, "%Y-%m-%dT%H:%MZ"), now_wall_ns),
        )

    def forecast(self, now_wall_ns: int) -> list[GridSignal]:
        """The next 48 hours. See `Outlook.forecast`."""
        signals = self._span(now_wall_ns, "fw48h", now_wall_ns)
        return coming(signals, now_wall_ns)

    def _span(self, from_ns: int, to: str, now_wall_ns: int) -> list[GridSignal]:
        part = f"/intensity/{utc(from_ns, '%Y-%m-%dT%H:%MZ')}/{to}"
        if self._region is not None:
            part = f"/regional{part}/" + "/".join(self._region)
        return self._parse(self._get(part), now_wall_ns, most=None)

    def parse(self, reply: Any, now_wall_ns: int) -> list[GridSignal]:
        """A reply's signals.

        Raises:
            GridError: outcome `no_data`, `wrong_zone` or `bad_value`.
        """
        return self._parse(reply, now_wall_ns, most=_MAX_ROWS)

    def _parse(self, reply: Any, now_wall_ns: int, *, most: int | None) -> list[GridSignal]:
        # In outages it answers 200 with {}, and with an empty list for times it does not know.
        if self._region is not None:
            reply = self._of_region(reply)
        rows = rows_of(reply, "data")
        return good_of(rows[-most:] if most else rows, lambda row: self._row(row, now_wall_ns))

    def _of_region(self, reply: Any) -> dict[str, Any]:
        """The region's part of a reply; it must be of the region that was asked for."""
        outer = as_object(reply, "the reply").get("data")
        if isinstance(outer, dict):
            outer = [outer]
        found = as_object(rows_of({"data": outer}, "data")[0], "the region")
        kind, name = self._region or ("", "")
        if str(found.get(kind)).upper() != name:
            raise failure(Outcome.WRONG_ZONE, f"asked for {self.zone}, answered for another")
        return found

    def _row(self, value: Any, now_wall_ns: int) -> GridSignal:
        row = as_object(value, "a row")
        start_ns, end_ns = instant_ns(row.get("from"), "from"), instant_ns(row.get("to"), "to")
        if end_ns - start_ns != HALF_HOUR_NS or start_ns % HALF_HOUR_NS:
            raise failure(Outcome.BAD_VALUE, "the period is not a half hour")
        intensity = as_object(row.get("intensity"), "intensity")
        actual, forecast = intensity.get("actual"), intensity.get("forecast")
        if actual is None and forecast is None:
            raise failure(Outcome.NO_DATA, "the half hour has neither an actual nor a forecast")
        return self._signal(
            forecast if actual is None else actual,
            start_ns,
            end_ns,
            estimated=actual is None,
            now_wall_ns=now_wall_ns,
        )
