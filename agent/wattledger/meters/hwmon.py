"""CPU power of NVIDIA Grace from its ACPI power meters, through hwmon.

    class/hwmon/hwmonN/device/power1_oem_info           Grace Power Socket 0 → cpu0
    class/hwmon/hwmonN/device/power1_average            µW
    class/hwmon/hwmonN/device/power1_average_interval   ms, 50 by default

A socket has up to four meters, one inside the other: Module (a superchip's whole: GPU, memory,
regulators) ⊃ Grace (the socket with its memory) ⊃ CPU and SysIO rails. Only Grace is used; adding
any two would count the same energy twice. Where the GPU's own counter covers the module, Grace is
inside that, and this meter stands back.

There is no energy counter: the mean over 50 ms is read every 190 ms and integrated, so a quarter
of the time is seen. Loads that change more slowly than the readings come out within a few per
cent; a load that repeats in step with them would not, hence the crooked period, which drifts
through every phase of a load that repeats each 100 ms or each second.

Other power sensors of hwmon (amd_energy, zenpower, supply rails) are out of scope: where they
exist, RAPL measures the same packages with a counter.

Sources: Linux `Documentation/hwmon/acpi_power_meter.rst`; NVIDIA Grace Performance Tuning Guide,
"Power Telemetry".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from wattledger.errors import MeterUnavailable
from wattledger.meters.kept_files import FileFacts, KeptFiles, explain, number_of, text_of
from wattledger.model import DeviceInfo, Kind, MeterReport, PowerReading
from wattledger.ports import Clock
from wattledger.units import NS_PER_MS, NS_PER_S

NAME = "hwmon"
POLL_NS = 190 * NS_PER_MS
COVERED = "covered_by_gpu_module"
_WINDOW_MS = 50  # Grace's default, where power1_average_interval cannot be read
_MAX_GAP_NS = 2500 * NS_PER_MS  # as for a reader at 1 Hz that missed one turn

_METER = re.compile(r"(Module|Grace|CPU|SysIO) Power Socket (\d{1,3})", re.IGNORECASE)
_NO_METER = (
    "on NVIDIA Grace: a kernel with CONFIG_SENSORS_ACPI_POWER, sudo modprobe acpi_power_meter, "
    "boot option acpi_power_meter.force_cap_on=y; other machines have none"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SensorFacts(FileFacts):
    """One ACPI power meter.

    Attributes:
        window_ns: its value is the mean over this long.
    """

    window_ns: int


def survey(sysfs: Path) -> list[SensorFacts]:
    """Every power meter of a Grace machine, those that are not used with the reason why."""
    sensors: list[SensorFacts] = []
    seen: set[str] = set()
    for hwmon in _listed(sysfs / "class/hwmon"):
        # The attributes hang on the hwmon device itself or on its parent, as kernels differ.
        for directory in (hwmon, hwmon / "device"):
            info = text_of(directory / "power1_oem_info")
            match = _METER.fullmatch(" ".join(info.split())) if info else None
            if match is not None:
                facts = _examine(directory, match, seen)
                if facts.device is not None:
                    seen.add(facts.device.name)
                sensors.append(facts)
                break
    return sensors


class HwmonMeter:
    """Power of the Grace sockets; implements `wattledger.ports.Meter`.

    Args:
        clock: stamps each reading.
        sysfs: root of sysfs.
        interval_ns: how often to be read; the error grows with it.
        module_scope: True while a GPU's counter covers the whole module, Grace included.
    """

    name = NAME

    def __init__(
        self,
        clock: Clock,
        *,
        sysfs: Path,
        interval_ns: int = POLL_NS,
        module_scope: Callable[[], bool] = lambda: False,
    ) -> None:
        self.interval_ns = interval_ns
        self._module_scope = module_scope
        self._max_gap_ns = max(_MAX_GAP_NS, interval_ns * 5 // 2)
        self._files = KeptFiles(
            NAME, clock, lambda: survey(sysfs), lambda sensors: unavailable(sysfs, sensors)
        )

    def read(self) -> MeterReport:
        """Read every socket once.

        Raises:
            MeterUnavailable: no socket can be read, or the GPU's counter covers them.
        """
        if self._module_scope():
            self.close()
            raise covered()
        values, faults = self._files.read()
        readings = tuple(
            PowerReading(
                sensor.device.name, at, max(power_uw, 0), sensor.window_ns, self._max_gap_ns
            )
            for sensor, power_uw, at in values
            if sensor.device is not None
        )
        return MeterReport(devices=self._files.devices, readings=readings, faults=tuple(faults))

    def close(self) -> None:
        """Close all files."""
        self._files.close()


def covered() -> MeterUnavailable:
    """The CPU is inside a GPU module's counter; every meter of the CPU must then stand back."""
    return MeterUnavailable(
        COVERED,
        "the GPU's energy counter covers the whole module, the CPU included",
        "nothing to do: adding the CPU would count it twice",
    )


def unavailable(sysfs: Path, sensors: list[SensorFacts]) -> MeterUnavailable:
    """Why none of these meters can be read, as the error to raise; `doctor` asks too."""
    blocked = [sensor for sensor in sensors if sensor.device is not None]
    if not blocked:
        return MeterUnavailable(
            "absent", f"no Grace power meter under {sysfs / 'class/hwmon'}", _NO_METER
        )
    return MeterUnavailable(blocked[0].reason or "read_error", blocked[0].message, blocked[0].hint)


def _listed(directory: Path) -> list[Path]:
    try:
        return sorted(path for path in directory.iterdir() if path.name.startswith("hwmon"))
    except OSError:
        return []


def _examine(directory: Path, match: re.Match[str], seen: set[str]) -> SensorFacts:
    """What one power meter measures and whether it can be read."""
    scope, socket = match[1].lower(), int(match[2])
    window_ms = number_of(directory / "power1_average_interval") or _WINDOW_MS
    facts = SensorFacts(
        label=match[0],
        path=directory / "power1_average",
        window_ns=min(max(window_ms, 1) * NS_PER_MS, NS_PER_S),
    )
    if scope != "grace":
        where = "holds the GPU as well" if scope == "module" else "is inside the Grace meter"
        return replace(facts, message=f"{where}; never added")
    device = DeviceInfo(
        name=f"cpu{socket}",
        kind=Kind.CPU,
        meter=NAME,
        index=str(socket),
        model="NVIDIA Grace (socket with memory)",
    )
    if device.name in seen:
        return replace(facts, message=f"another meter already measures {device.name}")
    try:
        int(facts.path.read_bytes())
    except (OSError, ValueError) as error:
        reason, message, hint = explain(facts.path, error)
        return replace(facts, device=device, reason=reason, message=message, hint=hint)
    return replace(facts, device=device)
