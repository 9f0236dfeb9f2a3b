"""What is wrong is said in one clear line, with the remedy, and never by a traceback."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from e2e.daemon import FINE, Daemon, free_port, lines_of
from sysfs import world_readable_folder

Start = Callable[..., Daemon]
Done = subprocess.CompletedProcess[str]
# Root without its powers: it may look where the checkout lies, but not into others' folders.
POWERLESS = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--")


def serve(node: Daemon, *more: str) -> Done:
    """`serve` that is expected to end by itself at once."""
    listen = f"127.0.0.1:{node.port}"
    done = node.cli("serve", "--config", str(node.config_file), "--listen", listen,
                    *node.arguments, *more, timeout_s=60)  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    assert done.stdout == ""
    return done


def refused(done: Done, code: int, *words: str) -> str:
    """One sentence that holds these words, and a hint; returns both."""
    lines = list(lines_of(done.stderr))
    assert done.returncode == code, done.stderr
    assert 1 <= len(lines) <= 2, done.stderr
    assert len(lines) == 1 or lines[1].startswith("  "), done.stderr
    for word in words:
        assert word in done.stderr, done.stderr
    return done.stderr


def test_five_mistakes_are_five_lines(daemon: Start) -> None:
    node = daemon(
        """
        [site]
        zone = "DE"
        pue = 0.9
        zome = "FR"
        [sampling]
        interval = 1
        [meters.nvml]
        enabled = "yes"
        [http]
        listen = "localhost"
        """
    )
    for done in (serve(node), node.cli("config", "check", str(node.config_file))):
        assert done.returncode == 2
        lines = list(lines_of(done.stderr))
        keys = [line.split(": ")[0] for line in lines]
        assert keys == [
            "http.listen", "meters.nvml.enabled", "sampling.interval", "site.pue", "site.zome"
        ]  # fmt: skip
        remedies = ("127.0.0.1:19400", '"auto", true or false', '"1s"', "from 1 to 10", "zone?")
        for line, remedy in zip(lines, remedies, strict=True):
            assert remedy in line
    assert not node.ledger.exists()  # nothing was begun


def test_a_file_that_is_not_toml(daemon: Start) -> None:
    node = daemon("[site]\npue = = 1")
    refused(serve(node), 2, str(node.config_file), "line 2")
    node.config_file.unlink()
    refused(serve(node), 2, str(node.config_file), "No such file")
    node.config_file.mkdir()
    refused(serve(node), 2, str(node.config_file), "Is a directory")


def test_an_unknown_zone_is_refused(daemon: Start) -> None:
    node = daemon('site.zone = "XQ"')
    refused(serve(node), 2, "site.zone", "XQ")
    node.configure('site.zone = "DE"\n[[grid.source]]\nkind = "neso"')
    refused(serve(node), 2, "grid.source[0].zone", "DE", "GB")
    node.configure('site.zone = "DE"\n[[grid.source]]\nkind = "nesso"')
    refused(serve(node), 2, "grid.source[0].kind", "nesso", "electricity_maps")


def test_a_port_in_use(daemon: Start) -> None:
    node = daemon()
    with socket.create_server(("127.0.0.1", node.port)):
        refused(serve(node), 1, f"port {node.port}", "in use", "--listen")
    for bad, words in (("203.0.113.7:0", "not an address of this machine"), ("nope.invalid:0", "")):
        node.port = free_port()
        done = node.cli("serve", "--ledger", str(node.ledger), "--listen", bad)
        refused(done, 1, words)
    refused(node.cli("serve", "--listen", "19400"), 2, "--listen", "127.0.0.1:19400")


def test_a_ledger_without_permission(
    as_root: None, need: Callable[..., None], tmp_path: Path
) -> None:
    need("setpriv")
    with world_readable_folder() as home:
        closed = home / "closed"
        closed.mkdir(mode=0o700)
        os.chown(closed, 65534, 65534)
        with Daemon(home / "d", prefix=POWERLESS, ledger=closed / "books/l.sqlite") as node:
            message = refused(serve(node), 1, str(closed))
            assert "Permission denied" in message or "cannot be" in message
        with Daemon(home / "e", prefix=POWERLESS, ledger=home / "l.sqlite") as node:
            node.ledger.touch(mode=0o600)
            os.chown(node.ledger, 65534, 65534)
            refused(serve(node), 1, str(home), "chown 0")
        with Daemon(home / "f", ledger=Path("/proc/l.sqlite")) as node:
            refused(serve(node), 1, "/proc")


def test_a_ledger_that_is_no_ledger(daemon: Start) -> None:
    node = daemon()
    node.arguments[1] = str(node.home / "notes.txt")
    (node.home / "notes.txt").write_text("my notes, not a database\n" * 100)
    refused(serve(node), 1, "notes.txt", "not a wattledger ledger", "--ledger")
    assert (node.home / "notes.txt").read_text().startswith("my notes")


def test_a_ledger_in_memory_must_be_declared(daemon: Start) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="wattledger-", dir="/dev/shm") as home,
        Daemon(Path(home)) as node,
    ):
        refused(serve(node), 1, "tmpfs", "ledger.volatile = true")
        node.configure(FINE + "ledger.volatile = true")
        node.start()
        assert node.scrape().labels("ledger_info", "storage") == {"volatile"}
        node.terminate()


SOURCE = """
site.zone = "DE"
[[grid.source]]
kind = "electricity_maps"
token_file = "FILE"
"""


def test_a_token_file_that_cannot_be(daemon: Start) -> None:
    node = daemon()
    token = node.home / "token"
    settings = SOURCE.replace("FILE", str(token))
    node.configure(settings)
    refused(serve(node), 2, "grid.source[0]", str(token))  # missing
    token.write_text("canary-of-a-token\n")
    token.chmod(0o644)
    message = refused(serve(node), 2, "grid.source[0]", str(token), "chmod 600")
    assert "canary" not in message
    token.chmod(0o600)
    token.write_text("")
    refused(serve(node), 2, "grid.source[0]", str(token), "empty")
    node.configure(SOURCE.replace('token_file = "FILE"', ""))
    refused(serve(node), 2, "grid.source[0]", "token_file")
    node.configure(SOURCE + 'token = "canary-of-a-token"')
    assert "canary" not in refused(serve(node), 2, "grid.source[0].token", "token_file")
    token.write_text("canary-of-a-token\n")
    node.configure(settings + 'url = "http://example.org/v3"')
    message = refused(serve(node), 2, "grid.source[0]", "plain http")
    assert "canary" not in message


@pytest.mark.parametrize(
    ("scenario", "line", "words"),
    [
        ('[[gpu]]\nmodel = "H100 SXM"\nwatts = 3', 3, "watts"),
        ('[[gpu]]\n\nmodel = "H1000"', 3, "H100 SXM"),
        ('[[gpu]]\nmodel = "A100"\nwaveform = { kind = "sqare" }', 3, "square"),
        ('[[gpu]]\nmodel = "A100"\n[[fault]]\nkind = "lost"\ngpu = 4', 5, "gpu"),
        ("[[gpu]\n", 1, ""),
    ],
)
def test_a_scenario_with_an_error_names_the_line(
    daemon: Start, scenario: str, line: int, words: str
) -> None:
    node = daemon(scenario=scenario)
    refused(serve(node), 1, f"scenario.toml:{line}", words)


def test_a_missing_scenario(daemon: Start) -> None:
    node = daemon()
    refused(serve(node, "--simulate", str(node.home / "none.toml")), 1, "none.toml")
    node.configure('meters.nvml.backend = "simulated"')
    refused(serve(node), 2, "meters.nvml.scenario", "is missing")


def test_a_bad_web_configuration(daemon: Start) -> None:
    web = "http.web_config = '{}'"
    node = daemon()
    path = node.home / "web.yml"
    node.configure(web.format(path))
    done = serve(node)
    assert done.returncode in (1, 2) and str(path) in done.stderr
    path.write_text("tls_server_config:\n  cert_file: nowhere.pem\nbasic_auth_user: {}\n")
    done = serve(node)
    assert done.returncode == 2
    assert "basic_auth_user" in done.stderr


def test_bad_arguments(daemon: Start) -> None:
    node = daemon()
    for arguments in (("sevre",), (), ("serve", "--nonsense"), ("report", "--by", "planet")):
        done = node.cli(*arguments)
        assert done.returncode == 2
        assert done.stderr.startswith("usage: wattledger")
        assert "Traceback" not in done.stderr
    refused(node.cli("release", "--for", "soon"), 2, "--for", "soon")
    refused(node.cli("report", "--since", "yesterday"), 1, "")


def test_commands_without_a_daemon_say_how_to_start_one(daemon: Start) -> None:
    node = daemon()
    done = node.cli("release", "--for", "1m", "--ledger", str(node.ledger))
    refused(done, 1, "no running daemon", "wattledger serve")


def test_output_into_a_closed_pipe_is_quiet(daemon: Start) -> None:
    node = daemon()
    shell = f"{sys.executable} -m wattledger.cli config default | head -1"
    done = subprocess.run(
        ["bash", "-c", shell], capture_output=True, text=True, env=node.env, cwd=node.home
    )
    assert done.stderr == ""
