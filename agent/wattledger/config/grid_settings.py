"""The settings of `[grid]` and `[[grid.source]]`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from wattledger.config.setting import DurationNs, FilePath, Url, s_ns, setting


@dataclass(frozen=True, slots=True)
class GridSource:
    """A live source of carbon intensity. The first in the list that answers is used."""

    kind: str = setting(
        "",
        'Which API. Without a key: "neso" (Great Britain), "energy_charts" (Germany, Europe), '
        '"energinet" (DK1, DK2), "rte" (France). With one: "electricity_maps" (the world), '
        '"entsoe" (Europe) and "eia" (United States) from the generation mix, "watttime" '
        "(marginal: it serves the choice of times and never prices the books).",
        '"electricity_maps"',
    )
    zone: str = setting("", "The zone to ask for, where it is not `site.zone`.", '"DE"')
    url: Url = setting(
        Url(""),
        "Another address of the same API. Plain http only to loopback.",
        '"https://api.electricitymaps.com/v3"',
    )
    token_file: FilePath = setting(
        FilePath(""),
        "A file that holds the token or password, readable by the daemon only (chmod 600). The "
        "name of a systemd credential also does: %d/NAME becomes $CREDENTIALS_DIRECTORY/NAME.",
        '"/etc/wattledger/electricity_maps.token"',
    )
    user: str = setting("", "The account's name, where the source logs in (watttime).", '"site"')
    emission_factor_type: Literal["", "lifecycle", "direct"] = setting(
        "",
        'What is asked for where the source offers a choice: "lifecycle" (not set) or "direct".',
        '"lifecycle"',
    )


@dataclass(frozen=True, slots=True)
class GridSettings:
    """How dirty: live sources, then the last good signal, then the packaged country table."""

    max_age: DurationNs = setting(
        s_ns(6 * 3600),
        "How long after its time a signal may still price energy once no source is live; then "
        "the table does.",
    )
    proxy: Url = setting(Url(""), "An HTTP proxy for the sources.", '"http://proxy.local:3128"')
    source: tuple[GridSource, ...] | None = setting(
        None,
        "Live sources, in order of preference, as [[grid.source]] tables. Not set: the keyless "
        "source of the zone where there is one, else the country table; `source = []`: the "
        "table alone. Keyless: `GB` and its parts (neso), `DK1`, `DK2` (energinet), `FR` (rte), "
        "`AT`, `BE`, `CH`, `CZ`, `DE`, `LU`, `NL`, `PL` (energy_charts).",
        "[]",
    )
