"""What `doctor` says of the web configuration, of a daemon that runs and of the file alone."""

from __future__ import annotations

import datetime
import itertools
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trustme

from snapshots import NOW_NS, snapshot
from wattledger.config import parse_config
from wattledger.doctor import web
from wattledger.doctor.finding import Finding
from wattledger.model.web import WebStatus
from wattledger_exporters.http.api import status
from wattledger_exporters.prometheus import Renderer
from wattledger_exporters.web_config import LiveWebConfig

DAY_NS = 86_400 * 10**9
PUT = "put a new one in its place; no restart is needed"


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """One that everybody on the machine may enter; pytest's own are closed to others."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def told(state: WebStatus | None) -> Mapping[str, Any]:
    return status(replace(snapshot(), web=state), NOW_NS)


@pytest.mark.parametrize(
    ("days", "level", "words"),
    [(30, "ok", "ends at"), (7, "ok", "ends at"), (6, "problem", "ends at"),
     (0, "problem", "has ended at"), (-3, "problem", "has ended at")],
)  # fmt: skip
def test_how_long_the_certificate_lasts(days: int, level: str, words: str) -> None:
    [found] = web.of_status(told(WebStatus(NOW_NS + days * DAY_NS)))
    assert (found.area, found.level) == ("web", level)
    assert words in found.message
    assert found.hint == ("" if level == "ok" else PUT)


def test_a_renewal_that_failed_is_told_with_its_reason() -> None:
    fault, certificate = web.of_status(told(WebStatus(NOW_NS + 30 * DAY_NS, "key.pem: lost")))
    assert fault.level == "problem"
    assert fault.message.endswith("the one before is in force: key.pem: lost")
    assert certificate.ok


def test_nothing_is_said_where_there_is_none() -> None:
    assert list(web.of_status(told(None))) == []
    assert list(web.of_status(told(WebStatus()))) == []
    assert list(web.of_status({})) == []  # an older daemon
    assert of_config(Path()) == []


def of_config(path: Path) -> list[Finding]:
    text = f'[http]\nweb_config = "{path}"\n' if path.name else ""
    return list(web.of_config(parse_config(text)))


def test_the_file_alone(tmp_path: Path) -> None:
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=2)
    made = trustme.CA().issue_cert("localhost", not_after=soon)
    made.private_key_and_cert_chain_pem.write_to_path(tmp_path / "all.pem")
    path = tmp_path / "web.yml"
    path.write_text("tls_server_config: {cert_file: all.pem, key_file: all.pem}")
    [found] = of_config(path)
    assert found.level == "problem"
    assert soon.strftime("%Y-%m-%dT%H:%M:%SZ") in found.message
    path.write_text("tls_server_config: {cert_file: lost.pem, key_file: all.pem}")
    [found] = of_config(path)
    assert found.level == "problem"
    assert "lost.pem cannot be read" in found.message
    path.write_text("{}")
    assert of_config(path) == []
    path.chmod(0)
    if not os.access(path, os.R_OK):
        [found] = of_config(path)
        assert found.level == "note"
        assert "root" in found.hint


def users(cost: int) -> str:
    return f"basic_auth_users: {{alice: $2y${cost}${'.' * 53}}}"


@pytest.mark.parametrize(("cost", "told_of"), [(10, False), (14, False), (15, True), (18, True)])
def test_a_password_that_takes_seconds_to_check_is_told(
    open_folder: Path, cost: int, told_of: bool
) -> None:
    path = open_folder / "web.yml"
    path.write_text(users(cost))
    found = of_config(path)
    assert [(one.level, f"cost {cost}" in one.message) for one in found] == (
        [("problem", True)] if told_of else []
    )
    assert all("htpasswd" in one.hint for one in found)
    assert "alice" not in str(found)  # anybody on the machine may ask the daemon


@pytest.mark.parametrize("inline", [False, True])
def test_a_key_that_everybody_may_read_is_told(open_folder: Path, inline: bool) -> None:
    made = trustme.CA().issue_cert("localhost")
    made.cert_chain_pems[0].write_to_path(open_folder / "cert.pem")
    key, path = open_folder / "key.pem", open_folder / "web.yml"
    made.private_key_pem.write_to_path(key)
    said = "key_file: key.pem"
    if inline:
        said = "key: " + json.dumps(key.read_text())
        key = path
    path.write_text(f"tls_server_config: {{cert_file: cert.pem, {said}}}")

    def telling() -> list[Finding]:
        return [one for one in of_config(path) if not one.ok]

    for mode, told_of in ((0o600, False), (0o640, False), (0o644, True)):
        key.chmod(mode)
        assert bool(telling()) is told_of, oct(mode)
    [found] = telling()
    assert str(key) in found.message
    assert f"chmod o= {key}" in found.hint
    open_folder.chmod(0o750)  # nobody gets as far as the file
    assert not telling()


def test_the_daemon_tells_what_should_be_mended_and_forgets_it(open_folder: Path) -> None:
    path = open_folder / "web.yml"
    path.write_text(users(18))
    now_s = itertools.count().__next__
    live = LiveWebConfig(path, now_s=now_s, wall_ns=lambda: 1 << 62)
    [found] = web.of_status(told(live.status))
    assert found == of_config(path)[0]
    path.write_text("basic_auth_users: {alice: nonsense}")
    assert live.current.users
    fault, still = web.of_status(told(live.status))
    assert "has faults" in fault.message
    assert still == found  # what is in force is what it was
    path.write_text("{}")
    assert not live.current.users
    assert list(web.of_status(told(live.status))) == []


@pytest.mark.parametrize(
    ("state", "lines"),
    [
        (None, []),
        (WebStatus(), ["web_config_current 1.0"]),
        (WebStatus(0, "lost"), ["web_config_current 0.0"]),
        (
            WebStatus(NOW_NS),
            [
                f"web_certificate_expiry_timestamp_seconds {NOW_NS // 10**9 / 1e9}e+09",
                "web_config_current 1.0",
            ],
        ),
    ],
)
def test_the_page_tells_the_same(state: WebStatus | None, lines: list[str]) -> None:
    page = Renderer().render(replace(snapshot(), web=state), 1, process=False).text.decode()
    shown = [line for line in page.splitlines() if line.startswith("wattledger_web_")]
    assert shown == [f"wattledger_{line}" for line in lines]
