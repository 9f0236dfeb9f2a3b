"""Jobs' names and array ids, which only the controller's PrologSlurmctld knows."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Collection
from pathlib import Path

from wattledger.jobs.claims.slurm_text import JOB_ID, parse_name_file
from wattledger.model import Fault
from wattledger.ports import Clock
from wattledger.units import NS_PER_S

_MAX_BYTES = 4096
_ASK_AGAIN_NS = 10 * NS_PER_S
_ASK_FOR_NS = 300 * NS_PER_S
_UNKNOWN = ("", "", "")

Known = tuple[str, str, str]
"""Name, array job id, array task id."""


def in_a_thread(work: Callable[[], None]) -> None:
    """Runs `work` beside us; nobody waits for it, so that it may hang."""
    threading.Thread(target=work, name="wattledger-job-names", daemon=True).start()


class JobNames:
    """Looks for `JOB-ID` files in a directory that the controller shares with its nodes.

    Such a directory is often a network file system, which may hang: so the files are read in a
    thread of their own, one at a time, and `of` answers with what is known. If that thread hangs,
    names stay unknown, and nothing else happens.

    What a file says is shown and never decides who pays. It counts if its owner is trusted and
    nobody else may write to it.

    Args:
        clock: says when to look again for a file that was not there.
        directory: where the controller writes.
        trusted_uids: who may own the files: root and SlurmUser.
        run: how to run the look-up; tests run it at once.
    """

    SOURCE = "slurm_names"

    def __init__(
        self,
        clock: Clock,
        directory: Path,
        *,
        trusted_uids: Collection[int] = (0,),
        run: Callable[[Callable[[], None]], None] = in_a_thread,
    ) -> None:
        self._clock = clock
        self._directory = directory
        self._trusted = frozenset(trusted_uids)
        self._run = run
        self._lock = threading.Lock()
        self._known: dict[str, tuple[int, Known]] = {}
        self._asked: dict[str, tuple[int, int, int]] = {}  # id → (of which run, first, last) asked
        self._queue: list[tuple[str, int]] = []
        self._busy = False
        self._problem: Fault | None = None
        self.version = 0  # rises whenever another name is known

    def of(self, job_id: str, run_ns: int) -> Known:
        """What is known of a job now; asks for it where it is not known yet. Never blocks.

        Args:
            job_id: Slurm's number.
            run_ns: when this run of it began here; a requeued job is asked for again.
        """
        known = self._known.get(job_id)
        if known is not None and known[0] == run_ns:
            return known[1]
        now_ns = self._clock.now().boottime_ns
        run, first_ns, last_ns = self._asked.get(job_id, (run_ns, now_ns, 0))
        new = job_id not in self._asked or run != run_ns
        if new:
            first_ns = now_ns
        due = now_ns - last_ns >= _ASK_AGAIN_NS and now_ns - first_ns <= _ASK_FOR_NS
        if (new or due) and JOB_ID.fullmatch(job_id):
            self._asked[job_id] = (run_ns, first_ns, now_ns)
            self._ask(job_id, run_ns)
            known = self._known.get(job_id)
            if known is not None and known[0] == run_ns:
                return known[1]
        return _UNKNOWN

    def has(self, job_id: str, run_ns: int) -> bool:
        """It knows this run's name."""
        known = self._known.get(job_id)
        return known is not None and known[0] == run_ns

    def forget_all_but(self, job_ids: Collection[str]) -> None:
        """Forget jobs that are no longer there."""
        for job_id in [job_id for job_id in self._asked if job_id not in job_ids]:
            del self._asked[job_id]
            self._known.pop(job_id, None)

    def faults(self) -> tuple[Fault, ...]:
        """Why the last file that was there could not be used."""
        problem = self._problem
        return () if problem is None else (problem,)

    def _ask(self, job_id: str, run_ns: int) -> None:
        with self._lock:
            self._queue.append((job_id, run_ns))
            if self._busy:
                return
            self._busy = True
        try:
            self._run(self._work)
        except RuntimeError:  # no thread to be had: asked for again later
            with self._lock:
                self._busy = False

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._queue:
                    self._busy = False
                    return
                job_id, run_ns = self._queue.pop()
            try:
                found = self._read(job_id)
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                why = error.strerror if isinstance(error, OSError) else str(error)
                self._problem = Fault(
                    self.SOURCE, "bad_name_file", f"{self._directory / job_id}: {why}"
                )
                continue
            self._problem = None
            self._known[job_id] = (run_ns, found)
            self.version += 1

    def _read(self, job_id: str) -> Known:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        file = os.open(self._directory / job_id, flags)
        try:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode):
                raise ValueError("it is not a regular file")
            if status.st_uid not in self._trusted:
                raise ValueError(f"it belongs to user {status.st_uid}")
            if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise ValueError("others can write to it")
            raw = os.read(file, _MAX_BYTES + 1)
        finally:
            os.close(file)
        if len(raw) > _MAX_BYTES:
            raise ValueError(f"it is larger than {_MAX_BYTES} bytes")
        return parse_name_file(raw.decode("utf-8", "surrogateescape"))
