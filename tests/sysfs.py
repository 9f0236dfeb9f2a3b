"""Trees of /sys and /proc, built where a test wants them and kept moving.

    tree = RaplTree(tmp_path / "sys", packages=2)
    tree.set_energy_uj("package-0", 123)

Values are written in place, in one `pwrite` of constant length: readers that keep a file open, as
the daemon does, see them; a shorter number leaves no digits of the longer one behind.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

# The ranges that kernels show: (2^32 − 1) counts of a unit truncated to whole nJ.
RANGE_INTEL_UJ = 262_143_328_850  # 2^-14 J
RANGE_AMD_UJ = 65_532_610_987  # 2^-16 J
RANGE_DRAM_UJ = 65_712_999_613  # 15.3 µJ
RANGES_UJ = (RANGE_INTEL_UJ, RANGE_AMD_UJ, RANGE_DRAM_UJ)

_WIDTH = 21  # 20 digits and a newline


def put(path: Path, text: str, mode: int = 0o644) -> Path:
    """A file with this text, its folders included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


@dataclass(frozen=True)
class Wave:
    """A power over time whose energy is known in closed form, in whole µJ.

    Constant where `low_uw == high_uw`; otherwise a square wave that begins high.
    """

    high_uw: int
    low_uw: int
    period_ns: int = 1_000_000_000
    high_ns: int = 500_000_000

    @classmethod
    def constant(cls, watts: float) -> Wave:
        power_uw = round(watts * 1_000_000)
        return cls(power_uw, power_uw)

    def energy_uj(self, elapsed_ns: int) -> int:
        """The energy from 0 to `elapsed_ns`."""
        whole, part_ns = divmod(elapsed_ns, self.period_ns)
        high_ns = whole * self.high_ns + min(part_ns, self.high_ns)
        return (high_ns * self.high_uw + (elapsed_ns - high_ns) * self.low_uw) // 1_000_000_000


class RaplTree:
    """A powercap tree: packages, their core, uncore and DRAM zones, psys and the mmio double.

    Zones are named as people name them: `package-0`, `package-0/dram`, `package-1-die-0`, `psys`.

    Args:
        sysfs: root of the tree; made where it is not.
        packages: how many.
        dies: dies per package; more than one, and zones are named `package-N-die-M`.
        dram: each package has a DRAM zone.
        range_uj: of packages; `dram_range_uj` of DRAM.
        start_uj: what every counter shows at first (modulo its range).
        waves: zone → its power, for `follow`; the default is 100 W, and 10 W for DRAM.
        virtual_only: build devices/virtual/powercap without class/powercap.
    """

    def __init__(
        self,
        sysfs: Path,
        *,
        packages: int = 1,
        dies: int = 1,
        dram: bool = True,
        range_uj: int = RANGE_INTEL_UJ,
        dram_range_uj: int = RANGE_DRAM_UJ,
        start_uj: int = 0,
        waves: Mapping[str, Wave] | None = None,
        virtual_only: bool = False,
    ) -> None:
        self.sysfs = sysfs
        self.directories: dict[str, Path] = {}
        self.range_uj: dict[str, int] = {}
        self.start_uj: dict[str, int] = {}
        self.start_monotonic_ns = time.monotonic_ns()
        self._waves = dict(waves or {})
        self._fds: dict[str, int] = {}
        self._start_uj = start_uj
        self._class = None if virtual_only else sysfs / "class/powercap"
        self._devices = sysfs / "devices/virtual/powercap"
        names = [
            f"package-{package}" + (f"-die-{die}" if dies > 1 else "")
            for package in range(packages)
            for die in range(dies)
        ]
        for number, name in enumerate(names):
            zone = self._devices / "intel-rapl" / f"intel-rapl:{number}"
            self.add(name, zone, name, range_uj)
            self.constraint(name, 0, "long_term", max_power_w=150, limit_w=150)
            self.constraint(name, 1, "short_term", max_power_w=0, limit_w=180)
            inner = ["core", "uncore", *(["dram"] if dram else [])]
            for child, inside in enumerate(inner):
                child_range_uj = dram_range_uj if inside == "dram" else range_uj
                self.add(f"{name}/{inside}", zone / f"{zone.name}:{child}", inside, child_range_uj)
        psys = self._devices / "intel-rapl" / f"intel-rapl:{len(names)}"
        self.add("psys", psys, "psys", range_uj)
        mmio = self._devices / "intel-rapl-mmio/intel-rapl-mmio:0"
        self.add("mmio", mmio, "package-0", range_uj)

    @property
    def counted(self) -> list[str]:
        """The zones that make up the node's energy: packages and DRAM."""
        return [
            zone for zone in self.directories if zone.startswith("package-") and "core" not in zone
        ]

    def add(self, zone: str, directory: Path, name: str, range_uj: int) -> None:
        """Another zone, with what the kernel calls it."""
        put(directory / "name", f"{name}\n")
        put(directory / "max_energy_range_uj", f"{range_uj}\n")
        path = put(directory / "energy_uj", "0\n", 0o600)
        self._fds[zone] = os.open(path, os.O_WRONLY)
        path.chmod(0o400)
        if self._class is not None:
            self._class.mkdir(parents=True, exist_ok=True)
            link = self._class / directory.name
            link.symlink_to(os.path.relpath(directory, self._class))
        self.directories[zone] = directory
        self.range_uj[zone] = range_uj
        self.start_uj[zone] = self._start_uj % range_uj if range_uj else 0
        self.set_energy_uj(zone, self.start_uj[zone])

    def remove(self, zone: str) -> None:
        """The zone leaves, as when its driver is unloaded; its children as well."""
        directory = self.directories[zone]
        for name in [
            name for name in self.directories if name.split("/")[0] == zone or name == zone
        ]:
            if self._class is not None:
                (self._class / self.directories[name].name).unlink()
            os.close(self._fds.pop(name))
            del self.directories[name]
        shutil.rmtree(directory)

    def constraint(
        self, zone: str, number: int, name: str, *, max_power_w: float, limit_w: float
    ) -> None:
        """A power limit of a zone."""
        stem = self.directories[zone] / f"constraint_{number}"
        put(stem.with_name(stem.name + "_name"), f"{name}\n")
        max_power_uw, limit_uw = round(max_power_w * 1e6), round(limit_w * 1e6)
        put(stem.with_name(stem.name + "_max_power_uw"), f"{max_power_uw}\n")
        put(stem.with_name(stem.name + "_power_limit_uw"), f"{limit_uw}\n")

    def drop_constraints(self, zone: str) -> None:
        """The kernel states no limit, as on AMD."""
        for path in self.directories[zone].glob("constraint_*"):
            path.unlink()

    def set_range_uj(self, zone: str, range_uj: int) -> None:
        self.range_uj[zone] = range_uj
        put(self.directories[zone] / "max_energy_range_uj", f"{range_uj}\n")

    def set_mode(self, zone: str, mode: int, file: str = "energy_uj") -> None:
        """Permissions of one of a zone's files."""
        (self.directories[zone] / file).chmod(mode)

    def set_energy_uj(self, zone: str, value: int) -> None:
        """What the counter shows, taken modulo its range."""
        range_uj = self.range_uj[zone]
        shown = value % range_uj if range_uj else value
        os.pwrite(self._fds[zone], f"{shown:020d}\n".encode(), 0)

    def write_raw(self, zone: str, content: bytes) -> None:
        """Whatever a broken driver would show, in place."""
        os.ftruncate(self._fds[zone], 0)
        os.pwrite(self._fds[zone], content, 0)

    def true_energy_uj(self, zone: str, elapsed_ns: int) -> int:
        """What the zone has used since its start, in closed form, not wrapped."""
        wave = self._waves.get(zone) or Wave.constant(10 if zone.endswith("dram") else 100)
        return wave.energy_uj(elapsed_ns)

    def advance_to(self, elapsed_ns: int) -> None:
        """All counters as they stand `elapsed_ns` after the start."""
        for zone in self.directories:
            self.set_energy_uj(zone, self.start_uj[zone] + self.true_energy_uj(zone, elapsed_ns))

    @contextlib.contextmanager
    def follow(
        self,
        period_s: float = 0.001,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> Iterator[RaplTree]:
        """Keep the counters moving in a thread, in step with the clock, from now on.

        The truth at an instant is `true_energy_uj(zone, clock_ns() - tree.start_monotonic_ns)`.
        """
        stop = threading.Event()
        self.start_monotonic_ns = clock_ns()

        def move() -> None:
            while not stop.wait(period_s):
                self.advance_to(clock_ns() - self.start_monotonic_ns)

        thread = threading.Thread(target=move, name="rapl-tree", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            stop.set()
            thread.join()

    def close(self) -> None:
        """Close the files that were written."""
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()

    def __enter__(self) -> RaplTree:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class HwmonTree:
    """A Grace machine's ACPI power meters.

    Args:
        sysfs: root of the tree.
        sockets: how many.
        scopes: which meters each socket has.
        in_device: the attributes hang on `hwmonN/device`, as in older kernels, or on `hwmonN`.
        interval_ms: the averaging window.
    """

    SCOPES = ("Module", "Grace", "CPU", "SysIO")

    def __init__(
        self,
        sysfs: Path,
        *,
        sockets: int = 1,
        scopes: tuple[str, ...] = SCOPES,
        in_device: bool = True,
        interval_ms: int = 50,
    ) -> None:
        self.directories: dict[tuple[str, int], Path] = {}
        number = 0
        for socket in range(sockets):
            for scope in scopes:
                hwmon = sysfs / f"class/hwmon/hwmon{number}"
                directory = hwmon / "device" if in_device else hwmon
                put(hwmon / "name", "power_meter\n")
                put(directory / "power1_oem_info", f"{scope} Power Socket {socket}\n")
                put(directory / "power1_average_interval", f"{interval_ms}\n")
                put(directory / "power1_average", f"{0:0{_WIDTH - 1}d}\n")
                self.directories[scope, socket] = directory
                number += 1
        put(sysfs / f"class/hwmon/hwmon{number}/name", "nvme\n")

    def set_power_uw(self, scope: str, socket: int, power_uw: int) -> None:
        """What a meter shows."""
        fd = os.open(self.directories[scope, socket] / "power1_average", os.O_WRONLY)
        try:
            os.pwrite(fd, f"{power_uw:020d}\n".encode(), 0)
        finally:
            os.close(fd)


class ProcTree:
    """The part of /proc that tells how busy the CPUs are.

    Args:
        procfs: root of the tree.
        cpus: logical CPUs; each second is 100 ticks of each.
        model: what /proc/cpuinfo calls them; empty: nothing, as on Arm.
    """

    def __init__(self, procfs: Path, *, cpus: int = 4, model: str = "Test CPU @ 2.0GHz") -> None:
        self.procfs = procfs
        self.cpus = cpus
        self.busy = self.idle = 0
        lines = [f"processor\t: {number}" for number in range(cpus)]
        if model:
            lines = [line + f"\nmodel name\t: {model}" for line in lines]
        put(procfs / "cpuinfo", "\n\n".join(lines) + "\n")
        self._write()

    def run(self, seconds: float, busy: float) -> None:
        """This long passes with this share of all CPUs busy."""
        ticks = round(seconds * 100 * self.cpus)
        used = round(ticks * busy)
        self.busy += used
        self.idle += ticks - used
        self._write()

    def _write(self) -> None:
        each = "\n".join(f"cpu{n} 0 0 0 0 0 0 0 0 0 0" for n in range(self.cpus))
        text = f"cpu  {self.busy} 0 0 {self.idle} 0 0 0 0 0 0\n{each}\nintr 12345 0 9\nctxt 1\n"
        new = put(self.procfs / "stat.new", text)
        new.replace(self.procfs / "stat")


@contextlib.contextmanager
def world_readable_folder() -> Iterator[Path]:
    """A folder that other users may enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="wattledger-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Without root's privileges: as the user 65534 where the tests run as root."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
