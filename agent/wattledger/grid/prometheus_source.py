"""A Prometheus of the site: the intensity of a private contract (PPA), or of a plant of one's own.

    GET {url}/api/v1/query_range?query=ppa_intensity&start=…&end=…&step=900
    {"status":"success","data":{"resultType":"matrix","result":[
        {"metric":{"__name__":"ppa_intensity"},"values":[[1709751600,"12.5"],…]}]}}

Documented at https://prometheus.io/docs/prometheus/latest/querying/api/. The query must give one
series; its value at each step holds until the next. What it counts cannot be seen, so that the
basis has to be stated.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wattledger.grid.checks import as_object
from wattledger.grid.client import HttpClient
from wattledger.grid.outcome import Outcome, failure
from wattledger.grid.provider import Provider, collect, good_of, rows_of, token_of
from wattledger.grid.quantity import UNITS, in_g_per_kwh
from wattledger.grid.secret import Secret
from wattledger.model import Basis, GridSignal
from wattledger.units import NS_PER_S

_STEPS = 4  # that are asked for at a time: a scrape may be late
_LONGEST_STEPS = 2000


class PrometheusSource(Provider):
    """The source `prometheus`.

    Args:
        client: the way out.
        zone: what the site calls the place or the contract; a label.
        url: where Prometheus listens.
        query: in PromQL, for one series.
        basis: what it counts.
        unit: a key of `quantity.UNITS`.
        interval_ns: from one step to the next; whole seconds.
        token_file: where a bearer token lies; None: none is sent.
        name: the `source` label.

    Raises:
        ValueError: the url must not be asked, there is no query, or the unit is not known.
    """

    def __init__(
        self,
        client: HttpClient,
        *,
        zone: str,
        url: str,
        query: str,
        basis: Basis,
        unit: str = "g/kWh",
        interval_ns: int,
        token_file: Path | None = None,
        name: str = "prometheus",
    ) -> None:
        super().__init__(
            client,
            url=url,
            default_url="",
            name=name,
            zone=zone,
            basis=basis,
            cadence_ns=interval_ns,
        )
        if not query:
            raise ValueError("prometheus needs query, such as ppa_intensity_grams_per_kwh")
        if unit not in UNITS:
            raise ValueError(f"unit is one of {', '.join(UNITS)}")
        self._query = query
        self._unit = unit
        self._token_file = token_file

    def latest(self, now_wall_ns: int) -> list[GridSignal]:
        """The last steps. See `Source.latest`."""
        end_ns = now_wall_ns - now_wall_ns % self.cadence_ns
        return self.parse(self._ask(end_ns - (_STEPS - 1) * self.cadence_ns, end_ns), now_wall_ns)

    def between(self, start_ns: int, end_ns: int, now_wall_ns: int) -> list[GridSignal]:
        """What it holds for a span. See `History.between`."""
        step_ns = self.cadence_ns
        return collect(
            start_ns - start_ns % step_ns,
            end_ns,
            _LONGEST_STEPS * step_ns,
            lambda from_ns, to_ns: self.parse(self._ask(from_ns, to_ns - 1), now_wall_ns),
        )

    def _ask(self, first_ns: int, last_ns: int) -> Any:
        query = {
            "query": self._query,
            "start": str(first_ns // NS_PER_S),
            "end": str(last_ns // NS_PER_S),
            "step": str(self.cadence_ns // NS_PER_S),
        }
        secrets: dict[str, Secret] = {}
        if self._token_file is not None:
            bearer = f"Bearer {token_of(self._token_file).reveal()}"
            secrets["Authorization"] = Secret(bearer)
        return self._get("/api/v1/query_range", query, secret_headers=secrets)

    def parse(self, reply: Any, now_wall_ns: int) -> list[GridSignal]:
        """A reply's signals.

        Raises:
            GridError: outcome `no_data` or `bad_value`.
        """
        fields = as_object(reply, "the reply")
        if fields.get("status") != "success":
            raise failure(Outcome.NO_DATA, "the query failed", hint="check the source's query")
        series = rows_of(as_object(fields.get("data"), "data"), "result")
        if len(series) != 1:
            raise failure(
                Outcome.BAD_VALUE,
                f"the query gives {len(series)} series, not one",
                hint="narrow the source's query, or sum it up",
            )

        def signal(value: Any) -> GridSignal:
            if not isinstance(value, list) or len(value) != 2:
                raise failure(Outcome.BAD_VALUE, "a sample is not a time and a value")
            start_ns = _time_ns(value[0])
            return self._signal(
                in_g_per_kwh(value[1], self._unit, texts=True),
                start_ns,
                start_ns + self.cadence_ns,
                estimated=False,
                now_wall_ns=now_wall_ns,
            )

        return good_of(rows_of(as_object(series[0], "a series"), "values"), signal)


def _time_ns(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**33:
        raise failure(Outcome.BAD_VALUE, "a sample has no time")
    return round(value * 1000) * (NS_PER_S // 1000)
