"""`wattledger run` without a daemon, and with daemons that refuse or vanish: real commands."""

from __future__ import annotations

import http.server
import json
import os
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

SCENARIO = """
[[gpu]]
model = "H100 SXM"
waveform = { kind = "constant", watts = 300 }
[[gpu]]
model = "H100 SXM"
waveform = { kind = "constant", watts = 200 }
processes = [{ pid = 4194303, memory_mib = 100 }]
"""
STARTED: dict[str, Any] = {
    "id": "abc123",
    "start": "2027-01-15T08:00:00Z",
    "start_ns": "1800000000000000000",
    "step_of": None,
    "gpus": [],
}


class Home:
    """Where `wattledger run` finds no daemon but those that a test puts there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.socket = path / "sock"
        self.json = path / "receipt.json"
        (path / "sys").mkdir()
        (path / "scenario.toml").write_text(SCENARIO)

    def run(
        self, options: Sequence[str], *command: str, **more: Any
    ) -> subprocess.CompletedProcess[str]:
        program = [sys.executable, "-m", "wattledger.cli", "run", "--socket", str(self.socket)]
        return subprocess.run(
            [*program, *options, "--", *command],
            text=True,
            capture_output=True,
            cwd=self.path,
            env={"PATH": os.environ["PATH"], "HOME": str(self.path)},
            timeout=60,
            check=False,
            **more,
        )

    def simulated(self, *options: str) -> list[str]:
        return ["--simulate", str(self.path / "scenario.toml"), *options]

    def receipt(self) -> Any:
        return json.loads(self.json.read_text())


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


# ── without a daemon ────────────────────────────────────────────────────────────────────────────


def test_the_receipt_is_on_standard_error_alone_and_the_exit_code_is_the_commands(
    home: Home,
) -> None:
    done = home.run(
        ["--name", "a name", "--json", str(home.json)], "sh", "-c", "cat; exit 7", input="in"
    )
    assert (done.returncode, done.stdout) == (7, "in")
    first, *lines = done.stderr.splitlines()
    assert first.startswith("wattledger: a name took ")
    assert first.endswith(", exit code 7; measured without a daemon")
    assert 4 <= len(lines) <= 14
    receipt = home.receipt()
    assert (receipt["name"], receipt["exit_code"]) == ("a name", 7)
    assert (receipt["measured_by"], receipt["complete"]) == ("direct", True)


def test_a_short_command_gets_what_it_used(home: Home) -> None:
    busy = "import time; t = time.monotonic()\nwhile time.monotonic() < t + 0.4: pass"
    # No sysfs: the CPU is estimated, whatever the machine has.
    options = ["--path.sysfs", str(home.path / "sys"), "--json", str(home.json)]
    assert home.run(options, sys.executable, "-c", busy).returncode == 0
    receipt = home.receipt()
    assert receipt["energy_kwh"]["cpu"] > 0
    assert receipt["energy_kwh"]["total"] == receipt["energy_kwh"]["cpu"]
    assert receipt["quality"] == {"estimated": 1.0}
    assert receipt["estimated_share"] == 1.0
    assert receipt["grid"][0]["zone"] == "WORLD"
    assert receipt["grid"][0]["source"] == "table"
    assert receipt["duration_s"] > 0.4


def test_claimed_gpus_are_the_commands_with_all_that_they_use(home: Home) -> None:
    options = home.simulated("--gpus", "0", "--json", str(home.json))
    assert home.run(options, "sleep", "0.5").returncode == 0
    receipt = home.receipt()
    [device] = receipt["devices"]
    assert (device["share"], device["exact"]) == (1.0, True)
    # 300 W for as long as it took, less and more what one tick of the counter may be off.
    expected_uj = 300e6 * receipt["duration_s"]
    assert abs(int(receipt["exact"]["energy_uj_gpu"]) - expected_uj) < 300e6 * 0.25
    assert receipt["quality"]["metered"] > 0.9


def test_a_gpu_that_somebody_uses_or_that_is_not_there_is_refused_before_anything_starts(
    home: Home,
) -> None:
    for gpu, said in (("1", "held by another job"), ("7", "there is no GPU 7")):
        done = home.run(home.simulated("--gpus", gpu), "touch", "started")
        assert done.returncode == 125
        assert said in done.stderr
    assert not (home.path / "started").exists()


def test_without_a_claim_a_gpu_on_which_it_has_no_process_is_not_the_commands(home: Home) -> None:
    home.run(home.simulated("--json", str(home.json)), "sleep", "0.3")
    assert home.receipt()["energy_kwh"]["gpu"] == 0.0
    assert home.receipt()["devices"] == []


def test_a_price_gives_a_cost_of_facility_energy(home: Home) -> None:
    settings = home.path / "settings.toml"
    settings.write_text('site = { pue = 2.0, price_per_kwh = 0.5, currency = "CHF" }')
    options = home.simulated("--gpus", "0", "--config", str(settings), "--json", str(home.json))
    done = home.run(options, "sleep", "0.3")
    receipt = home.receipt()
    assert receipt["cost"]["currency"] == "CHF"
    assert receipt["cost"]["amount"] == pytest.approx(receipt["energy_kwh"]["total"])
    assert " CHF" in done.stderr


@pytest.mark.parametrize(
    ("command", "code"), [("no-such-command", 127), ("/", 126), ("./plain", 126)]
)
def test_what_cannot_be_started_has_no_receipt(home: Home, command: str, code: int) -> None:
    (home.path / "plain").write_text("")
    done = home.run(["--json", str(home.json)], command)
    assert (done.returncode, done.stdout) == (code, "")
    assert len(done.stderr.splitlines()) == 1
    assert not home.json.exists()


def test_killed_by_a_signal_is_128_and_its_number_in_the_receipt_too(home: Home) -> None:
    done = home.run(["--json", str(home.json)], "sh", "-c", "kill -KILL $$")
    assert (done.returncode, home.receipt()["exit_code"]) == (137, 137)


def test_options_of_the_command_are_the_commands(home: Home) -> None:
    done = home.run([], "sh", "-c", 'echo "$@"', "x", "--name", "--", "--json", "f", "--help")
    assert done.stdout == "--name -- --json f --help\n"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--json", "nowhere/receipt.json"], "there is no directory nowhere"),
        (["--gpus", "0,,1"], "is not a list"),
        (["--config", "missing.toml"], "cannot be read"),
    ],
)
def test_options_that_cannot_be_are_told_before_anything_starts(
    home: Home, options: list[str], said: str
) -> None:
    done = home.run(options, "touch", "started")
    assert done.returncode == 2
    assert said in done.stderr
    assert not (home.path / "started").exists()


def test_no_command_is_a_mistake(home: Home) -> None:
    done = home.run([])
    assert done.returncode == 2
    assert "names no command" in done.stderr


# ── the file ────────────────────────────────────────────────────────────────────────────────────


def test_the_file_is_replaced_as_a_whole_and_a_link_stays_one(home: Home) -> None:
    real = home.path / "real.json"
    real.write_text("old")
    home.json.symlink_to("real.json")
    home.run(["--json", str(home.json)], "true")
    assert home.json.is_symlink()
    assert json.loads(real.read_text())["exit_code"] == 0
    assert not [path for path in home.path.iterdir() if path.name.startswith(".real")]


def test_a_file_that_is_no_file_is_written_into(home: Home) -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader) as read:
        home.run(["--json", f"/dev/fd/{writer}"], "true", pass_fds=[writer])
        os.close(writer)
        assert json.loads(read.read())["exit_code"] == 0


def test_a_file_that_cannot_be_written_changes_no_exit_code(home: Home) -> None:
    done = home.run(["--json", "/dev/full"], "sh", "-c", "exit 4")
    assert done.returncode == 4
    assert "/dev/full could not be written: No space left on device." in done.stderr
    assert "measured without a daemon" in done.stderr


def test_nobody_who_reads_the_receipt_is_nobodys_business(home: Home) -> None:
    with Path("/dev/full").open("w") as full:
        program = [sys.executable, "-m", "wattledger.cli", "run", "--socket", "/nonexistent"]
        code = subprocess.run(
            [*program, "sh", "-c", "exit 4"], stderr=full, cwd=home.path, check=False
        ).returncode
    assert code == 4


def test_what_the_command_leaves_behind_is_told(home: Home) -> None:
    done = home.run([], "sh", "-c", "sleep 5 >/dev/null 2>&1 & echo $!")
    os.kill(int(done.stdout), 9)
    assert "Processes that it started still run" in done.stderr


# ── daemons that are no help ────────────────────────────────────────────────────────────────────


class _Handler(http.server.BaseHTTPRequestHandler):
    """Answers what the test says, by method and path."""

    server: Stand

    def _respond(self) -> None:
        path = self.path.partition("?")[0]
        self.server.asked.append(f"{self.command} {self.path}")
        answers = self.server.answers.get(f"{self.command} {path}")
        if not answers:
            self.server.shutdown_request(self.request)  # as one that was killed
            return
        status, body = answers.pop(0) if len(answers) > 1 else answers[0]
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = _respond  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass

    def address_string(self) -> str:
        return "unix"


class Stand(socketserver.ThreadingUnixStreamServer):
    """In the daemon's place on its socket."""

    daemon_threads = True

    def __init__(self, path: Path, answers: dict[str, list[tuple[int, Any]]]) -> None:
        super().__init__(str(path), _Handler)
        self.answers = answers
        self.asked: list[str] = []


@pytest.fixture
def stand(home: Home) -> Iterator[Any]:
    opened: list[Stand] = []

    def opener(**answers: list[tuple[int, Any]]) -> Stand:
        paths = {
            "begin": "POST /api/v1/runs",
            "finish": "POST /api/v1/runs/abc123/finish",
            "show": "GET /api/v1/runs/abc123",
        }
        opened.append(Stand(home.socket, {paths[name]: said for name, said in answers.items()}))
        threading.Thread(target=opened[-1].serve_forever, args=[0.02], daemon=True).start()
        return opened[-1]

    yield opener
    for one in opened:
        one.shutdown()
        one.server_close()


def test_a_daemon_that_takes_no_commands_is_not_needed(home: Home, stand: Any) -> None:
    stand(begin=[(403, {"error": "This daemon measures no commands."})])
    done = home.run([], "sh", "-c", "exit 3")
    assert done.returncode == 3
    assert "measured without a daemon" in done.stderr
    assert "The daemon did not take it: This daemon measures no commands." in done.stderr


def test_a_daemon_that_is_starting_is_asked_again(home: Home, stand: Any) -> None:
    server = stand(
        begin=[(503, {"error": "Starting."}), (201, STARTED)],
        finish=[(503, {"error": "Starting."}), (200, RECEIPT)],
    )
    done = home.run(["--name", "x y"], "sh", "-c", "exit 3")
    assert done.returncode == 3
    assert "measured by the daemon as run/abc123" in done.stderr
    assert server.asked.count("POST /api/v1/runs?name=x+y") == 2
    assert server.asked[-1] == "POST /api/v1/runs/abc123/finish?exit_code=3"


def test_a_gpu_that_the_daemon_knows_to_be_held_is_refused(home: Home, stand: Any) -> None:
    server = stand(begin=[(409, {"error": "GPU 0 is held by another job.", "hint": "Wait."})])
    done = home.run(["--gpus", "0"], "touch", "started")
    assert done.returncode == 125
    assert done.stderr == "wattledger: GPU 0 is held by another job.\n  Wait.\n"
    assert server.asked == ["POST /api/v1/runs?name=&gpus=0"]
    assert not (home.path / "started").exists()


def test_a_daemon_that_dies_leaves_the_exit_code_and_says_what_is_missing(
    home: Home, stand: Any
) -> None:
    stand(begin=[(201, STARTED)])
    done = home.run(["--json", str(home.json)], "sh", "-c", "exit 3")
    assert done.returncode == 3
    title, gone, later = done.stderr.splitlines()
    assert title.endswith("exit code 3; not measured")
    assert "The daemon that measured it gives no receipt" in gone
    assert "`wattledger job run/abc123`" in later
    receipt = home.receipt()
    assert (receipt["energy_kwh"], receipt["complete"], receipt["exit_code"]) == (None, False, 3)


@pytest.mark.parametrize(
    "nonsense", [[], "text", {}, None, {"id": 5}, {"id": "a", "start_ns": "b"}]
)
def test_a_daemon_that_answers_nonsense_does_not_keep_the_command_from_running(
    home: Home, stand: Any, nonsense: Any
) -> None:
    stand(begin=[(201, nonsense)])
    done = home.run([], "sh", "-c", "echo ran; exit 3")
    assert (done.returncode, done.stdout) == (3, "ran\n")
    assert "measured without a daemon" in done.stderr
    assert "does not understand" in done.stderr


RECEIPT: dict[str, Any] = {
    "name": "x y",
    "manager": "run",
    "job_id": "abc123",
    "step_of": None,
    "start": "2027-01-15T08:00:00Z",
    "end": "2027-01-15T08:00:01Z",
    "since": "2027-01-15T08:00:00Z",
    "duration_s": 1.0,
    "exit_code": None,
    "energy_kwh": {"gpu": 0.0, "cpu": 1.0, "dram": 0.0, "other": 0.0, "total": 1.0},
    "co2e_g": 1.0,
    "water_l": {"onsite": 1.0, "grid": 1.0, "total": 2.0},
    "cost": None,
    "mean_watts": 1.0,
    "held_idle_kwh": 0.0,
    "held_device_hours": 0.0,
    "held_idle_device_hours": 0.0,
    "quality": {"metered": 1.0},
    "estimated_share": 0.0,
    "grid": [],
    "devices": [],
    "measured_by": "daemon",
    "complete": True,
    "exact": {"energy_uj": "3600000000000"},
}
