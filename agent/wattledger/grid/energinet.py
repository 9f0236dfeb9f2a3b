"""Denmark: Energi Data Service of Energinet. No key.

    GET https://api.energidataservice.dk/dataset/CO2Emis?filter={"PriceArea":["DK1"]}
        &sort=Minutes5UTC desc&limit=24
    {"total":…,"filters":…,"limit":24,"dataset":"CO2Emis","records":[
        {"Minutes5UTC":"2024-03-06T19:00:00","Minutes5DK":"2024-03-06T20:00:00",
         "PriceArea":"DK1","CO2Emission":121.0},…]}

`CO2EmisProg` is the same for the hours to come. Documented at
https://www.energidataservice.dk/guides/api-guides. Values are g of CO2 per kWh consumed in the
area, imports included, from the burning of fuels: wind, sun, water and nuclear count as 0.
Times of the reply are UTC though they do not say so; `start` and `end` are Danish time, so that
more is asked for than is wanted.
"""

from __future__ import annotations

import json
import re
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
    utc,
)
from wattledger.model import Basis, GridSignal

HOST = "api.energidataservice.dk"
URL = f"https://{HOST}"
FIVE_MINUTES_NS = 5 * MINUTE_NS
_AREAS = {"DK1": "DK1", "DK2": "DK2", "DK-DK1": "DK1", "DK-DK2": "DK2"}
_LATEST_ROWS = 24
_LONGEST_NS = 5 * DAY_NS
_AHEAD_NS = 2 * DAY_NS
_DANISH_NS = 2 * HOUR_NS  # what Danish summer time is ahead of UTC
_NAIVE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d)?", re.ASCII)


def is_zone(text: str) -> bool:
    """Whether it is a Danish price area: `DK1` or `DK2`, also written `DK-DK1`."""
    return text in _AREAS


class Energinet(Provider):
    """The source `energinet`.

    Args:
        client: the way out.
        zone: see `is_zone`.
        url: the API's base; default the provider's own.
        name: the `source` label.

    Raises:
        ValueError: the url must not be asked, or the zone is not one.
    """

    def __init__(
        self, client: HttpClient, *, zone: str, url: str = "", name: str = "energinet"
    ) -> None:
        if zone not in _AREAS:
            raise ValueError("energinet knows DK1 and DK2 only")
        super().__init__(
            client,
            url=url,
            default_url=URL,
            name=name,
            zone=zone,
            basis=Basis.GENERATION,
            cadence_ns=FIVE_MINUTES_NS,
        )
        self._area = _AREAS[zone]

    def latest(self, now_wall_ns: int) -> list[GridSignal]:
        """The last two hours. See `Source.latest`."""
        reply = self._ask("CO2Emis", "desc", _LATEST_ROWS)
        return self.parse(reply, now_wall_ns, estimated=False)

    def between(self, start_ns: int, end_ns: int, now_wall_ns: int) -> list[GridSignal]:
        """What is published for a span. See `History.between`."""
        return collect(
            start_ns,
            end_ns,
            _LONGEST_NS,
            lambda from_ns, to_ns: self.parse(
                self._span("CO2Emis", from_ns, to_ns), now_wall_ns, estimated=False
            ),
        )

    def forecast(self, now_wall_ns: int) -> list[GridSignal]:
        """The next hours, at most two days. See `Outlook.forecast`."""
        reply = self._span("CO2EmisProg", now_wall_ns - FIVE_MINUTES_NS, now_wall_ns + _AHEAD_NS)
        return coming(self.parse(reply, now_wall_ns, estimated=True), now_wall_ns)

    def _span(self, dataset: str, start_ns: int, end_ns: int) -> Any:
        end_ns += _DANISH_NS
        form = "%Y-%m-%dT%H:%M"
        most = (end_ns - start_ns) // FIVE_MINUTES_NS + 2
        return self._ask(dataset, "asc", most, start=utc(start_ns, form), end=utc(end_ns, form))

    def _ask(self, dataset: str, order: str, most: int, **span: str) -> Any:
        query = {
            "filter": json.dumps({"PriceArea": [self._area]}, separators=(",", ":")),
            "columns": "Minutes5UTC,PriceArea,CO2Emission",
            "sort": f"Minutes5UTC {order}",  # without it the order depends on the dataset
            "limit": str(most),
            **span,
        }
        return self._get(f"/dataset/{dataset}", query)

    def parse(self, reply: Any, now_wall_ns: int, *, estimated: bool) -> list[GridSignal]:
        """A reply's signals.

        Raises:
            GridError: outcome `no_data`, `wrong_zone` or `bad_value`.
        """

        def row(value: Any) -> GridSignal | None:
            fields = as_object(value, "a record")
            if fields.get("PriceArea") != self._area:
                raise failure(
                    Outcome.WRONG_ZONE, f"asked for {self._area}, answered for another area"
                )
            if fields.get("CO2Emission") is None:
                return None
            text = fields.get("Minutes5UTC")
            if isinstance(text, str) and _NAIVE.fullmatch(text):
                text += "Z"
            start_ns = instant_ns(text, "Minutes5UTC")
            return self._signal(
                fields["CO2Emission"],
                start_ns,
                start_ns + FIVE_MINUTES_NS,
                estimated=estimated,
                now_wall_ns=now_wall_ns,
            )

        return good_of(rows_of(reply, "records"), row)
