"""What the end-to-end tests need of the machine. In CI (`CI` is set) a lack of it is a failure."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

import dashboards
from e2e.booted import copied, install, make_root
from e2e.daemon import Daemon
from e2e.fleet_history import serve
from e2e.history import Prometheus
from e2e.packages import build, copy_checkout, give

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
def bare_debian(
    tmp_path_factory: pytest.TempPathFactory, need: Callable[..., None], as_root: None
) -> Path:
    """A Debian without the program, not to be changed; see `booted`."""
    need("systemd-nspawn", "mmdebstrap", "nsenter", "make")
    if not Path("/etc/debian_version").exists():
        lacking("the container's Debian is made from the host's")
    root = tmp_path_factory.mktemp("debian") / "root"
    make_root(root)
    return root


@pytest.fixture(scope="session")
def debian_root(bare_debian: Path) -> Path:
    """A Debian with the program, not to be changed."""
    root = copied(bare_debian, bare_debian.with_name("installed"))
    install(root)
    return root


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what a package is made of, by somebody who lets nobody else read what they make."""
    made = copy_checkout(tmp_path_factory.mktemp("this") / "checkout")
    give(made, others=False)
    return made


@pytest.fixture(scope="session")
def package(
    checkout: Path, tmp_path_factory: pytest.TempPathFactory, need: Callable[..., None]
) -> Path:
    """The Debian package that they build of it."""
    need("dpkg-deb", "make")
    return build(checkout, tmp_path_factory.mktemp("dist"), umask=0o077)


@pytest.fixture(scope="session")
def played_fleet(
    tmp_path_factory: pytest.TempPathFactory, need: Callable[..., None]
) -> Iterator[tuple[Prometheus, Mapping[str, float]]]:
    """A Prometheus that holds hours of a small fleet, and what its hardware drew."""
    need("prometheus", "promtool")
    rules = sorted((dashboards.GRAFANA.parent / "prometheus" / "rules").glob("*.yml"))
    prometheus, truth = serve(tmp_path_factory.mktemp("fleet"), rules, dashboards.recorded())
    yield prometheus, truth
    prometheus.stop()


@pytest.fixture(scope="session")
def fleet_prometheus(played_fleet: tuple[Prometheus, Mapping[str, float]]) -> Prometheus:
    """See `played_fleet`."""
    return played_fleet[0]


@pytest.fixture(scope="session")
def fleet_truth(played_fleet: tuple[Prometheus, Mapping[str, float]]) -> Mapping[str, float]:
    """See `played_fleet`."""
    return played_fleet[1]
