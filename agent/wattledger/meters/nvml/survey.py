"""Every GPU looked at once, for `wattledger doctor`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from wattledger.meters.nvml import binding as nvml
from wattledger.meters.nvml.binding import CallFailed, NvmlDriver
from wattledger.meters.nvml.facts import GpuFacts, read_facts
from wattledger.meters.nvml.ladder import rungs
from wattledger.meters.nvml.mig import read_partition
from wattledger.meters.nvml.remedies import no_devices, words
from wattledger.meters.nvml.session import Session


def survey(driver: NvmlDriver, *, sysfs: Path = Path("/sys")) -> list[GpuFacts]:
    """The GPUs by index; those that cannot be read say why in `error`.

    Initialises NVML and shuts it down again.

    Args:
        driver: `binding.real_driver()` or a simulated one.
        sysfs: where sysfs is mounted.

    Raises:
        MeterUnavailable: NVML does not answer or lists no GPU; with the remedy.
    """
    session = Session(driver, sysfs)
    session.open()
    try:
        count = driver.nvmlDeviceGetCount()
        if not count:
            raise no_devices()
        return [_look(driver, index) for index in range(count)]
    except driver.NVMLError as error:
        raise session.failed(nvml.error_code(error)) from None
    finally:
        session.close()


def _look(driver: NvmlDriver, index: int) -> GpuFacts:
    uuid = ""
    try:
        handle = driver.nvmlDeviceGetHandleByIndex(index)
        uuid = driver.nvmlDeviceGetUUID(handle)
        facts = read_facts(driver, handle, index, uuid, read_partition(driver, handle))
        estimator = _likely_estimator(driver, handle, facts)
    except (driver.NVMLError, CallFailed) as error:
        return GpuFacts(uuid, index, error=words(nvml.error_code(error)))
    return replace(facts, estimator=estimator, persistence=_persistence(driver, handle))


def _likely_estimator(driver: NvmlDriver, handle: Any, facts: GpuFacts) -> str:
    """The first rung that answers now; empty: none does."""
    at_module = facts.sensors.scope == nvml.SCOPE_MODULE
    samples = nvml.SAMPLES_MODULE_POWER if at_module else nvml.SAMPLES_TOTAL_POWER
    for rung in rungs(facts):
        try:
            if rung == "samples":
                driver.nvmlDeviceGetSamples(handle, samples, 0)
            elif rung == "usage":
                driver.nvmlDeviceGetPowerUsage(handle)
        except driver.NVMLError:
            continue
        return rung
    return ""


def _persistence(driver: NvmlDriver, handle: Any) -> str:
    try:
        return "on" if driver.nvmlDeviceGetPersistenceMode(handle) else "off"
    except driver.NVMLError:
        return "unknown"
