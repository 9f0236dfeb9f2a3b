"""CPU and memory energy from RAPL, through the kernel's powercap tree.

    class/powercap/intel-rapl:0      name=package-0   → cpu0
    class/powercap/intel-rapl:0:1    name=dram        → dram0

AMD's counters appear under the same names (packages only). Packages and DRAM are disjoint and are
added up; `core` and `uncore` are inside their package, `psys` is the platform around it, and
`intel-rapl-mmio` shows the packages a second time: these are never added.

A device's name follows from its zone's name alone, so that it is the same for life whatever else
comes or goes: `package-N` is `cpuN`, its memory `dramN`; where the kernel tells dies apart,
`package-N-die-M` is `cpuN-dieM` and `dramN-dieM`.

Sources: Linux `Documentation/power/powercap/powercap.rst`,
`drivers/powercap/intel_rapl_common.c`. Permission: CVE-2020-8694 (PLATYPUS) made `energy_uj`
readable for root alone, since who reads it finely enough reads keys; it must stay so. We publish
the means of whole commit intervals only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from wattledger.errors import MeterUnavailable
from wattledger.meters.kept_files import FileFacts, KeptFiles, explain, number_of, text_of
from wattledger.model import CounterReading, DeviceInfo, Kind, MeterReport
from wattledger.ports import Clock
from wattledger.procfs import cpu_model
from wattledger.units import NS_PER_MS, UW_PER_W

NAME = "rapl"
TICK_NS = NS_PER_MS  # the counters move about every ms (Hähnel 2012, 10.1145/2425248.2425252)

# Bounds of what a zone can draw, as (lowest believed, assumed where the kernel states no limit,
# highest believed), in watts. A bound only has to be above the truth and not absurdly far: beyond
# 1.1 times it a difference is not booked, and a wrap is only taken for one while
# gap × bound < range. Packages: the largest servers of 2025 are configured to 500 W (EPYC 9965,
# Xeon 6980P), and desktop boards state "unlimited" as 4096 W. DRAM: 16 DDR5 modules at about 15 W,
# with room; what the kernel states for it is often 0 or too low.
_BOUND_W = {Kind.CPU: (150, 600, 1500), Kind.DRAM: (300, 300, 600)}

_ZONE = re.compile(r"intel-rapl(?:-mmio)?:(\d+)(?::(\d+))?")
_PACKAGE = re.compile(r"package-(\d+)(?:-die-(\d+))?")

GRANT = (
    "start it by the shipped systemd unit, which has AmbientCapabilities=CAP_DAC_READ_SEARCH; "
    # One line to paste. sudo would keep its own HOME, where the books could not be made.
    'by hand: sudo setpriv --reuid="$(id -u)" --regid="$(id -g)" --init-groups '
    "--inh-caps=+dac_read_search --ambient-caps=+dac_read_search "
    'env HOME="$HOME" "$(command -v wattledger)" serve; '
    "keep the file closed to others (CVE-2020-8694)"
)
_NO_RAPL = (
    "on hardware: sudo modprobe intel_rapl_msr (intel_rapl_tpmi on the newest Xeons); "
    "virtual machines have none"
)
_MASKED = (
    "the container runtime hides it: mount the host's /sys read-only at another place, "
    "say /host/sys, and start with --path.sysfs /host/sys"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ZoneFacts(FileFacts):
    """One zone of the powercap tree.

    Attributes:
        zone: the kernel's number for it, such as `intel-rapl:0:1`.
        range_uj: where the counter wraps; 0: unknown.
        max_power_uw: more than this it cannot draw.
    """

    zone: str
    range_uj: int = 0
    max_power_uw: int = 0


def survey(
    sysfs: Path, procfs: Path | None = None, max_power_w: Mapping[Kind, float] | None = None
) -> list[ZoneFacts]:
    """Every RAPL zone, those that are not used with the reason why.

    Args:
        sysfs: root of sysfs.
        procfs: root of procfs, for the CPU's model; None: leave it empty.
        max_power_w: bounds from the configuration, in place of what the kernel states.
    """
    paths = _zone_paths(sysfs)
    names = {path.name: text_of(path / "name") or "" for path in paths}
    model = _model(procfs) if procfs is not None and paths else ""
    zones: list[ZoneFacts] = []
    seen: set[str] = set()
    for path in paths:
        facts = _identify(path, names, model)
        device = facts.device
        if device is not None and device.name in seen:
            message = f"another zone already counts {device.name}"
            facts = replace(facts, device=None, message=message)
        elif device is not None:
            seen.add(device.name)
            facts = _examine(facts, device.kind, (max_power_w or {}).get(device.kind))
        zones.append(facts)
    return zones


class RaplMeter:
    """Energy of the packages and their memory; implements `wattledger.ports.Meter`.

    A counter that wraps, falls or jumps is handed on as it is: what a difference means is decided
    where both readings are known.

    Args:
        clock: stamps each reading.
        sysfs: root of sysfs.
        interval_ns: how often to be read. Well below the time of one wrap (a 65.5-kJ counter at
            600 W: 109 s).
        procfs: root of procfs, for the CPU's model.
        max_power_w: bounds for CPU packages and DRAM, where the kernel's are wrong.
    """

    name = NAME

    def __init__(
        self,
        clock: Clock,
        *,
        sysfs: Path,
        interval_ns: int,
        procfs: Path | None = None,
        max_power_w: Mapping[Kind, float] | None = None,
    ) -> None:
        self.interval_ns = interval_ns
        self._clock = clock
        self._files = KeptFiles(
            NAME,
            clock,
            lambda: survey(sysfs, procfs, max_power_w),
            lambda zones: unavailable(sysfs, zones),
        )

    def read(self) -> MeterReport:
        """Read every zone once: a few µs each on Intel.

        Raises:
            MeterUnavailable: no zone can be read: `absent`, `masked`, `no_permission`,
                `range_zero`, `range_unreadable`, `gone`, `read_error` or `bad_value`.
        """
        values, faults = self._files.read()
        boot_id = self._clock.boot_id
        readings = tuple(
            CounterReading(
                zone.device.name,
                at,
                raw_uj,
                zone.range_uj,
                zone.max_power_uw,
                TICK_NS,
                boot_id,
            )
            for zone, raw_uj, at in values
            if zone.device is not None
        )
        return MeterReport(devices=self._files.devices, readings=readings, faults=tuple(faults))

    def close(self) -> None:
        """Close all files."""
        self._files.close()


def unavailable(sysfs: Path, zones: list[ZoneFacts]) -> MeterUnavailable:
    """Why none of these zones can be read, as the error to raise; `doctor` asks too."""
    blocked = [zone for zone in zones if zone.device is not None]
    if not blocked:
        tree = sysfs / "class/powercap"
        if any(path.is_symlink() and not path.exists() for path in _listed(tree)):
            return MeterUnavailable("masked", f"the RAPL zones under {tree} lead nowhere", _MASKED)
        return MeterUnavailable("absent", f"no RAPL package under {tree}", _NO_RAPL)
    first = next((zone for zone in blocked if zone.reason == "no_permission"), blocked[0])
    return MeterUnavailable(first.reason or "read_error", first.message, first.hint)


def _zone_paths(sysfs: Path) -> list[Path]:
    """The zones' directories in the kernel's order, by whichever road leads to them."""
    found = [path for path in _listed(sysfs / "class/powercap") if path.is_dir()]
    if not found:
        for control in ("intel-rapl", "intel-rapl-mmio"):
            for zone in _listed(sysfs / "devices/virtual/powercap" / control):
                found += [zone, *_listed(zone)]
    return sorted(found, key=_order)


def _listed(directory: Path) -> list[Path]:
    """The entries of a directory that are named like zones."""
    try:
        return [path for path in directory.iterdir() if _ZONE.fullmatch(path.name)]
    except OSError:
        return []


def _order(path: Path) -> tuple[bool, int, int]:
    match = _ZONE.fullmatch(path.name)
    if match is None:  # `_listed` lets none through
        return (True, 0, 0)
    return ("mmio" in path.name, int(match[1]), int(match[2] or -1))


def _identify(path: Path, names: Mapping[str, str], model: str) -> ZoneFacts:
    """Which device a zone measures, or why it measures none of ours."""
    zone, name = path.name, names[path.name]
    parent = zone.rpartition(":")[0] if zone.count(":") == 2 else ""
    facts = ZoneFacts(label=f"{zone} ({name})", zone=zone, path=path / "energy_uj")
    if zone.startswith("intel-rapl-mmio"):
        return replace(facts, message="shows the packages a second time; never added")
    if name in ("core", "uncore"):
        return replace(facts, message="is inside its package; never added")
    if name.startswith("psys"):
        return replace(facts, message="is the platform around the packages; never added")
    package = _PACKAGE.fullmatch(names.get(parent, "") if name == "dram" else name)
    if package is None or (name == "dram") != bool(parent):
        return replace(facts, message="is not known to be a package or its memory; never added")
    kind = Kind.DRAM if parent else Kind.CPU
    number, die = package[1], package[2]
    device = DeviceInfo(
        name=f"{kind}{number}" + (f"-die{die}" if die else ""),
        kind=kind,
        meter=NAME,
        index=number,
        model=model if kind is Kind.CPU else "",
    )
    return replace(facts, device=device)


def _examine(facts: ZoneFacts, kind: Kind, max_power_w: float | None) -> ZoneFacts:
    """Whether a zone can be read, where it wraps and how much it can draw."""
    directory = facts.path.parent
    facts = replace(facts, max_power_uw=_bound_uw(directory, kind, max_power_w))
    range_uj = number_of(directory / "max_energy_range_uj")
    try:
        int(facts.path.read_bytes())
    except (OSError, ValueError) as error:
        reason, message, hint = explain(facts.path, error)
        hint = GRANT if reason == "no_permission" else hint
        return replace(facts, range_uj=range_uj or 0, reason=reason, message=message, hint=hint)
    if range_uj is None:
        message = f"{directory / 'max_energy_range_uj'} cannot be read: no telling when it wraps"
        return replace(facts, reason="range_unreadable", message=message, hint=GRANT)
    if range_uj <= 0:
        message = f"{facts.label} says that it wraps at 0, so its wraps cannot be told"
        hint = "a newer kernel may know the counter's range"
        return replace(facts, reason="range_zero", message=message, hint=hint)
    return replace(facts, range_uj=range_uj)


def _bound_uw(directory: Path, kind: Kind, configured_w: float | None) -> int:
    """More than this a zone cannot draw.

    The larger of twice the long-term constraint's `max_power_uw` (the thermal design power: short
    excursions pass it) and the highest power limit in force, kept within what is believable.
    """
    if configured_w is not None:
        return round(configured_w * UW_PER_W)
    lowest, assumed, highest = (watts * UW_PER_W for watts in _BOUND_W[kind])
    stated = 0
    for name_file in directory.glob("constraint_*_name"):
        stem = name_file.name.removesuffix("_name")
        stated = max(stated, number_of(directory / f"{stem}_power_limit_uw") or 0)
        if text_of(name_file) == "long_term":
            stated = max(stated, 2 * (number_of(directory / f"{stem}_max_power_uw") or 0))
    return min(max(stated, lowest), highest) if stated else assumed


def _model(procfs: Path) -> str:
    """The CPU's model; only the first lines are read, the whole is large on large machines."""
    try:
        with (procfs / "cpuinfo").open("rb", buffering=0) as file:
            return cpu_model(file.read(2048).decode("utf-8", "replace"))
    except OSError:
        return ""
