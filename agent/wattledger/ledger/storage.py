"""Where a ledger may lie, and who may open it: path, file system, permissions, lock.

SQLite's WAL needs shared memory and honest locks, which network file systems do not give
(https://www.sqlite.org/wal.html, "WAL does not work over a network filesystem"), and memory file
systems forget everything at the next boot: both are told by their name in mountinfo
(https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html), before a file is touched.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
from pathlib import Path

from wattledger.errors import LedgerError, LedgerLocked

NETWORK_FILESYSTEMS = frozenset(
    {
        "9p",
        "acfs",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "coda",
        "curlftpfs",
        "davfs",
        "fhgfs",
        "fuse.beegfs",
        "fuse.ceph",
        "fuse.ceph-fuse",
        "fuse.cephfs",
        "fuse.davfs",
        "fuse.davfs2",
        "fuse.gcsfuse",
        "fuse.glusterfs",
        "fuse.goofys",
        "fuse.juicefs",
        "fuse.lizardfs",
        "fuse.mfs",
        "fuse.moosefs",
        "fuse.rclone",
        "fuse.s3fs",
        "fuse.seaweedfs",
        "fuse.sshfs",
        "fuse.weka",
        "glusterfs",
        "gpfs",
        "lustre",
        "mfs",
        "mmfs",
        "ncpfs",
        "nfs",
        "nfs3",
        "nfs4",
        "orangefs",
        "panfs",
        "pvfs2",
        "quobyte",
        "smb2",
        "smb3",
        "smbfs",
        "wekafs",
    }
)
MEMORY_FILESYSTEMS = frozenset({"tmpfs", "ramfs"})
ELSEWHERE = "put the ledger on a local disk with ledger.path or --ledger"
_PROOF = b"locks a wattledger ledger\n"
_ESCAPED = re.compile(r"\\([0-7]{3})")


def filesystem_of(path: Path, procfs: Path) -> str:
    """The type of the file system that holds (or would hold) this resolved path.

    Args:
        path: absolute, symlinks resolved; need not exist.
        procfs: where the proc file system is mounted.

    Returns:
        The name as the kernel gives it, `nfs4` say; empty where mountinfo cannot be read.
    """
    try:
        text = os.fsdecode((procfs / "self" / "mountinfo").read_bytes())
    except OSError:
        return ""
    best, found = -1, ""
    for line in text.split("\n"):
        left, _, right = line.partition(" - ")
        fields, kind = left.split(), right.split()
        if len(fields) < 5 or not kind:
            continue
        mountpoint = Path(_unescape(fields[4]))
        # Among equal mount points the later line lies on top.
        if path.is_relative_to(mountpoint) and len(mountpoint.parts) >= best:
            best, found = len(mountpoint.parts), kind[0]
    return found


def _unescape(text: str) -> str:
    """Space, tab, newline, backslash and # stand as octal in mountinfo."""
    return _ESCAPED.sub(lambda match: chr(int(match[1], 8)), text)


def check_filesystem(path: Path, volatile: bool, procfs: Path) -> None:
    """Refuses what cannot keep books.

    Raises:
        LedgerError: a network file system, or memory that was not declared volatile.
    """
    kind = filesystem_of(path, procfs)
    if kind in NETWORK_FILESYSTEMS:
        raise LedgerError(
            f"{path} lies on a network file system ({kind}), which cannot keep a ledger safe",
            f"{ELSEWHERE}; on a diskless node take a path under /run and ledger.volatile = true",
        )
    if kind in MEMORY_FILESYSTEMS and not volatile:
        raise LedgerError(
            f"{path} lies in memory ({kind}) and would be lost at the next boot",
            f"{ELSEWHERE}, or accept the loss with ledger.volatile = true",
        )


def prepare_directory(directory: Path) -> None:
    """Makes the directory (mode 0700) with its parents, and checks that it can be written.

    Raises:
        LedgerError: it cannot be made or written.
    """
    missing = []
    place = directory
    # os.path, not pathlib: what may not be looked into counts as missing, and mkdir tells why.
    while not os.path.exists(place) and place != place.parent:  # noqa: PTH110
        missing.append(place)
        place = place.parent
    for new in reversed(missing):
        try:
            new.mkdir(mode=0o700, exist_ok=True)
            sync_directory(new.parent)
        except OSError as error:
            raise LedgerError(
                f"the ledger's directory {directory} cannot be made: {error.strerror}",
                _hint(error, new.parent),
            ) from error
    if not directory.is_dir():
        raise LedgerError(f"{directory} is not a directory", ELSEWHERE)
    if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
        raise LedgerError(
            f"the ledger's directory {directory} cannot be {_verb(directory)}",
            _permission_hint(directory),
        )


def check_file(path: Path) -> None:
    """Checks that the file, where there is one, is a file that can be read and written.

    SQLite would open a file that it may not write for reading only, and say nothing.

    Raises:
        LedgerError: it is something else, or cannot be written.
    """
    if not path.exists():
        return
    if not path.is_file():
        raise LedgerError(f"{path} is not a file", "name the file itself with ledger.path")
    if not os.access(path, os.R_OK | os.W_OK):
        raise LedgerError(f"the ledger {path} cannot be {_verb(path)}", _permission_hint(path))


def _verb(path: Path) -> str:
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        return "written: its file system is mounted read-only"
    return "read and written by this user"


def _hint(error: OSError, path: Path) -> str:
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return _permission_hint(path)
    if error.errno == errno.EIO:
        return f"dmesg tells what is wrong with that disk; until it is mended, {ELSEWHERE}"
    return ELSEWHERE


def _permission_hint(path: Path) -> str:
    if path.exists() and os.statvfs(path).f_flag & os.ST_RDONLY:
        return f"mount it writable, or {ELSEWHERE}"
    return f"chown {os.geteuid()} {path}, or run as its owner, or {ELSEWHERE}"


def sync_directory(directory: Path) -> None:
    """Makes names made or changed in a directory survive a power cut."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Lock:
    """`<ledger>.lock`, held by `flock`: it goes with the process, however that ends.

    A file of its own, since closing any handle of the database would drop SQLite's own locks
    (https://www.sqlite.org/howtocorrupt.html, §2.2). It is never deleted: another process may
    be about to lock it.

    Attributes:
        proven: a ledger was opened here before, so what lies here now is what became of it.
    """

    def __init__(self, ledger: Path) -> None:
        """Takes the lock.

        Raises:
            LedgerLocked: another process holds it.
            LedgerError: the lock file cannot be made.
        """
        path = ledger.with_name(ledger.name + ".lock")
        self.proven = False
        try:
            self._handle = os.open(
                path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
            )
        except OSError as error:
            raise LedgerError(
                f"the ledger's lock {path} cannot be opened: {error.strerror}",
                _hint(error, path if path.exists() else path.parent),
            ) from error
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._handle, 32, 0).split(b"\n")[0].decode("ascii", "replace")
            os.close(self._handle)
            if not isinstance(error, BlockingIOError):
                raise LedgerError(
                    f"the ledger's lock {path} cannot be taken: {error.strerror}", ELSEWHERE
                ) from error
            raise LedgerLocked(
                f"the ledger {ledger} is kept by another process"
                + (f" (pid {holder})" if holder.isdecimal() else ""),
                "stop that one (systemctl stop wattledger), or give this one another file with "
                "--ledger",
            ) from error
        self.proven = _PROOF in os.pread(self._handle, 64, 0)
        if os.geteuid() == 0:
            # A report by root must not leave a lock that the daemon's user cannot open.
            owner = (ledger if ledger.exists() else ledger.parent).stat()
            os.fchown(self._handle, owner.st_uid, owner.st_gid)
        self._sign()

    def prove(self) -> None:
        """Remembers that the file beside is a ledger of ours."""
        if not self.proven:
            self.proven = True
            self._sign()

    def _sign(self) -> None:
        """Leaves the pid for whoever comes second; only a service to people."""
        text = f"{os.getpid()}\n".encode() + (_PROOF if self.proven else b"")
        try:
            os.pwrite(self._handle, text, 0)
            os.ftruncate(self._handle, len(text))
        except OSError:
            return  # a full disk; the lock holds all the same

    def release(self) -> None:
        """Lets go; harmless when done twice."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
