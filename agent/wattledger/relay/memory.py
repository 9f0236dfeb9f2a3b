"""What a relay knows of its sources over a restart: last signals, when to ask next, pauses.

A small JSON file, replaced whole. It is written after each question that was asked, so that a relay
that is restarted over and over asks no more often than one that runs.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from wattledger.errors import GridError
from wattledger.grid.relay_reply import Voice, signals_fields, signals_of, voice_of
from wattledger.model import GridSignal
from wattledger.ports import Clock
from wattledger.relay.manners import LONGEST_S, Hold
from wattledger.units import NS_PER_S

log = logging.getLogger(__name__)

FILE = "relay.json"
_VERSION = 1
_MOST_BYTES = 16 * 1024 * 1024
_LONGEST_NS = round(LONGEST_S) * NS_PER_S
Key = tuple[str, str]


class Kept(NamedTuple):
    """What is kept of one source.

    Attributes:
        zone: of which zone.
        voice: whose.
        mark: differs once its settings or its token do.
        due_ns: on CLOCK_BOOTTIME, when it is asked next.
        holds: pauses that it asked for.
        signals: its last ones.
    """

    zone: str
    voice: Voice
    mark: str
    due_ns: int
    holds: tuple[Hold, ...]
    signals: tuple[GridSignal, ...]


class Memory:
    """The file. For any thread.

    Args:
        path: where; None: nothing is kept.
        clock: time.

    Attributes:
        kept: by zone and source, of an earlier run.
    """

    def __init__(self, path: Path | None, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._lock = threading.Lock()
        self._sources: Callable[[], Iterable[Kept]] = tuple
        self._last: object = None
        self._failing = False
        self.kept: Mapping[Key, Kept] = {}
        if path is not None and path.exists():
            try:
                self.kept = self._read(path)
            except (OSError, ValueError, TypeError, LookupError) as error:
                log.warning("%s is not read, all sources are asked anew: %s", path, error)

    def watch(self, sources: Callable[[], Iterable[Kept]]) -> None:
        """Whom to keep. Args: sources: what there is to be kept, by now."""
        self._sources = sources

    def save(self) -> None:
        """Write what has changed, if anything has."""
        if self._path is None:
            return
        with self._lock:
            kept = list(self._sources())
            state = [(one.zone, one.voice, one.due_ns, one.holds) for one in kept]
            if state == self._last:
                return
            try:
                self._write(self._path, kept)
            except OSError as error:
                if not self._failing:
                    log.warning("%s cannot be written: %s", self._path, error)
                self._failing = True
            else:
                self._last, self._failing = state, False

    def _write(self, path: Path, kept: Iterable[Kept]) -> None:
        now = self._clock.now()
        text = json.dumps(
            {
                "version": _VERSION,
                "boot_id": self._clock.boot_id,
                "boottime_ns": now.boottime_ns,
                "wall_ns": now.wall_ns,
                "sources": [
                    {
                        **signals_fields(one.zone, one.voice, one.signals),
                        "mark": one.mark,
                        "due_ns": one.due_ns,
                        "holds": [hold._asdict() for hold in one.holds],
                    }
                    for one in kept
                ],
            }
        )
        beside = path.with_name(f"{path.name}.{os.getpid()}")
        with open(beside, "w", encoding="utf-8", opener=_private) as out:
            out.write(text)
        beside.replace(path)

    def _read(self, path: Path) -> dict[Key, Kept]:
        with path.open("rb") as file:
            told = json.loads(file.read(_MOST_BYTES))
        if told["version"] != _VERSION:
            return {}
        now = self._clock.now()
        since_ns = 0  # how much CLOCK_BOOTTIME fell behind what was written
        written_ns = int(told["boottime_ns"])
        if told["boot_id"] != self._clock.boot_id or written_ns > now.boottime_ns:
            gone_ns = max(0, now.wall_ns - int(told["wall_ns"]))
            since_ns = now.boottime_ns - written_ns - gone_ns

        def due_ns(then_ns: Any) -> int:
            return min(int(then_ns) + since_ns, now.boottime_ns + _LONGEST_NS)

        found = {}
        for row in told["sources"]:
            try:
                voice = voice_of(row)
                signals: list[GridSignal] = []
                if row["signals"]:
                    signals = signals_of(row, str(row["zone"]), voice, now.wall_ns)
            except GridError as error:
                log.warning("%s: a source is forgotten: %s", path, error)
                continue
            holds = tuple(
                Hold(
                    str(hold["what"]),
                    str(hold["outcome"]),
                    str(hold["message"]),
                    due_ns(hold["due_ns"]),
                    bool(hold["everywhere"]),
                )
                for hold in row["holds"]
            )
            key = (str(row["zone"]), voice.source)
            due = due_ns(row["due_ns"])
            found[key] = Kept(key[0], voice, str(row["mark"]), due, holds, tuple(signals))
        return found


def memory_path() -> Path | None:
    """Where systemd lets a service keep something; None: it does not."""
    for name in ("RUNTIME_DIRECTORY", "STATE_DIRECTORY"):
        if given := os.environ.get(name, ""):
            return Path(given.split(":")[0]) / FILE
    return None


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
