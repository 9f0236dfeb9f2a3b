"""France: éCO2mix of RTE, by way of ODRÉ, the open data of the French networks. No key.

    GET https://odre.opendatasoft.com/api/explore/v2.1/catalog/datasets/eco2mix-national-tr/records
        ?select=date_heure,taux_co2&where=taux_co2 is not null&order_by=date_heure desc&limit=8
    {"total_count":n,"results":[{"date_heure":"2024-10-08T18:00:00+00:00","taux_co2":34},…]}

    GET …/datasets/eco2mix-national-tr/exports/json?…     the same rows, as many as there are: […]
    GET …/datasets/eco2mix-national-cons-def/exports/json the consolidated and the final values

Described at https://www.rte-france.com/eco2mix: g of CO2 per kWh generated in France, from the
burning of fuels only, without imports. An estimate at first; consolidated in the month after,
final in the first half of the next year. The real-time table is refreshed every hour and holds
quarter hours, those to come with null; the other one half hours.
"""

from __future__ import annotations

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
    good_of,
    rows_of,
    utc,
)
from wattledger.model import Basis, GridSignal

HOST = "odre.opendatasoft.com"
URL = f"https://{HOST}/api/explore/v2.1/catalog/datasets"
ZONE = "FR"
QUARTER_NS = 15 * MINUTE_NS
REAL_TIME = "eco2mix-national-tr"
FINAL = "eco2mix-national-cons-def"
_LATEST_ROWS = 8
_LONGEST_NS = 20 * DAY_NS
_COLUMNS = "date_heure,taux_co2"


def is_zone(text: str) -> bool:
    """Whether it is France, the only zone it knows."""
    return text == ZONE


class Rte(Provider):
    """The source `rte`.

    Args:
        client: the way out.
        zone: `FR`.
        url: the API's base, with its path to the datasets; default ODRÉ's own.
        name: the `source` label.

    Raises:
        ValueError: the url must not be asked, or the zone is another.
    """

    def __init__(
        self, client: HttpClient, *, zone: str = ZONE, url: str = "", name: str = "rte"
    ) -> None:
        if zone != ZONE:
            raise ValueError(f"rte knows zone {ZONE} only")
        super().__init__(
            client,
            url=url,
            default_url=URL,
            name=name,
            zone=zone,
            basis=Basis.DIRECT,
            cadence_ns=HOUR_NS,
        )

    def latest(self, now_wall_ns: int) -> list[GridSignal]:
        """The last two hours that are known. See `Source.latest`."""
        query = {
            "select": _COLUMNS,
            "where": "taux_co2 is not null",
            "order_by": "date_heure desc",
            "limit": str(_LATEST_ROWS),
        }
        reply = self._get(f"/{REAL_TIME}/records", query)
        return self.parse(rows_of(reply, "results"), now_wall_ns)

    def between(self, start_ns: int, end_ns: int, now_wall_ns: int) -> list[GridSignal]:
        """What is published for a span: the final values where there are some. See `History`."""

        def ask(dataset: str, *, final: bool) -> list[GridSignal]:
            return collect(
                start_ns,
                end_ns,
                _LONGEST_NS,
                lambda from_ns, to_ns: self.parse(
                    self._export(dataset, from_ns, to_ns), now_wall_ns, final=final
                ),
            )

        final = ask(FINAL, final=True)
        until_ns = final[-1].valid_to_ns if final else start_ns
        later = [s for s in ask(REAL_TIME, final=False) if s.valid_from_ns >= until_ns]
        return final + later

    def _export(self, dataset: str, start_ns: int, end_ns: int) -> Any:
        # A half hour that began before the span reaches into it.
        query = {
            "select": _COLUMNS,
            "where": f"taux_co2 is not null and date_heure > date'{utc(start_ns - 2 * QUARTER_NS)}'"
            f" and date_heure < date'{utc(end_ns)}'",
            "order_by": "date_heure",
            "limit": "-1",
        }
        return self._get(f"/{dataset}/exports/json", query)

    def parse(self, rows: Any, now_wall_ns: int, *, final: bool = False) -> list[GridSignal]:
        """The signals of a list of rows.

        Raises:
            GridError: outcome `no_data` or `bad_value`.
        """
        period_ns = 2 * QUARTER_NS if final else QUARTER_NS

        def row(value: Any) -> GridSignal | None:
            fields = as_object(value, "a row")
            if fields.get("taux_co2") is None:
                return None
            start_ns = instant_ns(fields.get("date_heure"), "date_heure")
            if start_ns % period_ns:
                raise failure(Outcome.BAD_VALUE, "the period does not begin where one does")
            return self._signal(
                fields["taux_co2"],
                start_ns,
                start_ns + period_ns,
                estimated=not final,
                now_wall_ns=now_wall_ns,
            )

        return good_of(rows_of({"rows": rows}, "rows"), row)
