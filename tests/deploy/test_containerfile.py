"""deploy/container: what the image is made of, and the check of its health."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import yaml

from serving import serving
from wattledger.config import load_config

REPOSITORY = Path(__file__).parents[2]
FOLDER = REPOSITORY / "deploy" / "container"
DAEMON_SET = REPOSITORY / "deploy" / "kubernetes" / "base" / "daemonset.yaml"


def instructions() -> list[tuple[str, str]]:
    """(instruction, its text), with continued lines joined."""
    text = "\n".join(
        line
        for line in (FOLDER / "Containerfile").read_text().splitlines()
        if line and not line.startswith("#")
    )
    joined = re.sub(r"\\\n\s*", "", text)
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in joined.splitlines()]


FINAL = instructions()[max(n for n, (name, _) in enumerate(instructions()) if name == "FROM") :]
"""Of the image itself."""


def the(name: str) -> str:
    (text,) = [text for found, text in FINAL if found == name]
    return text


def test_it_is_nobody_who_runs_it() -> None:
    assert the("USER") == "65532:65532"
    assert FINAL[-1][0] == "CMD" and FINAL[-2] == ("ENTRYPOINT", '["/usr/bin/wattledger"]')


def test_what_is_copied_is_there_and_is_sent_along() -> None:
    ignored = (FOLDER / "Containerfile.dockerignore").read_text().splitlines()
    sent = {line[1:] for line in ignored if line.startswith("!")}
    assert next(line for line in ignored if not line.startswith("#")) == "*"
    copied: set[str] = set()
    for name, text in instructions():
        assert name != "ADD"
        if name == "COPY" and not text.startswith("--from"):
            copied |= set(text.split()[:-1])
    assert copied == sent
    assert all((REPOSITORY / path).exists() for path in copied)
    # hatchling makes the wheel of these, and of what pyproject.toml names besides.
    assert {"pyproject.toml", "agent", "exporters", "configs", "README.md", "LICENSE"} <= copied


def test_the_base_is_a_name_with_a_release() -> None:
    (argument,) = [text for name, text in instructions() if name == "ARG"]
    assert argument == "BASE=docker.io/library/debian:12-slim"
    assert {text.split()[0] for name, text in instructions() if name == "FROM"} == {"${BASE}"}
    assert argument.removeprefix("BASE=") in the("LABEL")


def test_nothing_of_the_making_stays() -> None:
    for name, text in instructions():
        if name == "RUN" and "apt-get" in text:
            assert "--no-install-recommends" in text and "rm -rf /var/lib/apt/lists/*" in text
        assert not re.search(r"token|password|secret|http://", text, re.IGNORECASE)
    (making,) = [text for name, text in instructions() if name == "RUN" and "pip install" in text]
    assert "--no-cache-dir" in making and "--constraint constraints.txt" in making
    assert "pip uninstall" in making


def test_it_listens_where_it_says(tmp_path: Path) -> None:
    (tmp_path / "none.toml").write_text("")
    default = load_config(tmp_path / "none.toml").http.listen
    assert the("EXPOSE") == "19400"
    assert str(default[1] if isinstance(default, tuple) else default).endswith("19400")
    assert the("CMD") == '["serve", "--listen", ":19400"]'


def test_the_pod_says_no_other_than_the_image() -> None:
    environment = dict(re.findall(r"(\w+)=(\S+)", the("ENV")))
    (container,) = yaml.safe_load(DAEMON_SET.read_text())["spec"]["template"]["spec"]["containers"]
    for each in container["env"]:  # what differs from pod to pod is no image's
        assert "valueFrom" in each or environment[each["name"]] == each["value"]
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert {environment["STATE_DIRECTORY"], environment["RUNTIME_DIRECTORY"]} <= mounts


@pytest.mark.parametrize(("path", "stale"), [((), 1), (("/livez",), 1), (("/healthz",), 0)])
def test_the_check_of_its_health(path: tuple[str, ...], stale: int) -> None:
    def check(directory: str) -> int:
        return subprocess.run(
            [sys.executable, "-IS", str(FOLDER / "healthcheck.py"), *path],
            env={"RUNTIME_DIRECTORY": directory},
            timeout=30,
        ).returncode

    with tempfile.TemporaryDirectory(prefix="wl") as short:
        assert check(short) == 1
        with serving(socket_path=Path(short) / "wattledger.sock") as it:
            assert check(short) == 0
            it.clock.advance(600)
            assert check(short) == stale
