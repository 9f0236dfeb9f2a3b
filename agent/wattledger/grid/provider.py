"""What the sources that ask an API over HTTP have in common."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any
from urllib.parse import urlencode

from wattledger.errors import ConfigError, GridError
from wattledger.grid.address import check_base_url
from wattledger.grid.checks import as_object, intensity_ug_per_kwh
from wattledger.grid.client import HttpClient
from wattledger.grid.outcome import Outcome, failure
from wattledger.grid.secret import Secret, read_token
from wattledger.model import Basis, GridSignal
from wattledger.units import NS_PER_S

MINUTE_NS = 60 * NS_PER_S
HOUR_NS = 60 * MINUTE_NS
DAY_NS = 24 * HOUR_NS
Secrets = Mapping[str, Secret]
_NOTHING: Mapping[str, Any] = MappingProxyType({})


_NAME = re.compile(r"[A-Za-z0-9]+([_.-][A-Za-z0-9]+)*", re.ASCII)


def is_name(text: str) -> bool:
    """Whether a text may name a zone where a site names its own: a label, and harmless in a URL."""
    return len(text) <= 64 and _NAME.fullmatch(text) is not None


class Provider:
    """An API at a base URL, and the signals of one zone that are made of its replies.

    Args:
        client: the way out.
        url: the API's base as configured; empty: `default_url`.
        default_url: the provider's own; empty: it has none, and the site runs it itself.
        name: the `source` label.
        zone: as its signals name it.
        basis: what its intensities count.
        cadence_ns: how often it publishes.

    Raises:
        ValueError: the url must not be asked.
    """

    def __init__(
        self,
        client: HttpClient,
        *,
        url: str,
        default_url: str,
        name: str,
        zone: str,
        basis: Basis,
        cadence_ns: int,
    ) -> None:
        self.url = (url or default_url).rstrip("/")
        if not self.url:
            raise ValueError("url is missing: there is no public address of this kind of source")
        self.name = name
        self.zone = zone
        self.basis = basis
        self.cadence_ns = cadence_ns
        self._client = client
        self._host = check_base_url(self.url).host
        # Another host than the provider's own is the operator's choice, and may be inside the site.
        self._private = not default_url or self._host != check_base_url(default_url).host

    def _get(self, path: str, query: Mapping[str, Any] = _NOTHING, **secrets: Secrets) -> Any:
        """The JSON at a path below the base; see `HttpClient.get_json`.

        Raises:
            GridError: as the client does.
        """
        return self._client.get_json(
            self._url_of(path, query), allow_hosts={self._host}, private=self._private, **secrets
        )

    def _get_raw(
        self, path: str, query: Mapping[str, Any], accept: str, **secrets: Secrets
    ) -> bytes:
        """The body at a path below the base; see `HttpClient.get`.

        Raises:
            GridError: as the client does.
        """
        return self._client.get(
            self._url_of(path, query),
            allow_hosts={self._host},
            accept=accept,
            private=self._private,
            **secrets,
        )

    def _url_of(self, path: str, query: Mapping[str, Any]) -> str:
        return self.url + path + (f"?{urlencode(query)}" if query else "")

    def _signal(
        self,
        value: Any,
        start_ns: int,
        end_ns: int,
        *,
        estimated: bool,
        now_wall_ns: int,
        ewif_ul_per_kwh: int | None = None,
    ) -> GridSignal:
        """A signal of this source from g/kWh, with its water factor where the mix is known.

        Raises:
            GridError: outcome `bad_value`.
        """
        return GridSignal(
            intensity_ug_per_kwh=intensity_ug_per_kwh(value, self.basis),
            zone=self.zone,
            source=self.name,
            basis=self.basis,
            valid_from_ns=start_ns,
            valid_to_ns=end_ns,
            estimated=estimated,
            fetched_at_ns=now_wall_ns,
            cadence_ns=self.cadence_ns,
            ewif_ul_per_kwh=ewif_ul_per_kwh,
        )


def token_of(path: Any) -> Secret:
    """The token in a file, now.

    Raises:
        GridError: outcome `no_token`.
    """
    try:
        return read_token(path)
    except ConfigError as error:
        raise failure(Outcome.NO_TOKEN, error.faults[0][1]) from None


def rows_of(reply: Any, *keys: str) -> list[Any]:
    """The list that a reply holds under the first of these keys that it has.

    Raises:
        GridError: outcome `no_data` (none, null or empty) or `bad_value` (not a list).
    """
    fields = as_object(reply, "the reply")
    rows = next((fields[key] for key in keys if fields.get(key) is not None), None)
    if rows is None or rows == []:
        raise failure(Outcome.NO_DATA, "the reply holds no data")
    if not isinstance(rows, list):
        raise failure(Outcome.BAD_VALUE, f"{keys[0]} is not a list")
    return rows


def good_of(
    rows: Iterable[Any], parse: Callable[[Any], GridSignal | None], what: str = "the reply"
) -> list[GridSignal]:
    """The signals of those rows that are sound, oldest first, one for each start.

    A row that is null is a gap, and one that is wrong costs itself only: a single bad value of a
    day must not take the source away for a day.

    Raises:
        GridError: no row is sound; what the last one failed at, else outcome `no_data`.
    """
    found: dict[int, GridSignal] = {}
    problem: GridError | None = None
    for row in rows:
        try:
            signal = parse(row)
        except GridError as error:
            problem = error
            continue
        if signal is not None:
            found[signal.valid_from_ns] = signal
    if not found:
        raise problem or failure(Outcome.NO_DATA, f"{what} holds nothing but gaps")
    return [found[start_ns] for start_ns in sorted(found)]


def collect(
    start_ns: int,
    end_ns: int,
    longest_ns: int,
    ask: Callable[[int, int], list[GridSignal]],
) -> list[GridSignal]:
    """What was published for a span, asked for in parts that the provider allows.

    A part without data is a gap.

    Args:
        start_ns: wall clock.
        end_ns: wall clock, exclusive.
        longest_ns: the longest part that one request may ask for.
        ask: one request.

    Raises:
        GridError: a request failed otherwise.
        ValueError: the span is empty.
    """
    found: dict[int, GridSignal] = {}
    for part in _parts(start_ns, end_ns, longest_ns):
        try:
            fresh = ask(*part)
        except GridError as error:
            if error.outcome != Outcome.NO_DATA:
                raise
            continue
        for signal in fresh:
            if signal.valid_from_ns < end_ns and signal.valid_to_ns > start_ns:
                found[signal.valid_from_ns] = signal
    return [found[key] for key in sorted(found)]


def _parts(start_ns: int, end_ns: int, longest_ns: int) -> Iterator[tuple[int, int]]:
    if start_ns >= end_ns:
        raise ValueError("a span ends after it starts")
    for first_ns in range(start_ns, end_ns, longest_ns):
        yield first_ns, min(first_ns + longest_ns, end_ns)


def coming(signals: Iterable[GridSignal], now_wall_ns: int) -> list[GridSignal]:
    """Those of a forecast that are not over yet.

    Raises:
        GridError: outcome `stale`: all of it is past.
    """
    ahead = [signal for signal in signals if signal.valid_to_ns > now_wall_ns]
    if not ahead:
        raise failure(Outcome.STALE, "the whole forecast is past")
    return ahead


def utc(wall_ns: int, form: str = "%Y-%m-%dT%H:%M:%SZ") -> str:
    """An instant as an API wants it written."""
    from datetime import UTC, datetime

    return datetime.fromtimestamp(wall_ns // NS_PER_S, UTC).strftime(form)
