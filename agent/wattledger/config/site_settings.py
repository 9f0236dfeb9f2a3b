"""Where the node stands: what each kWh costs the world and the people who pay for it."""

from __future__ import annotations

from dataclasses import dataclass

from wattledger.config.setting import LitersPerKwh, Price, Pue, Zone, setting

DEFAULT_PUE = 1.56  # Uptime Institute, Global Data Center Survey 2024: mean
DEFAULT_WUE_L_PER_KWH = 0.36  # LBNL, 2024 US Data Center Energy Usage Report, for 2023


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
        "Litres of water that the grid consumed per kWh of facility energy. Not set: the zone's "
        "value of the packaged table (WRI 2020), else the world's.",
        "2.3",
    )
    price_per_kwh: Price | None = setting(
        None,
        "What a kWh of facility energy costs, in `currency`; receipts and `waste` then show money. "
        "Not set: they do not.",
        "0.25",
    )
    currency: str = setting("EUR", "The currency of `price_per_kwh`, for people.")
