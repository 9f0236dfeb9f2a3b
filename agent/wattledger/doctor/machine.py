"""What can be seen from here, with the rights of whoever asks."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from wattledger import build
from wattledger.clock import SystemClock
from wattledger.config import Config
from wattledger.config.check import source_configs, table_zone
from wattledger.core.footprint import footprint
from wattledger.doctor.finding import ESTIMATED_HINT, Finding, Level
from wattledger.errors import GridError, LedgerError, LedgerLocked, MeterUnavailable
from wattledger.grid import build_sources
from wattledger.grid.client import HttpClient
from wattledger.grid.feed import MARGINAL
from wattledger.grid.table import CountryTable
from wattledger.ledger import open_reader_offline
from wattledger.meters import hwmon, rapl
from wattledger.meters.nvml.facts import GpuFacts
from wattledger.meters.nvml.survey import survey
from wattledger.model import Basis
from wattledger.services import ABSENT
from wattledger.units import grams, watts

_ESTIMATORS = {
    "counter": "energy counter",
    "samples": "no energy counter; integrated from the driver's sample buffer",
    "average": "no energy counter; integrated from 1-s average power",
    "instant": "no energy counter; integrated from instantaneous power",
    "usage": "no energy counter; integrated from the driver's power reading",
}

DRIVER_PATIENCE_S = 10.0


def survey_gpus(config: Config) -> tuple[list[GpuFacts], list[Finding]]:
    """The GPUs, or why there are none. A driver that hangs is given 10 s."""
    nvml = config.meters.nvml
    if nvml.enabled == "false":
        message = "GPUs are not metered: meters.nvml.enabled is false"
        return [], [Finding("meter", "note", message)]
    clock = SystemClock(Path(config.path.procfs))
    driver = build.nvml_driver(config, clock)
    outcome: list[list[GpuFacts] | MeterUnavailable] = []

    def look() -> None:
        try:
            outcome.append(survey(driver, sysfs=Path(config.path.sysfs)))
        except MeterUnavailable as error:
            outcome.append(error)

    thread = threading.Thread(target=look, daemon=True)  # never joined for good: it may hang
    thread.start()
    thread.join(DRIVER_PATIENCE_S)
    if not outcome:
        message = f"the NVIDIA driver has not answered for {DRIVER_PATIENCE_S:.0f} s"
        return [], [Finding("meter", "problem", message, "see dmesg for Xid errors")]
    found = outcome[0]
    if isinstance(found, MeterUnavailable):
        fact = found.reason in ABSENT and nvml.enabled == "auto"
        return [], [Finding("meter", "note" if fact else "problem", found.message, found.hint)]
    return found, []


def of_gpu(gpu: GpuFacts, simulated: bool) -> Iterator[Finding]:
    """How one GPU can be metered."""
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
    level: Level = "ok" if gpu.counter else "note"
    made = "simulated, " if simulated else ""
    yield Finding("meter", level, f"{gpu.label}: {made}{how}{limit}{scope}{mig}")
    yield from of_persistence(gpu)


def of_persistence(gpu: GpuFacts) -> Iterator[Finding]:
    """Whether the driver stays loaded while nobody uses the GPU."""
    if gpu.persistence == "off":
        yield Finding(
            "meter",
            "note",
            f"{gpu.label}: persistence mode is off; the driver unloads when nobody uses the GPU",
            f"systemctl enable --now nvidia-persistenced, or nvidia-smi -i {gpu.index} -pm 1",
        )


def of_cpus(config: Config, covered: bool) -> Iterator[Finding]:
    """How the CPUs can be metered.

    Args:
        config: the settings.
        covered: a GPU's counter covers the whole module, CPU included.
    """
    sysfs, wanted = Path(config.path.sysfs), config.meters
    metered = covered
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
            level: Level = "problem" if wanted.rapl.enabled == "true" else "note"
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
        how = "estimated from utilisation, ±50 %" if estimated else "not counted at all"
        yield Finding(
            "meter",
            "problem",
            f"no meter of the CPU answers: its energy is {how}",
            ESTIMATED_HINT,
        )


def of_grid(config: Config) -> Iterator[Finding]:
    """Whether the sources answer now, and how old what they say is."""
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
    for source in build_sources(sources, HttpClient(proxy=config.grid.proxy)):
        now_ns = time.time_ns()
        try:
            signal = source.latest(now_ns)[-1]
        except GridError as error:
            yield Finding("grid", "problem", f"{source.name}: {error.message}", error.hint)
            continue
        age_min = (now_ns - signal.valid_from_ns) // 60_000_000_000
        text = (
            f"{source.name} answers: {signal.zone} {grams(signal.intensity_ug_per_kwh):.0f} g/kWh "
            f"({signal.basis}), for {age_min} min ago"
        )
        if source.basis is Basis.MARGINAL:
            yield Finding("grid", "note", f"{text}; {MARGINAL[0]}", MARGINAL[1])
        else:
            yield Finding("grid", "ok", text)


def of_clock() -> Finding:
    """Whether the kernel says that the clock is synchronised (adjtimex(2))."""
    buffer = ctypes.create_string_buffer(512)  # struct timex is 208 bytes; modes = 0: only read
    return clock(ctypes.CDLL(None, use_errno=True).adjtimex(buffer))


def clock(state: int) -> Finding:
    """What the answer of adjtimex(2) says."""
    if state < 0:
        return Finding("clock", "note", "the kernel does not say whether the clock is synchronised")
    if state == 5:  # TIME_ERROR
        return Finding(
            "clock",
            "problem",
            "the clock is not synchronised: energy is exact all the same, its hours are not",
            "apt-get install systemd-timesyncd, or chrony; then timedatectl says whether it is",
        )
    return Finding("clock", "ok", "the clock is synchronised")


def of_ledger(config: Config) -> Iterator[Finding]:
    """The ledger itself, while no daemon writes it."""
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
