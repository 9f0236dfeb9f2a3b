"""A /proc of processes that fork, work, end and are waited for, as files in the kernel's shapes."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from wattledger.procfs import NS_PER_TICK


@dataclass
class One:
    """A process as the kernel keeps it."""

    ppid: int
    start_ticks: int
    own: int = 0
    waited: int = 0  # of children that it has waited for
    zombie: bool = False


class FakeProcesses:
    """Processes below `procfs`; pid 1 is there from the beginning.

    Args:
        procfs: an existing directory.
        lists_children: the kernel has CONFIG_PROC_CHILDREN.
    """

    def __init__(self, procfs: Path, *, lists_children: bool = True) -> None:
        self.procfs = procfs
        self.lists_children = lists_children
        self.alive: dict[int, One] = {}
        self._unlisted: set[int] = set()
        self._ticks = 0
        procfs.mkdir(parents=True, exist_ok=True)
        if lists_children:
            (procfs / "thread-self").mkdir()
            (procfs / "thread-self/children").write_text("")
        self.spawn(1, 0, uid=0)

    def spawn(
        self,
        pid: int,
        ppid: int,
        *,
        uid: int = 1000,
        groups: tuple[int, ...] = (),
        cgroup: str = "/",
        anon_kb: int = 0,
        shmem_kb: int = 0,
    ) -> None:
        self._ticks += 1
        self.alive[pid] = One(ppid, self._ticks)
        directory = self.procfs / str(pid)
        (directory / f"task/{pid}").mkdir(parents=True)
        (directory / "cgroup").write_text(f"0::{cgroup}\n")
        self.memory(pid, anon_kb, shmem_kb, uid, groups)
        self._write(pid)
        self._write(ppid)

    def memory(
        self,
        pid: int,
        anon_kb: int,
        shmem_kb: int = 0,
        uid: int = 1000,
        groups: tuple[int, ...] = (),
    ) -> None:
        (self.procfs / f"{pid}/status").write_text(
            f"Name:\tx\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\nGid:\t{uid}\t{uid}\t{uid}\t{uid}\n"
            f"Groups:\t{' '.join(map(str, groups))} \n"
            f"RssAnon:\t{anon_kb} kB\nRssFile:\t77 kB\nRssShmem:\t{shmem_kb} kB\n"
        )

    def work(self, pid: int, ticks: int) -> None:
        self.alive[pid].own += ticks
        self._write(pid)

    def end(self, pid: int, heir: int = 1) -> None:
        """It exits; its children become the heir's (a subreaper, or init)."""
        self.alive[pid].zombie = True
        for child, one in self.alive.items():
            if one.ppid == pid:
                one.ppid = heir
                self._write(child)
        for one in (pid, heir, self.alive[pid].ppid):
            self._write(one)

    def wait_for(self, pid: int) -> None:
        """Its parent waits for it; init's own count is nobody's business."""
        gone = self.alive.pop(pid)
        shutil.rmtree(self.procfs / str(pid))
        if gone.ppid in self.alive:
            self.alive[gone.ppid].waited += gone.own + gone.waited
            self._write(gone.ppid)

    def forget(self, pid: int) -> None:
        """It vanishes without being waited for: its parent ignores SIGCHLD."""
        gone = self.alive.pop(pid)
        shutil.rmtree(self.procfs / str(pid))
        self._write(gone.ppid)

    def list_child(self, pid: int, *, listed: bool = True) -> None:
        """Whether its parent's list has it: a list that is read while others end may miss one."""
        (self._unlisted.discard if listed else self._unlisted.add)(pid)
        self._write(self.alive[pid].ppid)

    def _write(self, pid: int) -> None:
        one = self.alive.get(pid)
        if one is None:
            return
        directory = self.procfs / str(pid)
        state = "Z" if one.zombie else "S"
        own, waited = one.own // 2, one.waited // 2
        times = f"{own} {one.own - own} {waited} {one.waited - waited}"
        (directory / "stat").write_text(
            f"{pid} (a ) b) {state} {one.ppid} 1 1 0 -1 4194560 1 0 0 0 {times} "
            f"20 0 1 0 {one.start_ticks} 1 1\n"
        )
        if self.lists_children:
            theirs = [p for p, other in self.alive.items() if other.ppid == pid]
            children = [str(p) for p in theirs if p not in self._unlisted]
            (directory / f"task/{pid}/children").write_text("".join(f"{p} " for p in children))


def ns(ticks: int) -> int:
    """Clock ticks in ns."""
    return ticks * NS_PER_TICK
