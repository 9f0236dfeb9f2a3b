"""A cgroup tree and a /proc made of files, in the shapes that the kernel shows."""

from __future__ import annotations

import shutil
from pathlib import Path

CID = "0123456789abcdef" * 4
CID2 = "fedcba9876543210" * 4
POD_UID = "12345678-1234-1234-1234-123456789abc"


class FakeNode:
    """sysfs and procfs below one directory."""

    def __init__(self, root: Path, version: str = "v2") -> None:
        self.sysfs, self.procfs = root / "sys", root / "proc"
        self.cgroup = self.sysfs / "fs" / "cgroup"
        self.version = version
        self.procfs.mkdir(parents=True)
        self._graves, self._removed = root / "removed", 0
        self._graves.mkdir()
        (self.procfs / "meminfo").write_text("MemTotal:       1000000 kB\nMemFree: 1 kB\n")
        if version == "v2":
            self._hierarchies = [self.cgroup]
            self.cgroup.mkdir(parents=True)
            (self.cgroup / "cgroup.controllers").write_text("cpu memory\n")
        else:
            names = ["cpu,cpuacct", "memory", "cpuset", "freezer", "systemd"]
            names += ["unified"] if version == "hybrid" else []
            self._hierarchies = [self.cgroup / name for name in names]
            for base in self._hierarchies:
                base.mkdir(parents=True)
            (self.cgroup / "cpuacct").symlink_to("cpu,cpuacct")
            if version == "hybrid":
                (self.cgroup / "unified/cgroup.controllers").write_text("")

    def make(
        self,
        path: str,
        cpu_s: float = 0.0,
        memory: int = 0,
        cpus: str = "",
        only: tuple[str, ...] = (),
    ) -> None:
        """A cgroup with its counters; `only` names the hierarchies of v1 that have it."""
        for base in self._hierarchies:
            if only and base.name not in only:
                continue
            directory = base / path.lstrip("/")
            directory.mkdir(parents=True, exist_ok=True)
            (directory / "cgroup.procs").write_text("")
            if self.version == "v2" or base.name == "unified":
                (directory / "cgroup.events").write_text("populated 1\nfrozen 0\n")
            if base.name == "cpu,cpuacct":
                (directory / "cpuacct.usage").write_text(f"{round(cpu_s * 1e9)}\n")
            if base.name == "unified" or self.version == "v2":
                text = f"usage_usec {round(cpu_s * 1e6)}\nuser_usec 1\nsystem_usec 1\n"
                (directory / "cpu.stat").write_text(text)
            if self.version == "v2":
                stat = f"anon {memory}\nfile 777\nkernel 5\nshmem 0\n"
                (directory / "memory.stat").write_text(stat)
                (directory / "cpuset.cpus").write_text(f"{cpus}\n")
            if base.name == "memory":
                (directory / "memory.stat").write_text(
                    f"rss 1\nshmem 1\ntotal_cache 9\ntotal_rss {memory}\ntotal_shmem 0\n"
                )
            if base.name == "cpuset":
                (directory / "cpuset.cpus").write_text(f"{cpus}\n")

    def remove(self, path: str) -> None:
        """Gone; kept elsewhere, since the kernel does not give an inode twice."""
        for base in self._hierarchies:
            directory = base / path.lstrip("/")
            if directory.exists():
                self._removed += 1
                directory.rename(self._graves / str(self._removed))

    def process(self, pid: int, path: str, start_ticks: int = 100) -> None:
        directory = self.procfs / str(pid)
        directory.mkdir(exist_ok=True)
        if self.version == "v2":
            text = f"0::{path}\n"
        else:
            text = f"3:cpu,cpuacct:{path}\n2:memory:{path}\n1:name=systemd:{path}\n"
        (directory / "cgroup").write_text(text)
        (directory / "stat").write_text(
            f"{pid} (a ) b) S 1 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 {start_ticks} 1 1\n"
        )

    def gone(self, pid: int) -> None:
        shutil.rmtree(self.procfs / str(pid))
