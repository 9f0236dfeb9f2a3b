"""Text of /proc, taken apart: what a meter and the attribution both need. No file is read here.

Formats: Linux `Documentation/filesystems/proc.rst`, section 1.8 (/proc/stat) and /proc/cpuinfo.
"""

from __future__ import annotations

_FIELDS = 8  # user nice system idle iowait irq softirq steal; guest is already inside user


def busy_and_total_ticks(text: str) -> tuple[int, int]:
    """The clock ticks that all CPUs together spent busy, and those that passed, since boot.

    Busy is user (guests included), nice, system, irq and softirq. Idle, iowait and steal (time
    that the hypervisor gave to others) are not; they are in the total.

    Args:
        text: /proc/stat, or as much of it as holds the line `cpu`.

    Raises:
        ValueError: there is no such line, or it is not what the kernel writes.
    """
    for line in text.splitlines():
        if line.startswith("cpu "):
            ticks = [int(field) for field in line.split()[1 : 1 + _FIELDS]]
            break
    else:
        raise ValueError("no line 'cpu' in /proc/stat")
    if len(ticks) < 4 or min(ticks) < 0:
        raise ValueError(f"unexpected line in /proc/stat: {line!r}")
    ticks += [0] * (_FIELDS - len(ticks))
    user, nice, system, _idle, _iowait, irq, softirq, _steal = ticks
    return user + nice + system + irq + softirq, sum(ticks)


def logical_cpus(text: str) -> int:
    """How many CPUs are online: the lines `cpu0`, `cpu1`, … of /proc/stat."""
    return sum(line[:3] == "cpu" and line[3:4].isdigit() for line in text.splitlines())


def cpu_model(text: str) -> str:
    """The first `model name` of /proc/cpuinfo; empty where there is none, as on Arm."""
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return " ".join(value.split())
    return ""
