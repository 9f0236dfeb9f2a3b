"""Any JSON document over HTTPS: a site's own meter, or a provider that has no source here yet.

    url = "https://meter.local/now.json"         {"grid":{"co2":[{"at":"2024-03-06T19:00:00Z",
    pointer = "/grid/co2/0/kg"                                     "kg":0.216}]}}
    time_pointer = "/grid/co2/0/at"
    unit = "kg/kWh"

A pointer is RFC 6901's. The time may be an ISO 8601 instant in UTC or seconds since 1970; where
there is none, the value is taken for the present period, and nobody notices a meter that stands
still. What the number counts cannot be seen, so that the basis has to be stated.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wattledger.grid.checks import instant_ns
from wattledger.grid.client import HttpClient
from wattledger.grid.outcome import Outcome, failure
from wattledger.grid.provider import Provider, token_of
from wattledger.grid.quantity import UNITS, in_g_per_kwh
from wattledger.grid.secret import Secret
from wattledger.model import Basis, GridSignal
from wattledger.units import NS_PER_S


class JsonSource(Provider):
    """The source `json`.

    Args:
        client: the way out.
        zone: what the site calls the place; a label.
        url: the document's address; it may have a query.
        pointer: to the intensity.
        basis: what it counts.
        time_pointer: to the start of its period; empty: there is none.
        unit: a key of `quantity.UNITS`.
        interval_ns: how long a value is valid for, and how often there is a new one.
        token_file: where a bearer token lies; None: none is sent.
        name: the `source` label.

    Raises:
        ValueError: the url must not be asked, a pointer is none, or the unit is not known.
    """

    def __init__(
        self,
        client: HttpClient,
        *,
        zone: str,
        url: str,
        pointer: str,
        basis: Basis,
        time_pointer: str = "",
        unit: str = "g/kWh",
        interval_ns: int,
        token_file: Path | None = None,
        name: str = "json",
    ) -> None:
        base, mark, query = url.partition("?")
        super().__init__(
            client,
            url=base,
            default_url="",
            name=name,
            zone=zone,
            basis=basis,
            cadence_ns=interval_ns,
        )
        self._rest = base[len(self.url) :] + mark + query
        if unit not in UNITS:
            raise ValueError(f"unit is one of {', '.join(UNITS)}")
        self._unit = unit
        self._pointer = pointer_of(pointer, "pointer")
        self._time = pointer_of(time_pointer, "time_pointer") if time_pointer else None
        self._token_file = token_file

    def latest(self, now_wall_ns: int) -> list[GridSignal]:
        """The value of now. See `Source.latest`."""
        secrets: dict[str, Secret] = {}
        if self._token_file is not None:
            bearer = f"Bearer {token_of(self._token_file).reveal()}"
            secrets["Authorization"] = Secret(bearer)
        return [self.parse(self._get(self._rest, secret_headers=secrets), now_wall_ns)]

    def parse(self, reply: Any, now_wall_ns: int) -> GridSignal:
        """A document's signal.

        Raises:
            GridError: outcome `no_data` or `bad_value`.
        """
        value = found(reply, self._pointer)
        if value is None:
            raise failure(
                Outcome.NO_DATA, "there is nothing at pointer", hint="check the source's pointer"
            )
        if self._time is None:
            start_ns = now_wall_ns - now_wall_ns % self.cadence_ns
        else:
            start_ns = _time_ns(found(reply, self._time))
        return self._signal(
            in_g_per_kwh(value, self._unit, texts=True),
            start_ns,
            start_ns + self.cadence_ns,
            estimated=False,
            now_wall_ns=now_wall_ns,
        )


def pointer_of(text: str, key: str) -> tuple[str, ...]:
    """The steps of a JSON pointer (RFC 6901).

    Raises:
        ValueError: it is none.
    """
    if not text.startswith("/") or len(text) > 1000:
        raise ValueError(f'{key} is missing or no JSON pointer; write one such as "/data/0/value"')
    return tuple(step.replace("~1", "/").replace("~0", "~") for step in text[1:].split("/"))


def found(document: Any, steps: tuple[str, ...]) -> Any:
    """What a pointer leads to; None: nothing."""
    for step in steps:
        if isinstance(document, dict):
            document = document.get(step)
        elif isinstance(document, list) and step.isascii() and step.isdigit() and len(step) < 7:
            document = document[int(step)] if int(step) < len(document) else None
        else:
            return None
    return document


def _time_ns(value: Any) -> int:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**33:
        return int(value) * NS_PER_S
    return instant_ns(value, "what time_pointer leads to")
