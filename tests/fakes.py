"""Fakes in the shape of the real things; no test patches a module."""

from __future__ import annotations

from wattledger.model import (
    Basis,
    FallbackLevel,
    GridChoice,
    GridSignal,
    Instant,
    MeterReport,
    MeterStatus,
    SiteFactors,
    SourceStatus,
)
from wattledger.units import NS_PER_S, micro

START_WALL_NS = 1_800_000_000 * NS_PER_S  # 2027-01-15T08:00:00Z, the start of a slot


class FakeClock:
    """A `Clock` that moves only when told to."""

    def __init__(self, wall_ns: int = START_WALL_NS, boot_id: str = "boot-1") -> None:
        self.boot_id = boot_id
        self.monotonic_ns = 1_000 * NS_PER_S
        self.boottime_ns = 1_000 * NS_PER_S
        self.wall_ns = wall_ns

    def now(self) -> Instant:
        return Instant(self.monotonic_ns, self.boottime_ns, self.wall_ns)

    def advance(self, seconds: float) -> Instant:
        """Time passes on all clocks."""
        ns = round(seconds * NS_PER_S)
        self.monotonic_ns += ns
        self.boottime_ns += ns
        self.wall_ns += ns
        return self.now()

    def sleep(self, seconds: float) -> None:
        """The machine sleeps: the monotonic clock stands still."""
        ns = round(seconds * NS_PER_S)
        self.boottime_ns += ns
        self.wall_ns += ns

    def step_wall(self, seconds: float) -> None:
        """Somebody sets the wall clock."""
        self.wall_ns += round(seconds * NS_PER_S)

    def reboot(self, boot_id: str, seconds_down: float = 60.0) -> None:
        """Another boot: the boot clocks begin anew."""
        self.boot_id = boot_id
        self.monotonic_ns = self.boottime_ns = 20 * NS_PER_S
        self.wall_ns += round(seconds_down * NS_PER_S)


def table_choice(g_per_kwh: float = 473.0, zone: str = "WORLD") -> GridChoice:
    """What the country table answers."""
    signal = GridSignal(
        micro(g_per_kwh), zone, "table", Basis.LIFECYCLE, 0, 2**62, True, 0, 365 * 86400 * NS_PER_S
    )
    return GridChoice(signal, FallbackLevel.TABLE, estimated=True)


class FixedGrid:
    """A `Grid` that answers what it is told to."""

    def __init__(self, choice: GridChoice | None = None) -> None:
        self.choice = choice or table_choice()

    def at(self, wall_ns: int) -> GridChoice:
        return self.choice

    def signals(self) -> tuple[GridSignal, ...]:
        return ()

    def statuses(self) -> tuple[SourceStatus, ...]:
        return ()


class ListFeed:
    """A `MeterFeed` that hands out the reports put into it."""

    def __init__(self) -> None:
        self.reports: list[MeterReport] = []
        self.status: tuple[MeterStatus, ...] = ()

    def put(self, report: MeterReport) -> None:
        self.reports.append(report)

    def drain(self) -> list[MeterReport]:
        taken, self.reports = self.reports, []
        return taken

    def statuses(self) -> tuple[MeterStatus, ...]:
        return self.status


SITE = SiteFactors(micro(1.56), "default", micro(0.36), "default", micro(3.908), "default")
