"""`wattledger doctor`: what answers, what does not, and the exact command that mends it."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from wattledger import build
from wattledger.clock import SystemClock
from wattledger.config import Config
from wattledger.config.check import source_configs, table_zone
from wattledger.core.footprint import footprint
from wattledger.errors import (
    DaemonUnreachable,
    GridError,
    LedgerError,
    LedgerLocked,
    MeterUnavailable,
    WattledgerError,
)
from wattledger.grid import build_sources
from wattledger.grid.client import HttpClient
from wattledger.grid.table import CountryTable
from wattledger.ledger import open_reader_offline
from wattledger.meters import hwmon, rapl
from wattledger.meters.nvml.facts import GpuFacts
from wattledger.meters.nvml.survey import survey
from wattledger.remote import Remote
from wattledger.services import ABSENT
from wattledger.units import grams, watts

_ESTIMATORS = {
    "counter": "energy counter",
    "samples": "no energy counter; integrated from the driver's sample buffer",
    "average": "no energy counter; integrated from 1-s average power",
    "instant": "no energy counter; integrated from instantaneous power",
    "usage": "no energy counter; integrated from the driver's power reading",
}


class Finding(NamedTuple):
    """One line of the examination.

    Attributes:
        area: meter, grid, clock, ledger or daemon.
        level: `ok`; `note`: worth knowing, nothing is wrong; `problem`: something is.
        message: what was found, in plain words.
        hint: what to do, the exact command where there is one.
    """

    area: str
    level: Literal["ok", "note", "problem"]
    message: str
    hint: str = ""

    @property
    def ok(self) -> bool:
        """Nothing to mend."""
        return self.level != "problem"


def examine(config: Config, remote: Remote) -> list[Finding]:
    """Look at everything once. Asks a running daemon where there is one.

    Raises:
        ScenarioError: a simulated scenario that cannot be played.
    """
    findings: list[Finding] = []
    status: Mapping[str, Any] | None = None
    try:
        status = remote.request("/api/v1/status")
    except DaemonUnreachable as error:
        findings.append(Finding("daemon", "note", "no daemon is running", error.hint))
    except WattledgerError as error:
        findings.append(Finding("daemon", "problem", error.message, error.hint))
    if status is not None:
        findings += _daemon(status)
    findings += _gpus(config)
    findings += _cpus(config)
    findings += _grid(config, status)
    findings.append(_clock())
    findings += _ledger(config, status)
    return findings


def show(findings: list[Finding]) -> None:
    """For people, on standard output."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    marks = {"ok": "[green]ok     [/]", "note": "[cyan]note   [/]", "problem": "[red]PROBLEM[/]"}
    for finding in findings:
        console.print(marks[finding.level], f"{finding.area:<7}", end=" ")
        console.print(finding.message, markup=False)
        if finding.hint:
            console.print(f"                → {finding.hint}", markup=False, style="dim")
    problems = sum(not finding.ok for finding in findings)
    console.print(
        "all is well" if not problems else f"{problems} problem{'s' if problems > 1 else ''}",
        style="bold",
    )


# ── the parts ───────────────────────────────────────────────────────────────────────────────────


def _daemon(status: Mapping[str, Any]) -> Iterator[Finding]:
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
        if not meter["up"]:
            yield Finding(
                "daemon",
                "problem",
                f"meter {meter['meter']} does not answer: {meter['message']}",
                meter["hint"] or "",
            )


def _gpus(config: Config) -> Iterator[Finding]:
    nvml = config.meters.nvml
    if nvml.enabled == "false":
        yield Finding("meter", "note", "GPUs are not metered: meters.nvml.enabled is false")
        return
    clock = SystemClock(Path(config.path.procfs))
    try:
        gpus = survey(build.nvml_driver(config, clock), sysfs=Path(config.path.sysfs))
    except MeterUnavailable as error:
        fact = error.reason in ABSENT and nvml.enabled == "auto"
        yield Finding("meter", "note" if fact else "problem", error.message, error.hint)
        return
    for gpu in gpus:
        yield from _gpu(gpu, nvml.backend == "simulated")


def _gpu(gpu: GpuFacts, simulated: bool) -> Iterator[Finding]:
    if gpu.error:
        yield Finding("meter", "problem", f"{gpu.label}: {gpu.error}")
        return
    if not gpu.estimator:
        yield Finding("meter", "problem", f"{gpu.label}: neither energy nor power can be read")
        return
    limit = f", limit {watts(gpu.limit_uw):.0f} W" if gpu.limit_uw else ""
    scope = ", covers the whole module" if gpu.module else ""
    mig = ", MIG on (energy is the whole GPU's)" if gpu.mig else ""
    how = _ESTIMATORS.get(gpu.estimator, gpu.estimator)
    level: Literal["ok", "note"] = "ok" if gpu.counter else "note"
    made = "simulated, " if simulated else ""
    yield Finding("meter", level, f"{gpu.label}: {made}{how}{limit}{scope}{mig}")
    if gpu.persistence == "off":
        yield Finding(
            "meter",
            "note",
            f"{gpu.label}: persistence mode is off; the driver unloads when nobody uses the GPU",
            f"systemctl enable --now nvidia-persistenced, or nvidia-smi -i {gpu.index} -pm 1",
        )


def _cpus(config: Config) -> Iterator[Finding]:
    sysfs, wanted = Path(config.path.sysfs), config.meters
    metered = False
    if wanted.rapl.enabled != "false":
        zones = [zone for zone in rapl.survey(sysfs) if zone.device is not None]
        for zone in zones:
            metered = metered or zone.usable
            name = zone.device.name if zone.device is not None else zone.zone
            if zone.usable:
                yield Finding("meter", "ok", f"{name}: RAPL counter ({zone.zone})")
            else:
                yield Finding("meter", "problem", f"{name}: {zone.message}", zone.hint)
        if not zones:
            absent = rapl.unavailable(sysfs, [])
            level: Literal["note", "problem"] = (
                "problem" if wanted.rapl.enabled == "true" else "note"
            )
            yield Finding("meter", level, absent.message, absent.hint)
    if wanted.hwmon.enabled != "false":
        for sensor in hwmon.survey(sysfs):
            if sensor.device is not None:
                metered = metered or sensor.usable
                text = "ACPI power meter" if sensor.usable else sensor.message
                yield Finding(
                    "meter",
                    "ok" if sensor.usable else "problem",
                    f"{sensor.device.name}: {text}",
                    sensor.hint,
                )
    if not metered:
        estimated = wanted.estimate.enabled != "false"
        how = "estimated from utilisation, ±30 % or worse" if estimated else "not counted at all"
        yield Finding(
            "meter",
            "problem",
            f"no meter of the CPU answers: its energy is {how}",
            "make one of the meters above answer; on a virtual machine set "
            "meters.estimate.idle_watts and max_watts to its share of the host",
        )


def _grid(config: Config, status: Mapping[str, Any] | None) -> Iterator[Finding]:
    row = CountryTable.load().signal(table_zone(config))
    sources = source_configs(config)
    if not sources:
        year = time.gmtime(row.valid_from_ns // 1_000_000_000).tm_year
        yield Finding(
            "grid",
            "note",
            f"{row.zone} by the country table: {grams(row.intensity_ug_per_kwh):.0f} g/kWh, "
            f"the mean of {year}; no live source",
            "set site.zone to your grid and name a source in [[grid.source]]",
        )
        return
    if status is not None:
        yield from _grid_of_daemon(status)
        return
    for source in build_sources(sources, HttpClient(proxy=config.grid.proxy)):
        now_ns = time.time_ns()
        try:
            signal = source.latest(now_ns)[-1]
        except GridError as error:
            yield Finding("grid", "problem", f"{source.name}: {error.message}", error.hint)
            continue
        age_min = (now_ns - signal.valid_from_ns) // 60_000_000_000
        yield Finding(
            "grid",
            "ok",
            f"{source.name} answers: {signal.zone} {grams(signal.intensity_ug_per_kwh):.0f} g/kWh "
            f"({signal.basis}), for {age_min} min ago",
        )


def _grid_of_daemon(status: Mapping[str, Any]) -> Iterator[Finding]:
    grid = status["grid"]
    yield Finding(
        "grid",
        "ok" if grid["level"] == 0 else "problem",
        f"priced with {grid['source']} {grid['zone']} {grid['intensity_g_per_kwh']:.0f} g/kWh "
        f"({grid['basis']}), {grid['level_name']}, {grid['age_s'] // 60} min old",
        "" if grid["level"] == 0 else "see the sources below",
    )
    for source in status["grid_sources"]:
        if source["message"]:
            yield Finding(
                "grid", "problem", f"{source['source']}: {source['message']}", source["hint"] or ""
            )


def _clock() -> Finding:
    """Whether the kernel says that the clock is synchronised (adjtimex(2))."""
    buffer = ctypes.create_string_buffer(512)  # struct timex is 208 bytes; modes = 0: only read
    state = ctypes.CDLL(None, use_errno=True).adjtimex(buffer)
    if state < 0:
        return Finding("clock", "note", "the kernel does not say whether the clock is synchronised")
    if state == 5:  # TIME_ERROR
        return Finding(
            "clock",
            "problem",
            "the clock is not synchronised: energy is exact all the same, its hours are not",
            "systemctl enable --now systemd-timesyncd, or chrony",
        )
    return Finding("clock", "ok", "the clock is synchronised")


def _ledger(config: Config, status: Mapping[str, Any] | None) -> Iterator[Finding]:
    if status is not None:
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
        return
    path = build.ledger_path(config)
    try:
        if not path.exists():
            yield Finding("ledger", "note", f"{path} does not exist yet; the daemon makes it")
            return
        reader = open_reader_offline(path)
    except OSError as error:
        hint = "ask as root, or as the user that the daemon runs as"
        yield Finding("ledger", "note", f"{path} cannot be seen: {error.strerror}", hint)
        return
    except LedgerLocked as error:
        yield Finding("ledger", "note", error.message, error.hint)
        return
    except LedgerError as error:
        yield Finding("ledger", "problem", error.message, error.hint)
        return
    try:
        differences = reader.check(footprint)
    finally:
        reader.close()
    if not differences:
        yield Finding("ledger", "ok", f"{path}: sound, and the books balance")
    for difference in differences[:10]:
        yield Finding("ledger", "problem", f"{path}: {difference}")
