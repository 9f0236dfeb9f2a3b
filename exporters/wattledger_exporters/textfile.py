"""The exporter `textfile`: the metrics as a file for the textfile collector of node_exporter.

A page is written beside its place and renamed, so that a reader sees one page or another and never
half of one (https://github.com/prometheus/node_exporter#textfile-collector). The file goes with
the daemon, as `/metrics` does: counters of a daemon that has ended must not look alive. One that is
killed leaves it behind; `wattledger_books_timestamp_seconds` in it grows old, then.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wattledger.errors import ExportFailed
from wattledger.model import Snapshot
from wattledger.ports import ExporterTools
from wattledger.setting import DurationNs, FilePath, s_ns, setting
from wattledger.units import NS_PER_S, seconds
from wattledger_exporters.prometheus import TextRenderer

SUFFIX = ".prom"
MODE = 0o644


@dataclass(frozen=True, slots=True)
class TextfileSettings:
    """The metrics as a file, for node_exporter (`--collector.textfile.directory`)."""

    file: FilePath = setting(
        FilePath(""),
        "The file to write, `.prom` at its end, in the directory that node_exporter reads. The "
        "daemon must be allowed to write there (ReadWritePaths of its unit).",
        '"/var/lib/prometheus/node-exporter/wattledger.prom"',
    )
    interval: DurationNs = setting(
        s_ns(15), 'How often it is written, with a commit. "0s": with each commit.'
    )
    keep_at_end: bool = setting(
        False,
        "Leave the file when the daemon ends. node_exporter then goes on showing its last state "
        "as if the daemon lived.",
    )


class TextfileExporter:
    """Writes the file; implements `ports.Exporter`."""

    def __init__(self, settings: TextfileSettings, tools: ExporterTools) -> None:
        """Args: settings: of the table. tools: what the daemon gives it."""
        self._settings = settings
        self._tools = tools
        self._file = Path(settings.file)
        # Its name does not end in .prom, so that no reader takes it for a page.
        self._beside = self._file.with_name(f".{self._file.name}.new")
        self._renderer = TextRenderer()
        self._last: Snapshot | None = None

    def export(self, snapshot: Snapshot) -> float:
        """Write the page of a snapshot.

        Raises:
            ExportFailed: the file cannot be written.
        """
        if snapshot is self._last:  # nothing new: an old page must not look fresh
            return 0.0
        begun_ns = self._tools.clock.now().monotonic_ns
        self._write(self._renderer.render(snapshot, self._tools.job_labels))
        self._last = snapshot
        spent_ns = self._tools.clock.now().monotonic_ns - begun_ns
        return seconds(max(0, self._settings.interval - spent_ns))

    def _write(self, page: bytes) -> None:
        try:
            with contextlib.suppress(FileNotFoundError):  # of a daemon that was killed
                self._beside.unlink()
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(self._beside, flags, 0o600)
            with open(descriptor, "wb") as file:  # noqa: PTH123  (a descriptor)
                file.write(page)
                os.fchmod(descriptor, MODE)  # whatever the umask
            self._beside.replace(self._file)
        except OSError as error:
            with contextlib.suppress(OSError):
                self._beside.unlink()
            raise ExportFailed(
                "write",
                f"{self._file} cannot be written: {error.strerror}",
                f"the daemon's user must own {self._file.parent} or be in its group, and under "
                f"systemd needs ReadWritePaths={self._file.parent}",
                retry_after_s=15.0,
            ) from error

    def close(self, last: Snapshot | None) -> None:
        """The file goes, or shows the last state where it is to stay."""
        if not self._settings.keep_at_end:
            with contextlib.suppress(OSError):
                self._file.unlink()
        elif last is not None:
            with contextlib.suppress(ExportFailed):
                self._write(self._renderer.render(last, self._tools.job_labels))


class TextfilePlugin:
    """Implements `ports.ExporterPlugin`."""

    settings = TextfileSettings
    delivers_runs = False

    def faults(self, settings: TextfileSettings) -> Sequence[tuple[str, str]]:
        """What cannot be written, as far as it can be told without writing."""
        found: list[tuple[str, str]] = []
        file = Path(settings.file)
        if not settings.file:
            found.append(("file", 'is missing; write one such as "/…/wattledger.prom"'))
        elif not file.is_absolute() or file.suffix != SUFFIX or not file.stem:
            found.append(("file", f"{settings.file!r} is no absolute path to a file NAME.prom"))
        if settings.interval > 3600 * NS_PER_S:
            found.append(("interval", 'is longer than "1h"'))
        return found

    def make(self, settings: TextfileSettings, tools: ExporterTools) -> TextfileExporter:
        """The exporter."""
        return TextfileExporter(settings, tools)


PLUGIN = TextfilePlugin()
