"""A wrapped command behaves as if nobody stood in between: real processes and signals."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from waiting import wait_until

DRIVER = """
import sys
from wattledger.wrapping import CommandFailed, Wrapped, find_command
wrapped = Wrapped()
early = wrapped.ended_early()
if early is not None:
    sys.exit(early)
try:
    wrapped.start(find_command(sys.argv[1]), sys.argv[1:])
except CommandFailed as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
code = wrapped.wait()
lives = wrapped.reap()
print(f"receipt {code} {'lives' if lives else 'over'}", file=sys.stderr)
sys.exit(code)
"""
WRAP = [sys.executable, "-c", DRIVER]


def run(*command: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*WRAP, *command], text=True, capture_output=True, timeout=30, check=False, **more
    )


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Wrapped commands in process groups of their own, killed at the end."""
    started: list[subprocess.Popen[str]] = []

    def starter(*command: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*WRAP, *command],
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            process_group=0,
        )
        started.append(process)
        return process

    yield starter
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.parametrize("code", [0, 1, 7, 255])
def test_the_exit_code_is_the_commands(code: int) -> None:
    done = run("sh", "-c", f"exit {code}")
    assert (done.returncode, done.stderr) == (code, f"receipt {code} over\n")


def test_killed_by_a_signal_is_128_and_its_number() -> None:
    assert run("sh", "-c", "kill -9 $$").returncode == 137
    assert run("sh", "-c", "kill -SEGV $$").returncode == 128 + signal.SIGSEGV


def test_what_cannot_be_started(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/nonexistent/interpreter\n")
    assert run(str(script)).returncode == 126  # not executable yet
    script.chmod(0o755)
    assert run(str(script)).returncode == 127
    assert run("no-such-command-anywhere").returncode == 127
    assert run("").returncode == 127
    assert run(str(tmp_path)).returncode == 126
    assert "receipt" not in run(str(tmp_path / "nothing")).stderr


def test_a_script_without_a_first_line_is_given_to_sh(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text('echo "$0 $1"; exit 4\n')
    script.chmod(0o755)
    done = run("script", "x y", env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"})
    assert (done.returncode, done.stdout) == (4, f"{script} x y\n")


def test_a_file_that_may_not_be_executed_does_not_hide_one_that_may(tmp_path: Path) -> None:
    for name, mode in (("one", 0o644), ("two", 0o755)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tool").write_text(f"#!/bin/sh\necho {name}\n")
        (tmp_path / name / "tool").chmod(mode)
    done = run("tool", env={**os.environ, "PATH": f"{tmp_path}/one:{tmp_path}/two:/usr/bin:/bin"})
    assert done.stdout == "two\n"


def test_streams_arguments_and_open_files_are_the_commands(tmp_path: Path) -> None:
    done = run(
        "sh", "-c", 'cat; printf "%s|" "$@"; echo >&2 oops', "x", "a b", "--", "-n", input="in"
    )
    assert (done.stdout, done.stderr) == ("ina b|--|-n|", "oops\nreceipt 0 over\n")
    with (tmp_path / "three").open("wb") as other:
        run("sh", "-c", f"echo kept >/dev/fd/{other.fileno()}", pass_fds=[other.fileno()])
    assert (tmp_path / "three").read_text() == "kept\n"


def test_surroundings_are_as_they_were_without_a_wrapper() -> None:
    code = "import os, signal; print(sorted(os.environ), signal.pthread_sigmask(0, []), "
    code += "[n for n in range(1, 32) if signal.getsignal(n) == signal.SIG_IGN])"
    plain = {"PATH": os.environ["PATH"]}  # no locale: Python would set one for its children
    bare = subprocess.run(
        [sys.executable, "-c", code], env=plain, capture_output=True, text=True, check=True
    )
    assert run(sys.executable, "-c", code, env=plain).stdout == bare.stdout


@pytest.mark.parametrize("number", ["TERM", "INT", "HUP", "QUIT", "USR1", "USR2", "RTMIN"])
def test_a_signal_to_the_wrapper_alone_is_passed_on(
    number: str, start: Callable[..., subprocess.Popen[str]]
) -> None:
    code = (
        # A signal may come while `ready` is being written: no print, which cannot be entered twice.
        "import os, signal, time\n"
        "def told(n, _):\n    os.write(1, b'got %d\\n' % n)\n    os._exit(5)\n"
        f"signal.signal(signal.SIG{number}, told)\n"
        "os.write(1, b'ready\\n')\n"
        "time.sleep(30)\n"
    )
    process = start(sys.executable, "-c", code)
    assert line_of(process) == "ready"
    process.send_signal(getattr(signal, f"SIG{number}"))
    out, err = process.communicate(timeout=20)
    assert out == f"got {int(getattr(signal, f'SIG{number}'))}\n"
    assert (process.returncode, err) == (5, "receipt 5 over\n")


def test_a_command_that_does_not_catch_it_dies_of_it_and_the_receipt_is_still_written(
    start: Callable[..., subprocess.Popen[str]],
) -> None:
    process = start("sh", "-c", "echo ready; exec sleep 30")
    assert line_of(process) == "ready"
    process.terminate()
    assert process.communicate(timeout=20) == ("", f"receipt {128 + signal.SIGTERM} over\n")
    assert process.returncode == 128 + signal.SIGTERM


def test_a_signal_that_the_command_sends_to_its_own_group_comes_once(
    start: Callable[..., subprocess.Popen[str]],
) -> None:
    code = (
        "import os, signal, time\n"
        "signal.signal(signal.SIGUSR1, lambda *_: print('got', flush=True))\n"
        "os.kill(0, signal.SIGUSR1)\n"
        "time.sleep(0.5)\n"
    )
    process = start(sys.executable, "-c", code)
    assert process.communicate(timeout=20) == ("got\n", "receipt 0 over\n")


def test_orphans_stay_below_the_wrapper_and_are_waited_for(
    start: Callable[..., subprocess.Popen[str]],
) -> None:
    process = start("sh", "-c", "(sleep 100 & echo $!); cat")  # the middle one ends at once
    number = int(line_of(process))
    orphan = Path(f"/proc/{number}/stat")
    wait_until(lambda: orphan.read_text().rpartition(")")[2].split()[1] == str(process.pid), 20)
    os.kill(number, signal.SIGTERM)
    wait_until(lambda: not orphan.exists(), 20)  # it ended, and is no zombie either
    assert process.communicate(timeout=20)[1] == "receipt 0 over\n"


def test_the_wrapper_does_not_wait_for_what_the_command_leaves_behind() -> None:
    done = run("sh", "-c", "sleep 100 >/dev/null 2>&1 & echo $!; exit 3")
    os.kill(int(done.stdout), signal.SIGKILL)
    assert (done.returncode, done.stderr) == (3, "receipt 3 lives\n")


# ── job control, over a terminal ────────────────────────────────────────────────────────────────


class Terminal:
    """A shell with job control on a terminal of its own."""

    def __init__(self, script: str) -> None:
        self.pid, self.fd = pty.fork()
        if not self.pid:
            os.execv(shutil.which("bash") or "", ["bash", "--norc", "-c", script, "bash", *WRAP])
        self.seen = ""

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def expect(self, text: str) -> None:
        deadline = time.monotonic() + 20
        while text not in self.seen:
            assert time.monotonic() < deadline, f"{text!r} did not come: {self.seen!r}"
            if select.select([self.fd], [], [], 0.2)[0]:
                try:
                    self.seen += os.read(self.fd, 4096).decode()
                except OSError:
                    break
        assert text in self.seen, self.seen

    def close(self) -> None:
        os.close(self.fd)
        try:
            os.kill(self.pid, signal.SIGKILL)
        finally:
            os.waitpid(self.pid, 0)


@pytest.fixture
def terminal() -> Iterator[Callable[[str], Terminal]]:
    if shutil.which("bash") is None:
        pytest.skip("no shell with job control")
    try:
        for end in os.openpty():
            os.close(end)
    except OSError:
        pytest.skip("no pseudo-terminals: /dev/pts is not mounted")
    opened: list[Terminal] = []

    def opener(script: str) -> Terminal:
        opened.append(Terminal(script))
        return opened[-1]

    yield opener
    for one in opened:
        one.close()


COUNTING = (
    "import signal, time\n"
    "count = []\n"
    "signal.signal(signal.SIGINT, lambda *_: count.append(1))\n"
    'print("READ" + "Y", flush=True)\n'
    "while not count: time.sleep(0.05)\n"
    "time.sleep(0.5)\n"
    'print("count", len(count), flush=True)\n'
)


def test_ctrl_c_comes_to_the_command_once(terminal: Callable[[str], Terminal]) -> None:
    opened = terminal(f'set -m; "$@" {sys.executable} -c \'{COUNTING}\'; echo "end $?"; sleep 9')
    opened.expect("READY")
    opened.type("\x03")
    opened.expect("end 0")
    assert "count 1" in opened.seen
    assert "receipt 0" in opened.seen


STOPPING = 'read -r x; echo "got $x"'


@pytest.mark.parametrize("stop", ["\x1a", "itself", "the wrapper"])
def test_ctrl_z_and_fg(stop: str, terminal: Callable[[str], Terminal]) -> None:
    command = f"sh -c 'echo REA\"\"DY; {STOPPING}'"
    if stop == "itself":  # as `less` does
        command = f"sh -c 'echo REA\"\"DY; kill -TSTP $$; {STOPPING}'"
    script = f'set -m; "$@" {command}; echo "status $?"; fg; echo "end $?"; sleep 9'
    opened = terminal(script)
    opened.expect("READY")
    if stop == "\x1a":
        opened.type(stop)
    elif stop == "the wrapper":
        children = Path(f"/proc/{opened.pid}/task/{opened.pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGTSTP)
    opened.expect(f"status {128 + signal.SIGTSTP}")
    opened.type("hello\n")
    opened.expect("got hello")
    opened.expect("end 0")
    assert "receipt 0" in opened.seen
