"""What the daemon says when it is ready: what it measures with, how good that is, where to look."""

from __future__ import annotations

from collections import Counter

from wattledger.grid.live_pue import NAME as LIVE_PUE
from wattledger.model import DeviceInfo, FallbackLevel, MeterStatus, Quality, Snapshot
from wattledger.model.embodied import grams_per_hour
from wattledger.units import PPM, grams, kwh, liters

_GOODNESS = {
    Quality.METERED: "metered by its energy counter",
    Quality.INTEGRATED: "integrated from measured power",
    Quality.ESTIMATED: "ESTIMATED",
    Quality.RECOVERED: "metered by its energy counter",
}
_METERS = {
    "nvml": "NVML",
    "rapl": "RAPL",
    "hwmon": "ACPI power meter",
    "estimate": "from utilisation",
    "constant": "a constant from the settings",
}
_LEVELS = {
    FallbackLevel.LIVE: "live",
    FallbackLevel.LAST_GOOD: "last good signal",
    FallbackLevel.TABLE: "yearly mean of the country table",
}


def banner(snapshot: Snapshot, address: str, socket_option: str = "") -> str:
    """A few lines for the terminal or the journal.

    Args:
        snapshot: the first one after the start.
        address: the base URL of the HTTP endpoint.
        socket_option: what the commands need to find this daemon, where it is not the default.
    """
    lines = [f"wattledger {snapshot.version} keeps the books of this node"]
    lines += _device_lines(snapshot)
    choice, site = snapshot.grid, snapshot.site
    signal = choice.signal
    lines.append(
        f"  grid   {signal.zone} {grams(signal.intensity_ug_per_kwh):.0f} gCO2e/kWh "
        f"({signal.basis}), {_LEVELS[choice.level]}"
    )
    # Whoever tells a factor is seldom heard when this is said: a figure that is about to change.
    telling = {status.source for status in snapshot.site_sources}
    pue_soon = _soon("live", site.pue_source, LIVE_PUE in telling)
    wue_soon = _soon("weather", site.wue_source, bool(telling - {LIVE_PUE}))
    lines.append(
        f"  site   PUE {site.pue_ppm / PPM:g} ({site.pue_source}{pue_soon}), "
        f"WUE {liters(site.wue_ul_per_kwh):g} L/kWh ({site.wue_source}{wue_soon}), "
        f"EWIF {liters(site.ewif_ul_per_kwh):g} L/kWh ({site.ewif_source})"
    )
    lines += _beside(snapshot)
    booked = sum(total.amounts.energy_uj for total in snapshot.books.totals.values())
    lines.append(
        f"  books  {snapshot.ledger.path} ({snapshot.ledger.storage}), {kwh(booked):.3f} kWh so far"
    )
    if snapshot.simulated:
        lines.append(f"  NOTE   the GPUs are simulated: {snapshot.simulated}")
    lines += [f"  NOTE   {_sentence(status)}" for status in snapshot.meters if not status.up]
    if any(r.info.meter == "estimate" and r.info.present for r in snapshot.books.devices.values()):
        lines.append(
            "  NOTE   no meter of the CPU answers, so it is estimated; "
            "`wattledger doctor` says why and what to do"
        )
    if not any(status.up for status in snapshot.meters):
        lines.append("  NOTE   no meter answers yet; they are tried again")
    lines.append(f"  look   {address}/   {address}/metrics")
    commands = (f"wattledger {command}{socket_option}" for command in ("report", "doctor"))
    lines.append(f"  ask    {'   '.join(commands)}")
    return "\n".join(lines)


def _soon(source: str, now: str, asked: bool) -> str:
    """What will hold in the place of what holds now, where somebody is asked who tells it."""
    return f'; "{source}" will hold once it is known' if asked and now != source else ""


def _beside(snapshot: Snapshot) -> list[str]:
    """Money, contracts and hardware, where something is known of them."""
    site, rates = snapshot.site, snapshot.embodied
    known = []
    if site.price_per_kwh is not None:
        known.append(f"{site.price_per_kwh:g} {site.currency}/kWh")
    market_ug = site.market_beside(snapshot.grid.signal)
    if market_ug is not None:
        known.append(f"{grams(market_ug):.0f} gCO2e/kWh by contracts")
    embodied = sum(rates.gpus.values()) + (rates.host or 0)
    if embodied:
        what = " and ".join({"gpu": "GPUs", "host": "host"}[name] for name in rates.sources)
        of = ", ".join(sorted(set(rates.sources.values())))
        known.append(f"embodied {grams_per_hour(embodied):.3g} gCO2e/h of {what} ({of})")
    return [f"  beside {', '.join(known)}"] if known else []


def _device_lines(snapshot: Snapshot) -> list[str]:
    groups: dict[tuple[str, str, str, str], list[DeviceInfo]] = {}
    for name, record in snapshot.books.devices.items():
        info = record.info
        if info.present:
            goodness = "read for the first time"
            if name in snapshot.quality:
                goodness = _GOODNESS[snapshot.quality[name]]
            groups.setdefault((info.kind, info.model, info.meter, goodness), []).append(info)
    lines = []
    for (kind, model, meter, goodness), members in sorted(groups.items()):
        what = f"{len(members)} × {model}" if model else ", ".join(info.name for info in members)
        lines.append(f"  {kind:<6} {what}: {goodness} ({_METERS.get(meter, meter)})")
    gone = Counter(r.info.kind for r in snapshot.books.devices.values() if not r.info.present)
    lines += [
        f"  {kind:<6} {count} known from before, not here now" for kind, count in gone.items()
    ]
    return lines


def _sentence(status: MeterStatus) -> str:
    hint = f": {status.hint}" if status.hint else ""
    return f"{status.meter} does not answer: {status.message}{hint}"
