"""Running a command as if nobody stood in between.

The command gets this process's standard streams, environment, signal mask and process group. What
the terminal sends, it sends to the command as well; what is sent to this process alone is passed
on. This process stops and goes on with the command, so that the shell's job control works, and
adopts the command's orphans (PR_SET_CHILD_SUBREAPER), so that all its processes stay below it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
from collections.abc import Sequence
from pathlib import Path

from wattledger.errors import WattledgerError

NOT_FOUND, NOT_EXECUTABLE = 127, 126  # as shells have it (POSIX, Shell Command Language, 2.8.2)
KILLED = 128  # plus the signal's number

_PR_SET_CHILD_SUBREAPER = 36  # <linux/prctl.h>
_SI_KERNEL = 0x80  # <asm-generic/siginfo.h>: of the terminal and of timers, not of kill(2)
_FROM_TERMINAL = frozenset(
    {signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGWINCH, signal.SIGTSTP, signal.SIGCONT}
)
_PASSED_ON = frozenset(
    {
        *_FROM_TERMINAL - {signal.SIGCONT},
        *(signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGPWR),
        *range(signal.SIGRTMIN, signal.SIGRTMAX + 1),
    }
)
_WATCHED = _PASSED_ON | {signal.SIGCHLD, signal.SIGCONT}
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_CHANGED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)  # which the interpreter ignores
_ENDED = (os.CLD_EXITED, os.CLD_KILLED, os.CLD_DUMPED)
_MAX_DEPTH = 64
_STDERR = 2


class CommandFailed(WattledgerError):
    """A command that cannot be started.

    Attributes:
        exit_code: what a shell would end with.
    """

    def __init__(self, exit_code: int, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.exit_code = exit_code


def find_command(name: str) -> str:
    """The file of a command, as a shell finds it.

    Raises:
        CommandFailed: there is none (127), or it may not be executed (126).
    """
    if "/" in name:
        candidates = [name]
    else:
        # An empty part stands for the working directory (POSIX, Environment Variables, 8.3).
        parts = os.environ.get("PATH", os.defpath).split(os.pathsep)
        candidates = [os.path.join(part or ".", name) for part in parts]  # noqa: PTH118
    refused = ""
    for candidate in candidates if name else []:
        if os.access(candidate, os.X_OK, effective_ids=True) and not os.path.isdir(candidate):  # noqa: PTH112
            return candidate
        if not refused and _is_there(candidate, named=candidate == name):
            refused = candidate
    if refused:
        why = "is a directory" if os.path.isdir(refused) else "may not be executed"  # noqa: PTH112
        raise CommandFailed(NOT_EXECUTABLE, f"{refused}: {why}")
    raise CommandFailed(NOT_FOUND, f"{name}: command not found")


def _is_there(file: str, *, named: bool) -> bool:
    """Whether there is such a file, or there may be, where its user has named its directory."""
    try:
        os.stat(file)  # noqa: PTH116
    except PermissionError:
        return named
    except (OSError, ValueError):
        return False
    return True


def occupy_standard_streams() -> None:
    """Put the null device where standard streams were closed, for this process alone.

    Else the next file or socket would be opened as number 2, and whatever is said there is written
    into it. The command does not get these: they are closed as it is executed (PEP 446).
    """
    with contextlib.suppress(OSError):  # without a null device it goes on as it began
        while (number := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
            pass
        os.close(number)


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parents end (prctl(2), since Linux 3.4)."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


class Wrapped:
    """One command; all methods are for the main thread."""

    def __init__(self) -> None:
        """Hold signals back from now on; call it before any thread is started."""
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
        # Where our parent ignored it, children would vanish before they could be looked at.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        adopt_orphans()
        self.pid = 0

    def ended_early(self) -> int | None:
        """The exit code, where a signal told us to end before the command began; None: none did."""
        waiting = signal.sigpending()
        for number in _ENDING:  # one that is ignored, as under nohup, ends nobody
            if number in waiting and signal.getsignal(number) != signal.SIG_IGN:
                return KILLED + number
        return None

    def start(self, file: str, arguments: Sequence[str]) -> None:
        """Start it.

        Args:
            file: as found by `find_command`.
            arguments: its own name first.

        Raises:
            CommandFailed: the kernel refuses it.
        """
        try:
            self.pid = self._spawn(file, arguments)
        except OSError as error:
            if error.errno != errno.ENOEXEC:
                missing = error.errno == errno.ENOENT  # the interpreter that its first line names
                code = NOT_FOUND if missing else NOT_EXECUTABLE
                raise CommandFailed(code, f"{file}: {error.strerror}") from error
            # A script without a first line: execvp(3) and every shell give it to sh.
            self.pid = self._spawn("/bin/sh", ["/bin/sh", file, *arguments[1:]])

    def _spawn(self, file: str, arguments: Sequence[str]) -> int:
        return os.posix_spawn(
            file,
            list(arguments),
            _environment(),
            setsigmask=self._mask,
            setsigdef=_CHANGED_BY_PYTHON,
        )

    def wait(self) -> int:
        """Wait for its end, handing on what comes meanwhile.

        It stays a zombie until `reap`, so that what it used can still be read.

        Returns:
            Its exit code, or 128 + N where signal N killed it.
        """
        while True:
            state = self._state()
            if state is not None and state.si_code in _ENDED:
                return state.si_status + (0 if state.si_code == os.CLD_EXITED else KILLED)
            self._act(signal.sigwaitinfo(_WATCHED))

    def reap(self) -> bool:
        """Let go of it. Returns: whether some of its processes go on living."""
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        try:
            self._reap_orphans()
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return False
        return True

    # ── what comes meanwhile ────────────────────────────────────────────────────────────────────

    def _state(self) -> os.waitid_result | None:
        """Whether it has ended or is stopped; None: it runs."""
        flags = os.WEXITED | os.WSTOPPED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self.pid, flags)

    def _act(self, info: signal.struct_siginfo) -> None:
        if info.si_signo == signal.SIGCHLD:
            self._reap_orphans()
            state = self._state()
            # SIGSTOP is somebody's who will continue the command, and not us.
            if state is not None and (state.si_code, state.si_status) == (
                os.CLD_STOPPED,
                signal.SIGTSTP,
            ):
                self._stop_with_it()
        elif info.si_signo == signal.SIGCONT:
            self._continue_it()
        elif not self._has_it_already(info):
            os.kill(self.pid, info.si_signo)

    def _has_it_already(self, info: signal.struct_siginfo) -> bool:
        """The terminal sent it to the whole foreground group, or the command itself sent it."""
        if info.si_code == _SI_KERNEL:
            return info.si_signo in _FROM_TERMINAL
        return self._is_below_us(info.si_pid)

    @staticmethod
    def _is_below_us(pid: int) -> bool:
        ourselves = os.getpid()
        for _ in range(_MAX_DEPTH):
            try:
                stat = Path(f"/proc/{pid}/stat").read_bytes()
                pid = int(stat.rpartition(b")")[2].split()[1])
            except (OSError, ValueError, IndexError):
                return False
            if pid == ourselves:
                return True
        return False

    def _reap_orphans(self) -> None:
        """Those of its descendants that ended after their parents had."""
        while True:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if found is None or found.si_pid == self.pid:
                return
            os.waitpid(found.si_pid, 0)

    def _stop_with_it(self) -> None:
        """Stop as the command did, so that the shell takes the terminal back."""
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTSTP})
        # Here we are stopped, unless there is no shell that could continue us.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTSTP})
        if signal.sigtimedwait({signal.SIGCONT}, 0) is not None:
            self._continue_it()

    def _continue_it(self) -> None:
        """The shell continues the whole group; who continues us alone means the command."""
        state = self._state()
        if state is not None and state.si_code == os.CLD_STOPPED:
            os.kill(self.pid, signal.SIGCONT)


def _environment() -> dict[bytes, bytes]:
    """The environment that we were started with.

    The interpreter sets LC_CTYPE in the C locale (PEP 538), which the command should not see.
    """
    environment = dict(os.environb)
    with contextlib.suppress(OSError):
        given = Path("/proc/self/environ").read_bytes().split(b"\0")
        if not any(entry.startswith(b"LC_CTYPE=") for entry in given):
            environment.pop(b"LC_CTYPE", None)
    return environment
