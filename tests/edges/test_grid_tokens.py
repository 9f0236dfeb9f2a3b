"""Tokens: the file they lie in, and that they do not show themselves."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from wattledger.errors import ConfigError
from wattledger.grid.secret import Secret, read_token

CANARY = "canary-7f3a9c"


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(CANARY + "\n")
    path.chmod(0o600)
    return path


def test_a_secret_does_not_show_itself() -> None:
    secret = Secret(CANARY)
    shown = f"{secret} {secret!r} {secret:>20} {secret!s} {[secret]} {vars if secret else ''}"
    assert CANARY not in shown
    assert not hasattr(secret, "__dict__")
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    assert secret == Secret(CANARY) != Secret("another")
    assert secret.reveal() == CANARY


def _fault(path: Path, **options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        read_token(path, key="grid.source[0].token_file", **options)
    [(key, text)] = caught.value.faults
    assert key == "grid.source[0].token_file"
    assert CANARY not in str(caught.value)
    return text


def test_token_file_missing(tmp_path: Path) -> None:
    assert "does not exist" in _fault(tmp_path / "absent")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620, 0o602])
def test_token_file_that_others_can_read(token_file: Path, mode: int) -> None:
    token_file.chmod(mode)
    assert f"chmod 600 {token_file}" in _fault(token_file)


@pytest.mark.parametrize("content", ["", " \n"])
def test_token_file_empty(token_file: Path, content: str) -> None:
    token_file.write_text(content)
    assert "empty" in _fault(token_file)


@pytest.mark.parametrize(
    "content", [f"{CANARY}\nsecond", f"{CANARY} x", f"{CANARY}\r\nX: y", f"{CANARY}é", CANARY * 999]
)
def test_token_file_that_holds_no_token(token_file: Path, content: str) -> None:
    token_file.write_text(content)
    assert "one line" in _fault(token_file)


def test_token_file_that_is_no_file(tmp_path: Path) -> None:
    assert "regular file" in _fault(tmp_path)
    os.mkfifo(tmp_path / "fifo", 0o600)
    assert "regular file" in _fault(tmp_path / "fifo")
    assert "cannot be read" in _fault(tmp_path / ("x" * 300))
    assert "cannot be read" in _fault(Path("/x\0y"))


def test_systemd_credentials_show_the_mask_of_an_acl(token_file: Path) -> None:
    token_file.chmod(0o440)
    _fault(token_file)
    here = token_file.parent
    assert read_token(token_file, credentials_directory=here).reveal() == CANARY
    token_file.chmod(0o444)
    assert "chmod 600" in _fault(token_file, credentials_directory=here)


def test_systemd_names_the_credentials_directory(
    token_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token_file.chmod(0o440)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(token_file.parent))
    assert read_token(token_file).reveal() == CANARY
