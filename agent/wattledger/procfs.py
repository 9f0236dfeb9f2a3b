"""How busy the CPUs were, through psutil, and what they are called."""

from __future__ import annotations

import os
from pathlib import Path

import psutil

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
NS_PER_TICK = 1_000_000_000 // _TICKS_PER_S


def busy_and_total_ticks(procfs: Path) -> tuple[int, int]:
    """The clock ticks that all CPUs together spent busy, and those that passed, since boot.

    Busy is user (guests included), nice, system, irq and softirq. Idle, iowait and steal (time
    that the hypervisor gave to others) are not; they are in the total.

    Args:
        procfs: root of procfs.

    Raises:
        OSError: its `stat` cannot be read.
        ValueError: it is not what the kernel writes.
    """
    psutil.PROCFS_PATH = str(procfs)
    try:
        times = psutil.cpu_times()
        busy_s = times.user + times.nice + times.system + times.irq + times.softirq
        total_s = busy_s + times.idle + times.iowait + times.steal
    except (TypeError, IndexError) as error:
        raise ValueError(f"unexpected first line in {procfs / 'stat'}") from error
    return round(busy_s * _TICKS_PER_S), round(total_s * _TICKS_PER_S)


def logical_cpus(procfs: Path) -> int:
    """How many CPUs are online.

    Raises:
        OSError: `stat` cannot be read.
    """
    psutil.PROCFS_PATH = str(procfs)
    return len(psutil.cpu_times(percpu=True))


def start_ticks(procfs: Path, pid: int) -> int | None:
    """When a process began, in clock ticks since boot: with its id that is who it is.

    Returns:
        Field 22 of its `stat` (proc_pid_stat(5)); None where it is gone or cannot be told.
    """
    # Asked for every process on every GPU again and again: without pathlib and buffers it takes
    # half the time. What is read ends well beyond field 22.
    try:
        handle = os.open(f"{procfs}/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        text = os.read(handle, 1024)
    except OSError:  # it has ended since
        return None
    finally:
        os.close(handle)
    fields = text.rpartition(b")")[2].split()  # the name before may hold anything
    try:
        return int(fields[19])
    except (IndexError, ValueError):
        return None


def cpu_model(text: str) -> str:
    """The first `model name` of /proc/cpuinfo; empty where there is none, as on Arm."""
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return " ".join(value.split())
    return ""


def memory_total_bytes(procfs: Path) -> int:
    """MemTotal; 0: not told."""
    try:
        for line in (procfs / "meminfo").read_text().splitlines():
            if line.startswith("MemTotal:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        return 0
    return 0
