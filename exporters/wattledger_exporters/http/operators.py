"""Who may see everybody's jobs over the Unix socket: root, the daemon's user, the operators.

The kernel tells a client's uid and effective group (SO_PEERCRED), not its other groups: those are
the system's, whose directory server may take its time. So it is asked in a thread, and what it
said holds for a minute.
"""

from __future__ import annotations

import grp
import logging
import os
import pwd
from collections.abc import Callable, Collection
from typing import NamedTuple

from wattledger.ports import Clock
from wattledger.units import NS_PER_S
from wattledger_exporters.http.connection import Peer
from wattledger_exporters.http.worker import Busy, Worker

log = logging.getLogger(__name__)

KEPT_NS = 60 * NS_PER_S
ANSWER_S = 2.0
_MAX_KNOWN = 10_000
_MAX_WAITING = 64


class Directory(NamedTuple):
    """The system's users and groups; each may block as long as NSS does.

    Attributes:
        gid_of: a group's number by its name; None: there is no such group.
        groups_of: the numbers of all groups of a uid; none for a uid without an account.
    """

    gid_of: Callable[[str], int | None]
    groups_of: Callable[[int], Collection[int]]


def _gid_of(name: str) -> int | None:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None


def _groups_of(uid: int) -> Collection[int]:
    try:
        account = pwd.getpwuid(uid)
    except (KeyError, OverflowError):
        return ()
    return os.getgrouplist(account.pw_name, account.pw_gid)


SYSTEM = Directory(_gid_of, _groups_of)


class Operators:
    """Tells who is one. Used from one event loop."""

    def __init__(
        self,
        group: str,
        clock: Clock,
        owner_uid: int,
        directory: Directory = SYSTEM,
        answer_s: float = ANSWER_S,
    ) -> None:
        """Nobody is asked yet.

        Args:
            group: its members are operators; empty or unknown: only root and the owner are.
            clock: how long an answer holds.
            owner_uid: the daemon's user.
            directory: who is in the group.
            answer_s: how long the directory may take.
        """
        self._group = group
        self._clock = clock
        self._owner_uid = owner_uid
        self._directory = directory
        self._answer_s = answer_s
        self._known: dict[tuple[int, int], tuple[int, bool]] = {}
        self._worker = Worker("wattledger-groups", waiting=_MAX_WAITING)
        self._lost = False

    async def includes(self, peer: Peer) -> bool:
        """Whether this client is one. False where the directory does not answer in time."""
        if peer.uid in (0, self._owner_uid):
            return True
        if not self._group:
            return False
        now_ns = self._clock.now().monotonic_ns
        who = peer.uid, peer.gid
        known = self._known.get(who)
        if known is not None and now_ns < known[0]:
            return known[1]
        try:
            found = await self._worker.run(lambda: self._look_up(peer), self._answer_s)
        except (Busy, TimeoutError, OSError) as error:
            if not self._lost:
                log.warning("who is in group %s cannot be told now: %r", self._group, error)
            self._lost = True
            return False
        if self._lost:
            log.info("group %s can be looked up again", self._group)
            self._lost = False
        if len(self._known) >= _MAX_KNOWN:
            self._known.clear()
        self._known[who] = now_ns + KEPT_NS, found
        return found

    def _look_up(self, peer: Peer) -> bool:
        gid = self._directory.gid_of(self._group)
        return gid is not None and (gid == peer.gid or gid in self._directory.groups_of(peer.uid))

    def stop(self) -> None:
        """End the thread, without waiting for it."""
        self._worker.stop()
