"""Whose processes are on a GPU: from process ids to runs, by cgroup."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from wattledger.jobs.hierarchy import process_cgroups
from wattledger.jobs.paths import Paths, Place
from wattledger.model.measuring import Process
from wattledger.procfs import start_ticks
from wattledger.units import NS_PER_S

LOOK_AGAIN_NS = 60 * NS_PER_S


_Life = tuple[int, int]  # process id and start: what tells a process from the next of its id


class Nobody(Enum):
    """A process that is no job's."""

    STRANGER = auto()  # it runs outside any job, or cannot be looked into
    GONE = auto()  # it has ended since it was listed; its id may be another's by now


class Located(NamedTuple):
    """The processes on a GPU.

    Attributes:
        places: the jobs' cgroups that they are in, each once.
        strangers: some are in none.
        sm: of these cgroups, how much their processes use the GPU's multiprocessors, all of them
            in one unit; None: it is not told of all of them.
        instances: MIG instance → those of these cgroups whose processes are on it.
    """

    places: tuple[Place, ...]
    strangers: bool
    sm: Mapping[str, int] | None = None
    instances: Mapping[str, tuple[str, ...]] = MappingProxyType({})


class Locator:
    """Finds the cgroups of processes.

    A process seldom changes its cgroup after its first moments, so one that is known by its id and
    start is looked at again after a while only, others whenever a driver has made a new list.
    """

    def __init__(self, procfs: Path, paths: Paths) -> None:
        """Args: procfs: where it is mounted. paths: which cgroups are jobs'."""
        self._procfs = procfs
        self._paths = paths
        self._last: dict[str, tuple[tuple[Process, ...], Located]] = {}
        self._settled: dict[_Life, tuple[Place | Nobody, int, int]] = {}

    def locate(
        self, processes: Mapping[str, tuple[Process, ...]], now_ns: int
    ) -> dict[str, Located]:
        """The processes of each GPU; the same tuple as before is not looked at again.

        Args:
            processes: GPU → what its driver lists.
            now_ns: CLOCK_MONOTONIC.
        """
        fresh: dict[str, tuple[tuple[Process, ...], Located]] = {}
        seen: dict[_Life, Place | Nobody] = {}
        for device, listed in processes.items():
            last = self._last.get(device)
            if last is None or last[0] is not listed:
                last = (listed, self._look(listed, seen, now_ns))
            fresh[device] = last
        self._last = fresh
        if seen:
            listed_now = {_life(process) for listed, _ in fresh.values() for process in listed}
            self._settled = {p: k for p, k in self._settled.items() if p in listed_now}
        return {device: located for device, (_, located) in fresh.items()}

    def _look(
        self, listed: tuple[Process, ...], seen: dict[_Life, Place | Nobody], now_ns: int
    ) -> Located:
        places: dict[str, Place] = {}
        strangers = False
        sm: dict[str, int] | None = {}
        instances: dict[str, tuple[str, ...]] = {}
        for process in listed:
            life = _life(process)
            found = seen.get(life)
            if found is None:
                found = seen[life] = self._settle(process, now_ns)
            if not isinstance(found, Place):
                strangers = strangers or found is Nobody.STRANGER
                continue
            path = found.cgroup
            places[path] = found
            if process.sm is None:
                sm = None
            elif sm is not None:
                sm[path] = sm.get(path, 0) + process.sm
            if process.instance is not None and path not in instances.get(process.instance, ()):
                instances[process.instance] = (*instances.get(process.instance, ()), path)
        return Located(tuple(places.values()), strangers, sm, instances)

    def _settle(self, process: Process, now_ns: int) -> Place | Nobody:
        life = _life(process)
        found, looks, due_ns = self._settled.get(life, (Nobody.GONE, 0, 0))
        if not process.start_ticks or now_ns >= due_ns:
            found = self._find(process)
            due_ns = now_ns + (LOOK_AGAIN_NS if looks else 0)
            self._settled[life] = (found, looks + 1, due_ns)
        return found

    def _find(self, process: Process) -> Place | Nobody:
        cgroups = process_cgroups(self._procfs, process.pid, self._paths.locate)
        # After its cgroups, so that an id that was used again in between is found out.
        now_ticks = start_ticks(self._procfs, process.pid) if process.start_ticks else 0
        if now_ticks != process.start_ticks:
            return Nobody.GONE
        places = [
            place for path in cgroups for place in self._paths.places(path, any_unit=True)[:1]
        ]
        return min(places, key=lambda place: place.rank, default=Nobody.STRANGER)


def _life(process: Process) -> _Life:
    return process.pid, process.start_ticks
