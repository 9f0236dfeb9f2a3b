"""Where the node stands: what each kWh costs the world and the people who pay for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from wattledger.setting import (
    Cycles,
    DurationNs,
    FilePath,
    GramsPerKwh,
    InstantNs,
    Latitude,
    LitersPerKwh,
    Longitude,
    Price,
    Pue,
    Share,
    SourceUrl,
    StressFactor,
    Url,
    Zone,
    s_ns,
    setting,
)

DEFAULT_PUE = 1.56  # Uptime Institute, Global Data Center Survey 2024: mean
DEFAULT_WUE_L_PER_KWH = 0.36  # LBNL, 2024 US Data Center Energy Usage Report, for 2023


@dataclass(frozen=True, slots=True)
class WeatherSettings:
    """The water of evaporative cooling by the weather; off until a place is given."""

    kind: Literal["open_meteo"] = setting(
        "open_meteo",
        'Whose weather: "open_meteo", without a key for non-commercial use only; its data are '
        "under CC BY 4.0 and want to be credited.",
    )
    latitude: Latitude | None = setting(
        None,
        "Degrees north. With `longitude`: the WUE follows the wet-bulb temperature there, as a "
        "cooling tower does, and `site.wue_l_per_kwh` holds only while no weather is known (for "
        "longer than `grid.max_age`), in air drier than 5 % and above 50 °C. Only for sites that "
        "are cooled by evaporation: mild weather gives several times the mean of fleets. Each node "
        "asks 96 times a day.",
        "52.52",
    )
    longitude: Longitude | None = setting(None, "Degrees east.", "13.41")
    url: Url = setting(
        Url(""),
        "Another address of the same API, such as a server of one's own or the one for customers. "
        "Plain http only to loopback.",
        '"https://customer-api.open-meteo.com/v1"',
    )
    token_file: FilePath = setting(
        FilePath(""), "A file that holds a customer's key.", '"/etc/wattledger/open_meteo.token"'
    )
    cycles_of_concentration: Cycles = setting(
        Cycles(6.0), "How often the towers' water goes round before it is let off: 3 to 10."
    )
    least_wue_l_per_kwh: LitersPerKwh = setting(
        LitersPerKwh(0.05), "The WUE in the cold, when nothing has to evaporate."
    )


@dataclass(frozen=True, slots=True)
class LivePueSettings:
    """A PUE that is measured; off until a kind is given."""

    kind: Literal["", "json", "prometheus", "csv"] = setting(
        "",
        "Where it is told, as in [[grid.source]]: any JSON document, a Prometheus, or a file. "
        "`site.pue` holds while no value from 1 to 5 is known, for longer than `grid.max_age`.",
        '"prometheus"',
    )
    url: SourceUrl = setting(
        SourceUrl(""),
        "The document's address, or the Prometheus'. Plain http only to loopback.",
        '"https://dcim.local/pue.json"',
    )
    pointer: str = setting("", "JSON pointer (RFC 6901) to the PUE (json).", '"/pue"')
    time_pointer: str = setting(
        "",
        "JSON pointer to its time, an instant in UTC or seconds since 1970 (json). Not set: the "
        "value is of now.",
        '"/at"',
    )
    query: str = setting("", "PromQL for one series (prometheus).", '"site_pue_ratio"')
    file: FilePath = setting(
        FilePath(""),
        "A file with the columns start, end and value, instants in UTC (csv).",
        '"/etc/wattledger/pue.csv"',
    )
    interval: DurationNs = setting(
        s_ns(900),
        "How often there is a new value, and how long one holds where the source does not say.",
    )
    token_file: FilePath = setting(
        FilePath(""),
        "A file that holds a bearer token (json, prometheus).",
        '"/etc/wattledger/dcim.token"',
    )


@dataclass(frozen=True, slots=True)
class ContractSettings:
    """A contract for a part of the site's energy."""

    name: str = setting("", "For people.", '"wind park"')
    share: Share = setting(Share(1.0), "Of the facility's energy, 0 to 1.")
    intensity: GramsPerKwh = setting(GramsPerKwh(0.0), "gCO2e per kWh that it stands for.")
    since: InstantNs | None = setting(
        None, "From when on it holds. Not set: ever since.", "2026-01-01T00:00:00Z"
    )
    until: InstantNs | None = setting(
        None, "Until when, exclusive. Not set: for good.", "2027-01-01T00:00:00Z"
    )


@dataclass(frozen=True, slots=True)
class Site:
    """Where the node stands: what each kWh of IT energy costs the world."""

    zone: Zone = setting(
        Zone("WORLD"),
        "Grid zone: a country code of the packaged table (`DE`, `GB`, `US`), or a zone of a grid "
        "source below (`US-CAR-DUK`). Never guessed from an address. `WORLD` is the world's mean.",
    )
    pue: Pue | None = setting(
        None,
        "Power usage effectiveness: facility energy over IT energy. Not set: "
        f"{DEFAULT_PUE}, the mean of the Uptime Institute's survey of 2024, exported as "
        'source="default".',
        "1.2",
    )
    wue_l_per_kwh: LitersPerKwh | None = setting(
        None,
        "Water usage effectiveness: litres evaporated on site per kWh of IT energy. Not set: "
        f"{DEFAULT_WUE_L_PER_KWH}, the US mean of 2023 (LBNL).",
        "0.2",
    )
    ewif_l_per_kwh: LitersPerKwh | None = setting(
        None,
        "Litres of water that the grid consumed per kWh of facility energy. Not set: of the "
        "generation mix where the grid's source tells it (entsoe, eia), else the zone's value of "
        "the packaged table (WRI 2020), else the world's.",
        "2.3",
    )
    price_per_kwh: Price | None = setting(
        None,
        "What a kWh of facility energy costs, in `currency`; receipts and `waste` then show money. "
        "Not set: they do not.",
        "0.25",
    )
    currency: str = setting(
        "EUR", "The currency of `price_per_kwh`, for people; 16 characters at most."
    )
    market_intensity: GramsPerKwh | None = setting(
        None,
        "gCO2e per kWh of the residual mix: what the site's contracts leave. With it or with a "
        "contract, CO2e is also told by the market-based method (GHG Protocol, Scope 2), beside "
        "the location-based figure and never instead. Not set, but contracts: the location-based "
        "intensity of the time.",
        "410",
    )
    contract: tuple[ContractSettings, ...] | None = setting(
        None,
        "Contracts for a part of the energy, as [[site.contract]] tables: PPAs, tariffs, "
        "certificates. The shares of those that hold at a time are 1 at most.",
        "[]",
    )
    water_stress_factor: StressFactor | None = setting(
        None,
        "How scarce water is where the site draws it: the AWARE characterisation factor of its "
        "watershed (wulca-waterlca.org; m³ world-eq per m³, the world's mean is 1). On-site "
        "litres are then also told weighted, beside the litres. Not set: they are not.",
        "1.8",
    )
    weather: WeatherSettings = setting(WeatherSettings, "")
    live_pue: LivePueSettings = setting(LivePueSettings, "")
