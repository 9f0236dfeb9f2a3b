"""The processes of one command: a root and all its descendants, and what they have used.

CPU time is utime + stime + cutime + cstime of the living members (proc_pid_stat(5)): a child that
was waited for moves into its parent's cutime, so that the sum is conserved; a zombie still counts.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from wattledger.procfs import NS_PER_TICK

MAX_MEMBERS = 4096  # of one tree; what lies beyond counts when its parents have waited for it
MAX_DEPTH = 4096


class Stat(NamedTuple):
    """Some of /proc/PID/stat.

    Attributes:
        ppid: its parent.
        start_ticks: when it began.
        cpu_ticks: what it and the children that it waited for have used.
        is_dead: it has ended, and waits to be waited for.
    """

    ppid: int
    start_ticks: int
    cpu_ticks: int
    is_dead: bool


class Owner(NamedTuple):
    """Whose a process is: some of /proc/PID/status."""

    uid: int
    groups: frozenset[int]


class Processes:
    """Looks at processes; keeps nothing but how children are found on this kernel."""

    def __init__(self, procfs: Path) -> None:
        """Args: procfs: where it is mounted."""
        self._root = str(procfs)
        self._parents: dict[int, list[int]] | None = None
        # Else the kernel was built without CONFIG_PROC_CHILDREN.
        self._lists_children = (procfs / "thread-self/children").exists()

    def begin(self) -> None:
        """A new look: what was kept of the one before is no longer true."""
        self._parents = None

    def stat(self, pid: int) -> Stat | None:
        """A process; None: it is gone."""
        text = self._read(f"{self._root}/{pid}/stat")
        fields = text.rpartition(b")")[2].split() if text else []
        try:
            used = sum(int(field) for field in fields[11:15])
            # A main thread that has ended is a zombie too, while other threads go on.
            dead = fields[0] in (b"Z", b"X") and int(fields[17]) <= 1
            return Stat(int(fields[1]), int(fields[19]), used, dead)
        except (IndexError, ValueError):
            return None

    def children(self, pid: int) -> list[int]:
        """The children of a process, whichever of its threads made them."""
        if not self._lists_children:  # one map of all processes for each look
            if self._parents is None:
                self._parents = self._all_children()
            return self._parents.get(pid, [])
        found: list[int] = []
        for thread in self._numbers(f"{self._root}/{pid}/task"):
            text = self._read(f"{self._root}/{pid}/task/{thread}/children")
            found += map(int, (text or b"").split())
        return found

    def _all_children(self) -> dict[int, list[int]]:
        children: dict[int, list[int]] = {}
        for pid in self._numbers(self._root):
            stat = self.stat(pid)
            if stat is not None:
                children.setdefault(stat.ppid, []).append(pid)
        return children

    @staticmethod
    def _numbers(directory: str) -> list[int]:
        try:
            with os.scandir(directory) as found:
                return [int(entry.name) for entry in found if entry.name.isdigit()]
        except OSError:
            return []

    def ancestors(self, pid: int) -> list[int]:
        """The process itself, its parent, its parent's parent, …"""
        chain: list[int] = []
        while pid > 0 and pid not in chain and len(chain) < MAX_DEPTH:
            chain.append(pid)
            stat = self.stat(pid)
            pid = stat.ppid if stat is not None else 0
        return chain

    def owner(self, pid: int) -> Owner | None:
        """Whose it is; None: it is gone."""
        fields = self._status(pid)
        try:
            uid = int(fields[b"Uid"].split()[1])
            groups = {int(fields[b"Gid"].split()[1]), *map(int, fields[b"Groups"].split())}
        except (KeyError, IndexError, ValueError):
            return None
        return Owner(uid, frozenset(groups))

    def memory_bytes(self, pid: int) -> tuple[int, int]:
        """Its anonymous and its shared memory; (0, 0) where it has none, or is gone."""
        fields = self._status(pid)
        try:
            anonymous = int(fields[b"RssAnon"].split()[0]) * 1024
            return anonymous, int(fields[b"RssShmem"].split()[0]) * 1024
        except (KeyError, IndexError, ValueError):
            return 0, 0

    def _status(self, pid: int) -> dict[bytes, bytes]:
        text = self._read(f"{self._root}/{pid}/status") or b""
        lines = (line.partition(b":") for line in text.split(b"\n"))
        return {name: value for name, _, value in lines}

    @staticmethod
    def _read(path: str) -> bytes | None:
        # Not `Path.read_bytes`: this is once per process and second.
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            parts = []
            while part := os.read(file, 65536):
                parts.append(part)
            return b"".join(parts)
        except OSError:
            return None
        finally:
            os.close(file)


class ProcessTree:
    """A root and its descendants.

    Attributes:
        pid: the root.
        start_ticks: when it began, so that a later process of the same id is not taken for it.
        members: process id → start ticks, as of the last walk; the root is among them.
        used_ns: CPU time since it began to count; never falls.
        raw_ns: CPU time of the living members as last counted, from which a restarted daemon goes
            on.
    """

    def __init__(
        self, processes: Processes, pid: int, start_ticks: int, raw_ns: int | None = None
    ) -> None:
        """A tree whose CPU time counts from now on.

        Args:
            processes: how to look at them.
            pid: the root.
            start_ticks: of the root.
            raw_ns: what an earlier process of ours last saw, to go on from there; None: what the
                tree has used so far does not count.
        """
        self._processes = processes
        self.pid = pid
        self.start_ticks = start_ticks
        self.members: dict[int, int] = {pid: start_ticks}
        self.used_ns = 0
        self._lost_ns = 0
        self._fell = False
        self.raw_ns = self._base_ns = 0
        if raw_ns is None:
            self.look()
            raw_ns = self.raw_ns
        self.raw_ns = self._base_ns = raw_ns
        self.used_ns = 0

    def look(self, *, walk: bool = True) -> bool:
        """See what it has used.

        Args:
            walk: find new members, as a look after a fall always does; without it what these have
                used so far is seen at the next walk, since nothing of it is lost.

        Returns:
            Whether the root is still there.
        """
        root = self._processes.stat(self.pid)
        if root is None or root.start_ticks != self.start_ticks or root.is_dead:
            return False
        ticks = self._walk(root) if walk or self._fell else self._look_again(root)
        self._count(ticks * NS_PER_TICK)
        return True

    def _walk(self, root: Stat) -> int:
        # Parents before their children: one that is waited for in between is then missing once,
        # which the next look sees, and never counted twice.
        members = {self.pid: self.start_ticks}
        ticks = root.cpu_ticks
        waiting = [self.pid]
        while waiting:
            parent = waiting.pop()
            for pid in self._processes.children(parent):
                if pid in members or len(members) >= MAX_MEMBERS:
                    continue
                stat = self._processes.stat(pid)
                if stat is None or stat.ppid != parent:
                    continue  # its id is another's by now
                members[pid] = stat.start_ticks
                ticks += stat.cpu_ticks
                waiting.append(pid)
        self.members = members
        return ticks

    def _look_again(self, root: Stat) -> int:
        ticks = root.cpu_ticks
        for pid, start_ticks in self.members.items():
            if pid != self.pid:
                stat = self._processes.stat(pid)
                if stat is not None and stat.start_ticks == start_ticks:
                    ticks += stat.cpu_ticks
        return ticks

    def _count(self, raw_ns: int) -> None:
        used_ns = raw_ns - self._base_ns + self._lost_ns
        if used_ns < self.used_ns:
            # Once: a member that moves to its parent's count just now, or that a list of children
            # missed. Twice: one that was not waited for (SIGCHLD ignored), and its time is gone.
            if not self._fell:
                self._fell = True
                return
            self._lost_ns += self.used_ns - used_ns
        else:
            self.used_ns = used_ns
        self.raw_ns, self._fell = raw_ns, False

    def memory_bytes(self) -> int:
        """Anonymous memory of all members, and the largest shared memory of one of them.

        Shared memory is the same for many, as with the workers of a data loader; what a forked
        child shares with its parent counts for both, so that the caller bounds the whole.
        """
        anonymous, shared = 0, 0
        for pid in self.members:
            own, common = self._processes.memory_bytes(pid)
            anonymous += own
            shared = max(shared, common)
        return anonymous + shared
