"""The settings of `[grid]` and `[[grid.source]]`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from wattledger.setting import DurationNs, FilePath, SourceUrl, Url, s_ns, setting


@dataclass(frozen=True, slots=True)
class GridSource:
    """A live source of carbon intensity. The first in the list that answers is used."""

    kind: str = setting(
        "",
        'Which API. Without a key: "neso" (Great Britain), "energy_charts" (Germany, Europe), '
        '"energinet" (DK1, DK2), "rte" (France). With one: "electricity_maps" (the world), '
        '"entsoe" (Europe) and "eia" (United States) from the generation mix, "watttime" '
        "(marginal: it serves the choice of times and never prices the books). Of a site itself: "
        '"carbon_aware" (the Carbon Aware SDK), "json" (any document), "csv" and "prometheus"; '
        '"wattledger" (a relay, `wattledger grid serve`, of any of these).',
        '"electricity_maps"',
    )
    zone: str = setting("", "The zone to ask for, where it is not `site.zone`.", '"DE"')
    url: SourceUrl = setting(
        SourceUrl(""),
        "Another address of the same API; of a site's own source its address. Plain http only to "
        "loopback.",
        '"https://api.electricitymaps.com/v3"',
    )
    token_file: FilePath = setting(
        FilePath(""),
        "A file that holds the token or password, readable by the daemon only (chmod 600). The "
        "name of a systemd credential also does: %d/NAME becomes $CREDENTIALS_DIRECTORY/NAME.",
        '"/etc/wattledger/electricity_maps.token"',
    )
    user: str = setting(
        "",
        "The account's name, where the source logs in (watttime; wattledger, where it is not "
        '"wattledger").',
        '"site"',
    )
    emission_factor_type: Literal["", "lifecycle", "direct", "generation", "marginal"] = setting(
        "",
        "What the intensities count. Asked for where the source offers a choice (electricity_maps: "
        '"lifecycle", as if not set, or "direct"; wattledger: any, as if not set, or one only); to '
        "be stated where the source cannot know it (carbon_aware, json, csv, prometheus).",
        '"lifecycle"',
    )
    pointer: str = setting(
        "", "JSON pointer (RFC 6901) to the intensity (json).", '"/data/0/value"'
    )
    time_pointer: str = setting(
        "",
        "JSON pointer to the start of its period, an instant in UTC or seconds since 1970 (json). "
        "Not set: the value is of now.",
        '"/data/0/from"',
    )
    unit: Literal["g/kWh", "kg/kWh", "kg/MWh", "t/MWh", "lb/MWh"] = setting(
        "g/kWh", "What the intensity is written in (json, csv, prometheus)."
    )
    interval: DurationNs = setting(
        s_ns(900),
        "How often there is a new value, and how long one is valid for where the source does not "
        "say (json, csv, prometheus).",
        '"15m"',
    )
    file: FilePath = setting(
        FilePath(""),
        "A file with the columns start, end and value, instants in UTC (csv).",
        '"/etc/wattledger/ppa.csv"',
    )
    query: str = setting(
        "",
        "PromQL for one series (prometheus).",
        '"ppa_intensity_grams_per_kwh"',
    )


@dataclass(frozen=True, slots=True)
class GridSettings:
    """How dirty: live sources, then the last good signal, then the packaged country table."""

    max_age: DurationNs = setting(
        s_ns(6 * 3600),
        "How long after its time a signal may still price energy once no source is live; then "
        "the table does. Weather and a live PUE hold as long, then the site's settings.",
    )
    settle_window: DurationNs = setting(
        s_ns(45 * 86_400),
        "How far back the books are settled: once a day the sources' published history is "
        "compared with what was booked, and stands beside it. 0s: never.",
        '"45d"',
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
