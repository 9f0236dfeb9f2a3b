"""What a running daemon says of itself: it has the rights and the settings that count."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from wattledger.doctor.finding import ESTIMATED_HINT, Finding, Level
from wattledger.grid.feed import MARGINAL
from wattledger.meters import rapl
from wattledger.model import FallbackLevel

_QUALITIES: Mapping[str, tuple[Level, str]] = {
    "metered": ("ok", "metered by its energy counter"),
    "integrated": ("note", "no energy counter; integrated from measured power"),
    "estimated": ("problem", "estimated, ±50 %"),
}


def of_process(status: Mapping[str, Any]) -> Iterator[Finding]:
    """Which one it is, and whether it keeps up."""
    yield Finding(
        "daemon",
        "ok",
        f"version {status['version']} runs since {status['started']}, "
        f"its books are complete up to {status['books_complete_until']}",
    )
    for meter in status["meters"]:
        if meter["missed_ticks"]:
            yield Finding(
                "daemon",
                "note",
                f"meter {meter['meter']} missed {meter['missed_ticks']} turns",
                "counters lose nothing by it; a busy node or a slow driver call is the cause",
            )


def of_meters(status: Mapping[str, Any], sysfs: Path) -> Iterator[Finding]:
    """How the daemon meters each device, and which of its meters do not answer."""
    released = status["released_until"]
    for meter in status["meters"]:
        if not meter["up"]:
            on_request = bool(released) and meter["meter"] == "nvml"
            yield Finding(
                "meter",
                "note" if on_request else "problem",
                f"{meter['meter']} does not answer: {meter['message']}",
                meter["hint"] or "",
            )
    simulated = "simulated, " if status["simulated"] else ""
    for device in status["devices"]:
        if not device["present"]:
            yield Finding("meter", "note", f"{device['device']} is known but not here now")
            continue
        level, how = _QUALITIES.get(device["quality"], ("note", "not read yet"))
        if device["meter"] == "constant":
            level = "note"  # as it was configured
        made = simulated if device["kind"] == "gpu" else ""
        model = f" ({device['model']})" if device["model"] else ""
        yield Finding(
            "meter",
            level,
            f"{device['device']}{model}: {made}{how}, by {device['meter']}",
            ESTIMATED_HINT if level == "problem" else "",
        )
    if any(device["meter"] == "estimate" for device in status["devices"]) and not any(
        zone.device for zone in rapl.survey(sysfs)
    ):
        absent = rapl.unavailable(sysfs, [])
        yield Finding("meter", "note", absent.message, absent.hint)
    if not any(device["present"] for device in status["devices"]):
        yield Finding("meter", "problem", "nothing is metered", ESTIMATED_HINT)


def of_exporters(status: Mapping[str, Any]) -> Iterator[Finding]:
    """Which exporters deliver, and which do not."""
    for exporter in status.get("exporters", ()):  # none is told of by an older daemon
        name, waiting = exporter["exporter"], exporter["runs_waiting"]
        if not exporter["up"]:
            left = f"; {waiting} ended runs wait for it" if waiting else ""
            said = f"{name} does not deliver: {exporter['message']}{left}"
            yield Finding("exporter", "problem", said, exporter["hint"] or "")
        elif name != "prometheus":
            yield Finding("exporter", "ok", f"{name} delivers, last at {exporter['last_success']}")
        if exporter["runs_refused"]:
            yield Finding(
                "exporter",
                "note",
                f"{name}: the receiver refuses the records of {exporter['runs_refused']} runs",
                "they are kept and tried again daily; its log says why it refuses them",
            )


def of_grid(status: Mapping[str, Any]) -> Iterator[Finding]:
    """What it prices with, and how its sources do."""
    grid = status["grid"]
    marginal = [source for source in status["grid_sources"] if source["message"] == MARGINAL[0]]
    sources = [source for source in status["grid_sources"] if source not in marginal]
    # The table alone, as configured, is no fault; a table that stands in for a source is.
    level: Level = "problem" if sources else "note"
    source = f"{grid['source']} " if grid["level"] < FallbackLevel.TABLE else ""  # its level's name
    yield Finding(
        "grid",
        "ok" if grid["level"] == 0 else level,
        f"priced with {source}{grid['zone']} {grid['intensity_g_per_kwh']:.0f} g/kWh "
        f"({grid['basis']}), {grid['level_name']}, its time began {_age(grid['age_s'])} ago",
        "" if sources else "set site.zone to your grid and name a source in [[grid.source]]",
    )
    for source in sources:
        if source["message"]:
            yield Finding(
                "grid", "problem", f"{source['source']}: {source['message']}", source["hint"] or ""
            )
    for source in marginal:
        yield Finding("grid", "note", f"{source['source']}: {MARGINAL[0]}", MARGINAL[1])


def _age(age_s: int) -> str:
    days, minutes = divmod(int(age_s) // 60, 1440)
    return f"{days} days" if days else f"{minutes} min"


def of_claims(status: Mapping[str, Any]) -> Iterator[Finding]:
    """Whose word on who holds which GPU is not believed, and why."""
    for fault in status["claim_faults"]:
        hint = fault["hint"] or "deploy/slurm/README.md says how it should be"
        yield Finding("jobs", "problem", f"{fault['source']}: {fault['message']}", hint)


def of_ledger(status: Mapping[str, Any]) -> Iterator[Finding]:
    """The ledger by the daemon that writes it."""
    ledger = status["ledger"]
    failing = ledger["message"]
    yield Finding(
        "ledger",
        "problem" if failing else "ok",
        f"{ledger['path']}: {failing or 'written, last at ' + str(ledger['last_commit'])}",
        ledger["hint"] or "",
    )
    if ledger["quarantined"]:
        yield Finding(
            "ledger",
            "problem",
            f"a damaged file was set aside as {ledger['quarantined']}; counters began at 0",
            "keep it: `sqlite3 FILE .recover` may bring its rows back",
        )
