"""Value files of sysfs, kept open: one `pread` per file and turn, looked for again as they go.

Shared by the meters that read sysfs. A file that fails is closed, reported and looked for again:
at once, then with growing pauses; after a driver was loaded anew the same path may belong to
another device, so nothing is opened again without a new survey.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

from wattledger.errors import MeterUnavailable
from wattledger.model import DeviceInfo, Fault, Instant
from wattledger.ports import Clock
from wattledger.units import NS_PER_S, seconds

SURVEY_NS = 60 * NS_PER_S  # hardware and permissions that appear later are found within this
_VALUE_BYTES = 32  # a 64-bit number has at most 20 digits

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFacts:
    """One value file and what a survey found out about it; `doctor` shows these.

    Attributes:
        label: what the kernel calls it.
        path: the file that holds the value.
        device: the device it measures; None: it is never added, `message` says why.
        reason: why it cannot be read now, one lower-case word with underscores; empty: it can.
        message: the reason as a sentence.
        hint: what to do about it.
    """

    label: str
    path: Path
    device: DeviceInfo | None = None
    reason: str = ""
    message: str = ""
    hint: str = ""

    @property
    def usable(self) -> bool:
        """It measures a device and can be read."""
        return self.device is not None and not self.reason


F = TypeVar("F", bound=FileFacts)


class KeptFiles(Generic[F]):
    """The usable files of a survey, with their descriptors.

    Args:
        meter: the meter's name, for faults and the log.
        clock: says when it is time for another survey.
        survey: finds the files; called at the first read, every minute and after a failure.
        unavailable: the error to raise when a survey found no usable file.
    """

    def __init__(
        self,
        meter: str,
        clock: Clock,
        survey: Callable[[], list[F]],
        unavailable: Callable[[list[F]], MeterUnavailable],
    ) -> None:
        self._meter = meter
        self._clock = clock
        self._survey = survey
        self._unavailable = unavailable
        self._open: dict[str, tuple[F, int]] = {}
        self._known: dict[str, DeviceInfo] = {}
        self._lost: set[str] = set()
        self._survey_at_ns = 0
        self._pause_ns = NS_PER_S
        self.devices: tuple[DeviceInfo, ...] = ()

    def read(self) -> tuple[list[tuple[F, int, Instant]], list[Fault]]:
        """Each usable file's facts, number and instant, and what could not be read.

        Raises:
            MeterUnavailable: a survey found nothing that can be read.
        """
        faults: list[Fault] = []
        now_ns = self._clock.now().monotonic_ns
        if now_ns >= self._survey_at_ns:
            faults = self._look(now_ns)
        values: list[tuple[F, int, Instant]] = []
        failed: list[tuple[str, F, Exception]] = []
        for name, (facts, fd) in self._open.items():
            try:
                value = int(os.pread(fd, _VALUE_BYTES, 0))
            except (OSError, ValueError) as error:
                failed.append((name, facts, error))
            else:
                values.append((facts, value, self._clock.now()))
        for name, facts, problem in failed:
            reason, message, hint = explain(facts.path, problem)
            self._lose(name, message)
            faults.append(Fault(self._meter, reason, message, hint, device=name))
            self._survey_at_ns = 0
        return values, faults

    def close(self) -> None:
        """Close all files; the next `read` surveys and opens them again."""
        for _, fd in self._open.values():
            os.close(fd)
        self._open.clear()
        self._survey_at_ns = 0

    def _look(self, now_ns: int) -> list[Fault]:
        """Survey: open what is new, close what is gone, say what cannot be used."""
        found = self._survey()
        faults = []
        fresh: dict[str, tuple[F, int]] = {}
        for facts in found:
            if facts.device is None:
                continue
            name = facts.device.name
            if not facts.reason:
                kept = self._open.get(name)
                if kept is not None and kept[0].path == facts.path:
                    fresh[name] = (facts, self._open.pop(name)[1])
                    continue
                try:
                    fd = os.open(facts.path, os.O_RDONLY | os.O_CLOEXEC)
                except OSError as error:  # it changed since the survey a moment ago
                    reason, message, hint = explain(facts.path, error)
                    faults.append(Fault(self._meter, reason, message, hint, device=name))
                    continue
                fresh[name] = (facts, fd)
            else:
                faults.append(
                    Fault(self._meter, facts.reason, facts.message, facts.hint, device=name)
                )
        for _, fd in self._open.values():
            os.close(fd)
        self._open = fresh
        transient = any(fault.reason in TRANSIENT for fault in faults)
        pause_ns = self._pause_ns if transient else SURVEY_NS
        self._pause_ns = min(2 * self._pause_ns, SURVEY_NS) if transient else NS_PER_S
        self._survey_at_ns = now_ns + pause_ns
        self._present(found)
        if not fresh:
            self._survey_at_ns = 0  # the caller knows how long to leave us alone
            down = self._unavailable(found)
            down.retry_after_s = min(down.retry_after_s, seconds(pause_ns))
            raise down
        return faults

    def _present(self, found: list[F]) -> None:
        """Bring the list of devices up to date; log what was lost and what is back."""
        here = {facts.device.name: facts for facts in found if facts.device is not None}
        for name, (facts, _) in self._open.items():
            if facts.device is not None:
                self._known[name] = facts.device
            if name in self._lost:
                self._lost.discard(name)
                _log.info("%s: %s can be read again", self._meter, name)
        for name, info in self._known.items():
            if name not in self._open:
                self._known[name] = replace(info, present=name in here)
                why = here[name].message if name in here else "the kernel no longer shows it"
                self._lose(name, why)
        self.devices = tuple(self._known[name] for name in sorted(self._known))

    def _lose(self, name: str, message: str) -> None:
        """Close a device's file, if it is open, and log the loss once."""
        kept = self._open.pop(name, None)
        if kept is not None:
            os.close(kept[1])
        if name not in self._lost:
            self._lost.add(name)
            _log.warning("%s: %s cannot be read now: %s", self._meter, name, message)


TRANSIENT = frozenset({"read_error", "bad_value", "gone"})


def explain(path: Path, error: Exception) -> tuple[str, str, str]:
    """Reason, sentence and hint for a value file that could not be read."""
    if isinstance(error, PermissionError):
        return "no_permission", f"no permission to read {path}", ""
    if isinstance(error, OSError):
        name = errno.errorcode.get(error.errno or 0, "error")
        if error.errno in (errno.ENODEV, errno.ENOENT, errno.ENXIO):
            return "gone", f"{path} is gone ({name})", "the driver was unloaded or loaded anew"
        return "read_error", f"reading {path} failed with {name}", ""
    return "bad_value", f"{path} does not hold a number", ""


def text_of(path: Path) -> str | None:
    """A small file's text, stripped; None where it cannot be read."""
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:
        return None


def number_of(path: Path) -> int | None:
    """A small file's number; None where it cannot be read or is none."""
    try:
        return int(path.read_bytes())
    except (OSError, ValueError):
        return None
