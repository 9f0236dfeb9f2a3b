"""What the GPU tests share: a real GPU or a skip, a load, and the book of results."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from wattledger.errors import MeterUnavailable
from wattledger.meters.nvml.binding import real_driver
from wattledger.meters.nvml.facts import GpuFacts
from wattledger.meters.nvml.survey import survey

HERE = Path(__file__).parent
RESULTS = HERE / "RESULTS.md"
CONTROL_DEVICE = Path("/dev/nvidiactl")


@pytest.fixture(scope="session")
def gpus() -> list[GpuFacts]:
    """The GPUs of this machine; without one, everything is skipped."""
    try:
        found = [facts for facts in survey(real_driver()) if not facts.error]
    except MeterUnavailable as error:
        pytest.skip(f"no GPU answers: {error.message}")
    if not found:
        pytest.skip("no GPU may be read")
    return found


@pytest.fixture
def nvml(gpus: list[GpuFacts]) -> Iterator[Any]:
    """nvidia-ml-py, initialised."""
    driver = real_driver()
    driver.nvmlInit()
    yield driver
    driver.nvmlShutdown()


@pytest.fixture(scope="session")
def record(gpus: list[GpuFacts], request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Appends one finding to RESULTS.md, under a heading for this run.

    Only on hardware: a stand-in for the library leaves no trace there.
    """
    driver = real_driver()
    driver.nvmlInit()
    version = driver.nvmlSystemGetDriverVersion()
    driver.nvmlShutdown()
    models = ", ".join(sorted({facts.model for facts in gpus}))
    heading = (
        f"\n## {datetime.now(UTC):%Y-%m-%d %H:%M} UTC: {len(gpus)} × {models}, driver {version}\n\n"
    )
    written: list[str] = []

    def write(what: str, finding: str) -> None:
        line = f"- {what}: {finding}\n"
        print(line, end="")
        if CONTROL_DEVICE.exists():
            with RESULTS.open("a") as book:
                book.write(line if written else heading + line)
            written.append(line)

    return write


@pytest.fixture
def load(gpus: list[GpuFacts]) -> Callable[[str, float], AbstractContextManager[None]]:
    """`with load("full", seconds):` keeps the first GPU busy; skips where torch is missing."""

    @contextmanager
    def run(kind: str, seconds: float) -> Iterator[None]:
        if kind == "idle":
            yield
            return
        command = [sys.executable, str(HERE / "load.py"), kind, str(seconds)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                process.wait()
                pytest.skip(f"no load: torch with CUDA is needed (exit {process.returncode})")
            try:
                yield
            finally:
                process.terminate()

    return run
