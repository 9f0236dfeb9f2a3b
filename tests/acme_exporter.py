"""A third party's exporter, and how it is installed: an entry point in a folder on the path."""

from __future__ import annotations

from pathlib import Path

SOURCE = '''
"""Writes one line for each snapshot, and for each run that has ended."""
import time
from dataclasses import dataclass
from pathlib import Path

from wattledger.setting import Count, FilePath, setting


@dataclass(frozen=True, slots=True)
class Settings:
    """A diary."""

    file: FilePath = setting(FilePath(""), "The diary.", '"/x"')
    mode: str = setting("good", "good, raise, exit or hang.")
    most: Count = setting(Count(10), "Runs at a time.")


class Diary:
    def __init__(self, settings, tools):
        self.settings, self.tools = settings, tools

    def export(self, snapshot):
        if self.settings.mode == "raise":
            raise RuntimeError("acme is broken")
        if self.settings.mode == "exit":
            raise SystemExit(1)
        if self.settings.mode == "hang":
            time.sleep(3600)
        runs = self.tools.runs.waiting(self.settings.most)
        with Path(self.settings.file).open("a") as file:
            file.write(f"commit {snapshot.books.commits}\\n")
            for run in runs:
                file.write(f"run {run.book.run.payee.job_id} {run.record_id}\\n")
        self.tools.runs.delivered(runs)
        return 0.0

    def close(self, last):
        with Path(self.settings.file).open("a") as file:
            file.write("closed\\n")


class Plugin:
    settings = Settings
    delivers_runs = True

    def faults(self, settings):
        return [] if settings.file else [("file", "is missing")]

    def make(self, settings, tools):
        return Diary(settings, tools)


PLUGIN = Plugin()
'''


def install(site: Path, **points: str) -> Path:
    """Make a folder that, on the module path, has the exporter installed.

    Args:
        site: the folder.
        points: more entry points: name → `module:attribute`.
    """
    info = site / "acme_exporter-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "acme_exporter.py").write_text(SOURCE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-exporter\nVersion: 1.0\n")
    lines = [
        f"{name} = {where}" for name, where in {"acme": "acme_exporter:PLUGIN", **points}.items()
    ]
    (info / "entry_points.txt").write_text("[wattledger.exporters]\n" + "\n".join(lines) + "\n")
    return site
