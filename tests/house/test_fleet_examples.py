"""What deploy/TWO_THOUSAND.md gives other programs to read: Ansible and Alertmanager.

Neither is needed to build or run this project, so what is held here is what such an example can get
wrong about it: names, files, modes, the order, and commands that it has executed.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml

from documents import ROOT, Block, blocks, chosen, commands
from wattledger.cli import main

RULES = [
    rule
    for path in sorted((ROOT / "deploy/prometheus/rules").glob("*.yml"))
    for group in yaml.safe_load(path.read_text())["groups"]
    for rule in group["rules"]
    if "alert" in rule
]
ALERTS = {rule["alert"] for rule in RULES}
SEVERITIES = {rule["labels"]["severity"] for rule in RULES}
PAGE = "deploy/README.md"


def tasks() -> list[Mapping[str, Any]]:
    (block,) = chosen("yaml ansible")
    (play,) = yaml.safe_load(block.text)
    handlers = {one["name"] for one in play["handlers"]}
    assert {one["notify"] for one in play["tasks"] if "notify" in one} == handlers
    found: list[Mapping[str, Any]] = play["tasks"]
    return found


def copied() -> list[Mapping[str, Any]]:
    return [one["ansible.builtin.copy"] for one in tasks() if "ansible.builtin.copy" in one]


def installed() -> Iterator[tuple[str, str, str]]:
    """What deploy/README.md puts below /etc/wattledger by `install`: path, mode, group."""
    for block in blocks():
        if block.document == PAGE and block.kind == "console node":
            for command in commands(block):
                words = shlex.split(command.typed, comments=True)
                if words[0] == "install" and "/etc/wattledger" in words:
                    group = words[words.index("-g") + 1] if "-g" in words else ""
                    for word in words[words.index("/etc/wattledger") + 1 :]:
                        name = word.rpartition("/")[2]
                        yield f"/etc/wattledger/{name}", words[words.index("-m") + 1], group


def test_files_have_the_modes_that_the_page_gives_them() -> None:
    by_hand = set(installed())
    assert {path for path, _, _ in by_hand} == {
        f"/etc/wattledger/{name}" for name in ("node.crt", "node.key", "web.yml")
    }
    managed = {(one["dest"], one["mode"].lstrip("0"), one.get("group", "")) for one in copied()}
    assert by_hand <= managed


def test_what_the_settings_name_is_there_before_them() -> None:
    order = [one["dest"] for one in copied()]
    assert order[-1] == "/etc/wattledger/wattledger.toml"
    (web,) = [block for block in chosen("yaml web-config") if block.document.endswith("SAND.md")]
    tls: Mapping[str, str] = yaml.safe_load(web.text)["tls_server_config"]
    named = [f"/etc/wattledger/{name}" for key, name in tls.items() if key.endswith("_file")]
    assert len(named) == 3
    assert all(order.index(path) < order.index("/etc/wattledger/web.yml") for path in named)


def test_a_mistake_in_the_settings_is_found_before_they_are_in_place(
    tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    (validate,) = [one["validate"] for one in copied() if "validate" in one]
    program, *words = (validate % (tmp_path / "wattledger.toml")).split()
    assert program == "wattledger"
    settings = (ROOT / "deploy/systemd/wattledger.toml").read_text()
    (tmp_path / "wattledger.toml").write_text(settings)
    assert main(words) == 0
    (tmp_path / "wattledger.toml").write_text(settings + '\n[http]\nlisten = "nowhere"\n')
    assert main(words) != 0
    assert "listen" in "".join(capsys.readouterr())
    named = f'\n[http]\nlisten = "0.0.0.0:19400"\nweb_config = "{tmp_path}/web.yml"\n'
    (tmp_path / "wattledger.toml").write_text(settings + named)
    assert main(words) != 0
    assert "web.yml cannot be read" in "".join(capsys.readouterr())
    (tmp_path / "web.yml").write_text("basic_auth_users: bad\n")
    assert main(words) != 0
    assert "basic_auth_users" in "".join(capsys.readouterr())
    (tmp_path / "web.yml").write_text(f"basic_auth_users: {{alice: $2y$10${'.' * 53}}}\n")
    assert main(words) == 0


def test_it_restarts_before_it_asks_whether_all_is_well() -> None:
    kinds = [next(key for key in one if key.startswith("ansible.builtin.")) for one in tasks()]
    assert kinds[-2:] == ["ansible.builtin.meta", "ansible.builtin.command"]
    assert tasks()[-2]["ansible.builtin.meta"] == "flush_handlers"


@pytest.mark.parametrize("block", chosen("yaml alertmanager"), ids=lambda block: str(block.where))
def test_alertmanager_is_told_of_alerts_that_there_are(block: Block) -> None:
    tree = yaml.safe_load(block.text)
    receivers = {one["name"] for one in tree["receivers"]}
    routes = [tree["route"], *tree["route"]["routes"]]
    assert {one["receiver"] for one in routes} == receivers
    assert {
        name for one in routes for name in one.get("active_time_intervals", [])
    } == {one["name"] for one in tree["time_intervals"]}  # fmt: skip
    matchers = re.findall(r'(alertname|severity)=~?"([^"]+)"', block.text)
    assert matchers
    for label, value in matchers:
        assert set(value.split("|")) <= (ALERTS if label == "alertname" else SEVERITIES)
    assert tree["route"]["group_by"] == ["alertname", "cluster"]
