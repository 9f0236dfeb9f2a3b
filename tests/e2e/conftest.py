"""What the end-to-end tests need of the machine. In CI (`CI` is set) a lack of it is a failure."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from e2e.booted import install, make_root
from e2e.daemon import Daemon

Start = Callable[..., Daemon]
HERE = Path(__file__).parent
TIMEOUT_S = 600  # processes are started, meters waited for: also on a machine that is slow and busy


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """These tests may take longer than the others; some take longer still."""
    for item in items:
        if HERE in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(TIMEOUT_S))


def lacking(what: str) -> None:
    """Skip the test, or fail it in CI."""
    if os.environ.get("CI"):
        pytest.fail(f"{what} (.ci/run installs what the end-to-end tests need)")
    pytest.skip(what)


@pytest.fixture(scope="session")
def need() -> Callable[..., None]:
    """Call with the names of programs that the test starts."""

    def check(*programs: str) -> None:
        missing = [program for program in programs if shutil.which(program) is None]
        if missing:
            lacking(f"not installed: {', '.join(missing)}")

    return check


@pytest.fixture(scope="session")
def as_root() -> None:
    """The test needs root."""
    if os.geteuid():
        lacking("needs root")


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Start]:
    """Makes daemons (not started) that end with the test; see `Daemon`."""
    made: list[Daemon] = []

    def make(config: str = "", *, name: str = "d", **more: object) -> Daemon:
        made.append(Daemon(tmp_path / name, config, **more))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture(scope="session")
def debian_root(
    tmp_path_factory: pytest.TempPathFactory, need: Callable[..., None], as_root: None
) -> Path:
    """A Debian with the program, not to be changed; see `booted`."""
    need("systemd-nspawn", "mmdebstrap", "nsenter", "chroot")
    if not Path("/etc/debian_version").exists():
        lacking("the container's Debian is made from the host's")
    folder = tmp_path_factory.mktemp("debian")
    make_root(folder / "root")
    install(folder / "root", folder / "wheels")
    return folder / "root"
