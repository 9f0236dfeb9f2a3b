"""What can be seen of Slurm's jobs from here: whether their use is counted, and who tells of GPUs.

A cgroup's directory may be listed by anybody, so that no daemon is needed for it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from wattledger.config import Config
from wattledger.doctor.finding import Finding
from wattledger.jobs import hierarchy
from wattledger.jobs.hierarchy import Layout
from wattledger.jobs.paths import Paths
from wattledger.model.jobs import SLURM
from wattledger_exporters.wording import printable

MAX_LISTED = 2000  # directories, on a node that is full of them
_HOOK_FILE = re.compile(r"[0-9]{1,10}|ended\.[0-9]{1,3}", re.ASCII)
_README = "deploy/slurm/README.md says how"


def of_slurm(config: Config) -> Iterator[Finding]:
    """What keeps Slurm's jobs from being accounted for in full; nothing where none runs."""
    if SLURM not in config.jobs.managers:
        return
    layout = hierarchy.find_layout(Path(config.path.sysfs))
    jobs = _slurm_jobs(layout, Paths((SLURM,), (), config.jobs.slurm.roots))
    if not jobs:
        return
    uncounted = [path for path in jobs if _is_uncounted(layout, path)]
    if uncounted:
        yield Finding(
            "jobs",
            "problem",
            f"the CPU time of {len(uncounted)} of {_jobs(len(jobs))} is counted nowhere (such as "
            f"{printable(uncounted[0])}, which has no cpuacct): it is booked as system",
            f"JobAcctGatherType=jobacct_gather/cgroup in slurm.conf has it counted; {_README}",
        )
    directory = Path(config.jobs.slurm.hooks_dir)
    others = config.jobs.slurm.dcgm_dir or config.jobs.slurm.jobstats_dir
    if not others and _is_silent(directory):
        yield Finding(
            "jobs",
            "note",
            f"{_jobs(len(jobs))} here, of which no hook has told anything in {directory}: a GPU is "
            "a job's only while its processes are on it, not while it reserves it",
            f"install the prolog and epilog of deploy/slurm; {_README}",
        )


def _jobs(count: int) -> str:
    return "1 Slurm job" if count == 1 else f"{count} Slurm jobs"


def _slurm_jobs(layout: Layout, paths: Paths) -> list[str]:
    """The cgroups of Slurm's jobs, in whichever of the hierarchies they are."""
    found: set[str] = set()
    for base in layout.walked():
        pending, listed = [""], 0
        while pending and listed < MAX_LISTED:
            path, listed = pending.pop(), listed + 1
            try:
                with os.scandir(f"{base}{path}") as entries:
                    names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
            except OSError:  # it has just gone
                continue
            for below in (f"{path}/{name}" for name in names):
                if paths.at(below) is not None:
                    found.add(below)
                elif paths.leads_to_jobs(below):
                    pending.append(below)
    return sorted(found)


def _is_uncounted(layout: Layout, path: str) -> bool:
    if not layout.hybrid or hierarchy.cpu_ns(layout, path) is not None:
        return False
    return any(Path(f"{base}{path}").is_dir() for base in layout.walked())  # it has not just ended


def _is_silent(directory: Path) -> bool:
    try:
        return not any(_HOOK_FILE.fullmatch(file.name) for file in directory.iterdir())
    except FileNotFoundError:
        return True
    except OSError:  # closed to whoever asks, as PrivateData has it: the daemon may read it
        return False
