"""The unit as systemd's own tools judge it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from wattledger.build import SYSTEM_SOCKET
from wattledger.config.settings import Http

DEPLOY = Path(__file__).parents[2] / "deploy/systemd"
UNIT = DEPLOY / "wattledger.service"
BIN = "/usr/lib/wattledger/bin"
WORST = 20  # 2.0 of 10
DROP_INS = [
    (),
    ("credentials.conf",),
    ("without-rapl.conf",),
    ("kubelet.conf",),
    ("quiet.conf",),
    ("socket-activation.conf",),
]


def placed(tmp_path: Path, *drop_ins: str) -> Path:
    """The unit with drop-ins, its program in a place that exists here."""
    program = shutil.which("true")
    text = UNIT.read_text()
    assert text.count(f"ExecStart={BIN}/wattledger ") == 1
    unit = tmp_path / UNIT.name
    text = text.replace(f"{BIN}/wattledger-release", str(program))
    unit.write_text(text.replace(f"{BIN}/wattledger", str(program)))
    for name in drop_ins:
        folder = tmp_path / f"{UNIT.name}.d"
        folder.mkdir(exist_ok=True)
        shutil.copy(DEPLOY / name, folder / name)
        if name == "socket-activation.conf":
            shutil.copy(DEPLOY / "wattledger.socket", tmp_path)
    return unit


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", "--no-pager", *arguments], capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize("drop_ins", DROP_INS)
def test_the_unit_is_sound(
    tmp_path: Path, need: Callable[..., None], drop_ins: tuple[str, ...]
) -> None:
    need("systemd-analyze")
    answer = analyze("verify", "--man=no", str(placed(tmp_path, *drop_ins)))
    assert answer.returncode == 0, answer.stderr
    assert answer.stderr == ""


def test_a_mistake_in_the_unit_would_be_seen(tmp_path: Path, need: Callable[..., None]) -> None:
    need("systemd-analyze")
    unit = placed(tmp_path)
    unit.write_text(unit.read_text().replace("ProtectSystem=strict", "ProtectSystem=strickt"))
    assert "protect system" in analyze("verify", "--man=no", str(unit)).stderr


@pytest.mark.parametrize("drop_ins", DROP_INS)
def test_the_sandbox_is_rated_well(
    tmp_path: Path, need: Callable[..., None], drop_ins: tuple[str, ...]
) -> None:
    need("systemd-analyze")
    unit = placed(tmp_path, *drop_ins)
    answer = analyze("security", "--offline=yes", f"--threshold={WORST}", str(unit))
    assert answer.returncode == 0, answer.stdout


@pytest.mark.parametrize(("drop_ins", "rating"), [((), "1.9"), (("without-rapl.conf",), "1.6")])
def test_the_rating_is_what_the_papers_say(
    tmp_path: Path, need: Callable[..., None], drop_ins: tuple[str, ...], rating: str
) -> None:
    need("systemd-analyze")
    unit = placed(tmp_path, *drop_ins)
    answer = analyze("security", "--offline=yes", str(unit))
    assert f"exposure level for {UNIT.name}: {rating} " in answer.stdout
    papers = (DEPLOY / (drop_ins[0] if drop_ins else UNIT.name), DEPLOY / "README.md")
    assert all(rating in paper.read_text() for paper in papers)
    # The gate can fail.
    assert analyze("security", "--offline=yes", "--threshold=10", str(unit)).returncode == 1


def test_the_socket_unit_is_sound(tmp_path: Path, need: Callable[..., None]) -> None:
    need("systemd-analyze")
    placed(tmp_path, "socket-activation.conf")
    answer = analyze("verify", "--man=no", str(tmp_path / "wattledger.socket"))
    assert (answer.returncode, answer.stderr) == (0, "")
    # Who changes one of them changes the other.
    text = (DEPLOY / "wattledger.socket").read_text()
    assert f"ListenStream={Http().listen}\n" in text
    assert f"ListenStream={SYSTEM_SOCKET}\n" in text


def test_the_migs_manager_is_not_hurt_by_the_hook(
    tmp_path: Path, need: Callable[..., None]
) -> None:
    need("systemd-analyze")
    unit = tmp_path / "nvidia-mig-manager.service"
    unit.write_text("[Service]\nType=oneshot\nExecStart=/usr/bin/true\n")
    folder = tmp_path / f"{unit.name}.d"
    folder.mkdir()
    text = (DEPLOY / "mig-manager.conf").read_text()
    (folder / "wattledger.conf").write_text(text.replace(f"{BIN}/wattledger-release", "/bin/true"))
    answer = analyze("verify", "--man=no", str(unit))
    assert (answer.returncode, answer.stderr) == (0, "")
    calls = [line for line in text.splitlines() if line.startswith("Exec")]
    assert [line.split("=")[1] for line in calls] == [
        f"-{BIN}/wattledger-release {word}" for word in ("begin", "end")
    ]


@pytest.mark.parametrize("name", [UNIT.name, "wattledger.socket", "quiet.conf"])
def test_every_line_carries_its_reason(name: str) -> None:
    """Each setting, or the run of like settings it belongs to, stands below a comment."""
    explained = ""
    for line in (DEPLOY / name).read_text().splitlines():
        if line.startswith("#"):
            explained = "comment"
        elif not line or line.startswith("["):
            explained = ""
        else:
            key = line.split("=")[0]
            plain = key in ("Description", "WantedBy", "Type")
            assert explained or plain, f"{line}: why?"
