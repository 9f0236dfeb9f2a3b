"""A ledger that writes corrections bit by bit, with the commits of the sampling thread.

That is the only thread that writes. So a commit takes no more of them than it may last longer, and
what cannot be written never keeps energy from being booked.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from wattledger.errors import WattledgerError
from wattledger.model import Batch, Books, Instant, LedgerStatus
from wattledger.model.restating import Restatement, Stale
from wattledger.model.settling import Settlement
from wattledger.ports import Ledger
from wattledger.settler import Stopped

log = logging.getLogger(__name__)

ENTRIES_PER_COMMIT = 500  # some 50 ms more of a commit
Correction = Settlement | Restatement | Stale
# Of a file, or of rows that no program of ours wrote: a price that is gone, say. Where it is the
# batch's own, it is raised when that is written alone.
_FAULTS = (WattledgerError, ValueError, TypeError, LookupError, ArithmeticError)


class SettlingLedger:
    """A `ports.Ledger` that adds corrections to the commits, a few to each."""

    def __init__(self, ledger: Ledger, most: int = ENTRIES_PER_COMMIT) -> None:
        """Args: ledger: the books. most: how many entries are corrected with one commit."""
        self._ledger = ledger
        self._most = most
        self._few = 0  # corrections, of which one could not be written; 0: none is suspected
        self._waiting: deque[Correction] = deque()
        self._failure = ""
        self._changed = threading.Condition()
        self._stopped = False

    @property
    def books(self) -> Books:
        """The committed state."""
        return self._ledger.books

    @property
    def status(self) -> LedgerStatus:
        """The ledger's health."""
        return self._ledger.status

    def commit(self, batch: Batch, now: Instant) -> Books:
        """Write a batch with the corrections that come next; see `ports.Ledger.commit`.

        Where it cannot be written with them, it is without them, and then fewer are tried with the
        next one, until it is one correction alone: that is given up, and told by `take_failure`.

        Raises:
            CommitFailed: nothing of it was written; the corrections stay here, too.
            ValueError: the batch is not one.
        """
        with self._changed:
            part = next_part(self._waiting, self._most)
            part = part[: self._few] if self._few else part
        if not part:
            return self._ledger.commit(batch, now)
        failure = ""
        try:
            books = self._ledger.commit(with_corrections(batch, part), now)
        except _FAULTS as error:
            books = self._ledger.commit(batch, now)
            failure = str(error) or type(error).__name__
        with self._changed:
            self._few = len(part) // 2 if failure else 0
            if not self._few:
                for _ in part:
                    self._waiting.popleft()
            if failure and not self._few:
                self._failure = failure
                log.warning("not corrected: %s: %s", part[0], failure)
            self._changed.notify_all()
        return books

    def close(self) -> None:
        """Close the books."""
        self._ledger.close()

    # ── the settling thread ─────────────────────────────────────────────────────────────────────

    def settle(
        self, corrections: Sequence[Correction], hurry: Callable[[], None] | None = None
    ) -> None:
        """Have settlements, restatements and what is stale written, and wait for it.

        Args:
            corrections: one thread's at a time.
            hurry: called before each wait; asks for a commit where somebody waits for it by then.

        Raises:
            Stopped: they are not written any more.
        """
        with self._changed:
            self._waiting.extend(in_parts(corrections, self._most))
            while self._waiting and not self._stopped:
                if hurry is not None:
                    hurry()
                self._changed.wait()
            if self._stopped:
                raise Stopped

    def take_failure(self) -> str:
        """Why a correction was given up since this was asked last; empty: none was."""
        with self._changed:
            failure, self._failure = self._failure, ""
        return failure

    def stop(self) -> None:
        """Nobody waits any more; what is not written yet is found again by the next process."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()


def in_parts(corrections: Iterable[Correction], most: int) -> Iterator[Correction]:
    """The same corrections; one of more entries than a commit takes comes in parts."""
    for one in corrections:
        if isinstance(one, Restatement) or one.entries <= most:
            yield one
            continue
        parts = -(-one.entries // most)
        for number in range(parts):
            yield one._replace(entries=-(-one.entries // parts), part=number, parts=parts)


def next_part(waiting: Iterable[Correction], most: int) -> tuple[Correction, ...]:
    """The first of them that one commit takes; one at least, where there is one."""
    found: list[Correction] = []
    entries = 0
    for one in waiting:
        entries += 1 if isinstance(one, Restatement) else one.entries
        if found and entries > most:
            break
        found.append(one)
    return tuple(found)


def with_corrections(batch: Batch, part: Sequence[Correction]) -> Batch:
    """A batch that writes corrections, too."""
    return replace(
        batch,
        settlements=tuple(one for one in part if isinstance(one, Settlement)),
        restatements=tuple(one for one in part if isinstance(one, Restatement)),
        stale=tuple(one for one in part if isinstance(one, Stale)),
    )
