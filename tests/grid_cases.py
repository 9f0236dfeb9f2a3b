"""Every kind of grid source with a reply to be spoilt: what `test_grid_hostile` is made of."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import grid_bodies as bodies
import grid_server as play
from fakes import FakeClock
from grid_server import Script
from wattledger.config import parse_config
from wattledger.config.check import source_configs, table_zone
from wattledger.grid.client import HttpClient
from wattledger.grid.feed import Feed
from wattledger.grid.kinds import build_sources
from wattledger.grid.table import CountryTable
from wattledger.model import Basis
from wattledger.units import NS_PER_S

CANARY = "canary-77e1"
V = "@value@"  # where a reply says its intensity
JAN, MAR, SEP, OCT = 1_516_451_400, 1_709_751_660, 1_662_497_160, 1_728_410_460
STATED = 'emission_factor_type = "direct"\n'
NO_ECHO = {
    "neso GB": "`/intensity` is of Great Britain only and names no zone",
    "energy_charts DE": "its reply names no country",
    "rte FR": "it knows one country and its rows, as selected, name none",
    "carbon_aware eastus": "it names the zone of its provider, which is another name by design",
    "json plant": "a site's own document, which names what it likes",
    "csv ppa": "a site's own file, which names no zone",
    "prometheus ppa": "a site's own query, which says which series",
}
"""Sources whose reply cannot be told from that for another zone, and why."""


class Case(NamedTuple):
    """A source, and a good reply of it.

    Attributes:
        kind: of source.
        zone: as configured.
        reply: JSON data, or text as it is sent; `V` where the intensity stands.
        now_s: Unix time at which it is fresh.
        basis: of its signals.
        good: a value for `V`.
        grams: what it means, g/kWh.
        estimated: as it is shown.
        more: further lines of its settings.
        elsewhere: a reply for another zone; None: see `NO_ECHO`.
        revised: a reply for the same time with another intensity, and that, g/kWh; None: `V`.
        past: a reply about the same time's past, where it has another shape.
        texts: its values are texts.
    """

    kind: str
    zone: str
    reply: Any
    now_s: int
    basis: Basis
    good: str
    grams: float
    estimated: bool = False
    more: str = ""
    elsewhere: Any = None
    revised: tuple[Any, float] | None = None
    past: Any = None
    texts: bool = False

    def __str__(self) -> str:
        return f"{self.kind} {self.zone}"

    def body(self, value: str, reply: Any = None) -> bytes:
        """The reply as it is sent, with a literal for its value."""
        told = self.reply if reply is None else reply
        text = told if isinstance(told, str) else json.dumps(told)
        if not isinstance(told, str) and not self.texts:
            text = text.replace(f'"{V}"', V)
        return text.replace(V, value).encode()


def _entsoe(code: str, *, area: str = "10Y1001A1001A83F") -> str:
    series = bodies.entsoe_series(code, {1: V, 2: V}, area=area)
    return bodies.entsoe(series).decode()


def _json(time: str = "2024-03-06T19:00:00Z") -> dict[str, Any]:
    return {"meter": {"at": time, "value": V}}


CSV = f"start,end,value\n2024-03-06T19:00:00Z,2024-03-06T20:00:00Z,{V}\n"
CASES = [
    Case(
        *("neso", "GB", play.neso_body(actual=V, forecast=V), JAN),
        *(Basis.GENERATION, "263", 263, True),
    ),
    Case(
        *("neso", "GB-13", bodies.neso_region(V), JAN - 600, Basis.GENERATION, "266", 266, True),
        elsewhere=bodies.neso_region(V, regionid=12),
    ),
    Case(
        *("electricity_maps", "US-CAR-DUK", play.electricity_maps_body(carbonIntensity=V), MAR),
        *(Basis.LIFECYCLE, "216", 216, True),
        elsewhere=play.electricity_maps_body(carbonIntensity=V, zone="DE"),
        past=bodies.electricity_maps_series("history", None, V),
    ),
    Case(
        *("energy_charts", "DE", bodies.energy_charts([V], []), MAR),
        *(Basis.LIFECYCLE, "491.5", 491.5),
    ),
    Case(
        *("energinet", "DK1", bodies.energinet(V), MAR, Basis.GENERATION, "121", 121),
        elsewhere=bodies.energinet(V, area="DK2"),
    ),
    Case(
        *("rte", "FR", {"results": bodies.rte(V)}, OCT, Basis.DIRECT, "34", 34, True),
        past=bodies.rte(V),
    ),
    Case(
        *("entsoe", "DE", _entsoe("B05"), MAR, Basis.LIFECYCLE, "5", 820, True),
        elsewhere=_entsoe("B05", area="10YFR-RTE------C"),
        revised=(_entsoe("B04"), 490),
    ),
    Case(
        *("eia", "US-CISO", bodies.eia({"NG": V}), MAR - 60, Basis.LIFECYCLE, "5", 490, True),
        elsewhere=bodies.eia({"NG": V}, respondent="PJM"),
        revised=(bodies.eia({"COL": V}), 820),
    ),
    Case(
        *("carbon_aware", "eastus", bodies.carbon_aware(V), SEP, Basis.DIRECT, "70", 70, False),
        STATED,
    ),
    Case(
        *("json", "plant", _json(), MAR, Basis.DIRECT, "55", 55, False),
        STATED + 'pointer = "/meter/value"\ntime_pointer = "/meter/at"\n',
    ),
    Case(*("csv", "ppa", CSV, MAR, Basis.DIRECT, "12.5", 12.5, False), STATED),
    Case(
        *("prometheus", "ppa", bodies.prometheus((MAR - 60, V)), MAR),
        *(Basis.DIRECT, "12.5", 12.5, False, STATED + 'query = "ppa"\n'),
        texts=True,
    ),
]
ASKED = [case for case in CASES if case.kind != "csv"]
"""Those that ask a server; csv reads a file."""


TRANSPORT: dict[str, tuple[Callable[[], Script], str]] = {
    "401-with-a-valid-token": (lambda: play.reply(401), "http_401"),
    "403": (lambda: play.reply(403), "http_403"),
    "404": (lambda: play.reply(404), "http_404"),
    "429": (lambda: play.reply(429, headers={"Retry-After": "7"}), "http_429"),
    "500": (lambda: play.reply(500), "http_5xx"),
    "503": (lambda: play.reply(503), "http_5xx"),
    "204": (lambda: play.reply(204), "no_data"),
    "drip-in-the-head": (play.drip_header, "timeout"),
    "drip-in-the-body": (play.drip_body, "timeout"),
    "nothing-at-all": (play.silent, "timeout"),
    "10-MB": (lambda: play.big_body(10_000_000), "too_large"),
    "10-MB-in-chunks": (lambda: play.big_body(10_000_000, declared=False), "too_large"),
    "gzip-bomb": (lambda: play.gzip_bomb(10_000_000), "bad_encoding"),
    "redirect-to-another-host": (
        lambda: play.reply(302, headers={"Location": "http://127.0.0.1:9/"}),
        "redirect",
    ),
    "reset": (play.reset, "connect_error"),
    "not-http": (lambda: play.raw(b"SSH-2.0-OpenSSH_9.2\r\n"), "connect_error"),
}
"""Fault → a script of it, and what it is counted as."""
VALUES = {
    "null": "null",
    "-1": "-1",
    "NaN": "NaN",
    "1e999": "1e999",
    "text": "sorry",
    "too-much": "99999999999",
}
"""Fault → what stands where an intensity should."""


def token(home: Path) -> Path:
    path = home / "token"
    path.write_text(CANARY + "\n")
    path.chmod(0o600)
    return path


def source_text(case: Case, where: str, home: Path) -> str:
    """The settings that name it; `where` is a URL, of csv a file."""
    key = "file" if case.kind == "csv" else "url"
    text = f'[[grid.source]]\nkind = "{case.kind}"\nzone = "{case.zone}"\n{key} = "{where}"\n'
    if case.kind in ("electricity_maps", "entsoe", "eia"):
        text += f'token_file = "{token(home)}"\n'
    return text + case.more


def fed(
    case: Case, where: str, home: Path, *, now_s: int | None = None, deadline_s: float = 10.0
) -> tuple[Feed, FakeClock]:
    """The feed of a configuration that names the source, at its time."""
    config = parse_config(source_text(case, where, home))
    clock = FakeClock((case.now_s if now_s is None else now_s) * NS_PER_S)
    sources = build_sources(source_configs(config), HttpClient(deadline_s=deadline_s))
    table = CountryTable.load().signal(table_zone(config))
    return Feed(sources, table, clock, max_age_ns=int(config.grid.max_age)), clock
