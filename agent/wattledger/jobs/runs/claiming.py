"""`--gpus`: which GPUs a command may hold by its own word."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from wattledger.errors import RunRefused
from wattledger.model import Kind, Snapshot
from wattledger.model.jobs import JobKey
from wattledger.model.measuring import GpuNames
from wattledger.model.running import RunRequest

_READ_WRITE = 0o6


class Claimable(NamedTuple):
    """A GPU that is metered.

    Attributes:
        uuid: what it is called in the books.
        number: the driver's, as text.
        node: its device file; None: nobody's permission is needed, since it is simulated.
        divided: it is cut up into MIG instances.
    """

    uuid: str
    number: str
    node: Path | None
    divided: bool = False


class GpuClaims:
    """What the registry asks for GPUs that a command claims; see `registry.ClaimGpus`."""

    def __init__(
        self,
        snapshot: Callable[[], Snapshot | None],
        names: Callable[[], Sequence[GpuNames]],
        dev: Path = Path("/dev"),
    ) -> None:
        """Args: snapshot: the latest. names: of the GPUs. dev: where device files are."""
        self._snapshot = snapshot
        self._names = names
        self._dev = dev

    def __call__(
        self, request: RunRequest, groups: frozenset[int], inside: frozenset[JobKey]
    ) -> tuple[str, ...]:
        """The UUIDs of the GPUs that a request may have; see `claim`."""
        snapshot = self._snapshot()
        if snapshot is None:
            raise RunRefused("starting", "the daemon is starting; ask again")
        gpus = gpus_in(snapshot, self._names(), None if snapshot.simulated else self._dev)
        return claim(request.gpus, gpus, holders_in(snapshot), inside, request.uid, groups)


def gpus_in(snapshot: Snapshot, names: Sequence[GpuNames], dev: Path | None) -> list[Claimable]:
    """The GPUs that are metered now.

    Args:
        snapshot: of the books.
        names: of the GPUs.
        dev: where device files are; None: the GPUs are simulated.
    """
    minors = {gpu.uuid: gpu.minor for gpu in names}
    divided = {gpu.uuid for gpu in names if gpu.instances}
    found = []
    for uuid, record in snapshot.books.devices.items():
        if record.info.kind is Kind.GPU and record.info.present:
            minor = minors.get(uuid)
            node = dev / f"nvidia{record.info.index if minor is None else minor}" if dev else None
            found.append(Claimable(uuid, record.info.index, node, uuid in divided))
    return found


def holders_in(snapshot: Snapshot) -> dict[str, frozenset[JobKey]]:
    """GPU → the jobs that hold it, as of the last commit."""
    holders: dict[str, frozenset[JobKey]] = {}
    for book in snapshot.books.jobs.runs.values():
        for holding in book.run.holdings if not book.run.end_ns else ():
            known = holders.get(holding.device, frozenset())
            holders[holding.device] = known | {book.run.key}
    return holders


def claim(
    asked: Sequence[str],
    gpus: Sequence[Claimable],
    holders: Mapping[str, frozenset[JobKey]],
    inside: frozenset[JobKey],
    uid: int,
    groups: frozenset[int],
) -> tuple[str, ...]:
    """The UUIDs of the GPUs that are asked for.

    Args:
        asked: numbers or UUIDs.
        gpus: those that there are.
        holders: GPU → the jobs that hold it.
        inside: the jobs inside which the command runs; what these hold is its own to claim.
        uid: whose command it is.
        groups: all groups of its process.

    Raises:
        RunRefused: one is unknown, cut up, another job's, or not the caller's to open.
    """
    found: dict[str, None] = {}
    for name in asked:
        gpu = next((gpu for gpu in gpus if name in (gpu.uuid, gpu.number)), None)
        if gpu is None:
            known = ", ".join(gpu.number for gpu in gpus) or "none"
            raise RunRefused("gpu", f"there is no GPU {name[:64]}", f"known here: {known}")
        if gpu.divided:
            raise RunRefused(
                "gpu",
                f"GPU {name[:64]} is divided into MIG instances",
                "leave it out: an instance counts as the command's while one of its processes is "
                "on it",
            )
        others = holders.get(gpu.uuid, frozenset()) - inside
        if others:
            raise RunRefused(
                "gpu",
                f"GPU {name[:64]} is held by another job",
                "leave it out: a GPU counts as the command's while one of its processes is on it",
            )
        if gpu.node is not None and not may_open(gpu.node, uid, groups):
            raise RunRefused("gpu", f"you may not open {gpu.node}", "see its owner and mode")
        found[gpu.uuid] = None
    return tuple(found)


def may_open(node: Path, uid: int, groups: frozenset[int]) -> bool:
    """Whether a device file's owner, group and mode let a process read and write it."""
    try:
        status = node.stat()
    except OSError:
        return False
    if uid == 0:
        return True
    if status.st_uid == uid:
        bits = status.st_mode >> 6
    elif status.st_gid in groups:
        bits = status.st_mode >> 3
    else:
        bits = status.st_mode
    return bits & _READ_WRITE == _READ_WRITE
