"""deploy/container/Containerfile built by buildah over a Debian of mmdebstrap, and run.

No registry is asked for an image: the base is made here, of the same packages. The libraries come
as wheels, since what pip is told here (mirrors, certificates) is no part of an image.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]
BASE = "localhost/wattledger-base:12-slim"


class Store:
    """buildah with a store of its own."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._use("overlay")
        # It cannot lie on another overlay; vfs copies every layer instead.
        if self.run("info", check=False).returncode:
            self._use("vfs")

    def _use(self, driver: str) -> None:
        at = self._home / driver
        self._command = [
            "buildah", f"--root={at}/root", f"--runroot={at}/run", f"--storage-driver={driver}",
        ]  # fmt: skip

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*self._command, *arguments],
            capture_output=True, text=True, stdin=subprocess.DEVNULL, cwd=REPOSITORY, timeout=400,
        )  # fmt: skip
        assert not check or done.returncode == 0, (
            arguments,
            done.stdout[-3000:],
            done.stderr[-3000:],
        )
        return done

    def inside(self, container: str, *command: str) -> subprocess.CompletedProcess[str]:
        return self.run("run", "--isolation=chroot", container, "--", *command, check=False)


@pytest.fixture(scope="module")
def store(
    bare_debian: Path, tmp_path_factory: pytest.TempPathFactory, need: Callable[..., None]
) -> Iterator[Store]:
    need("buildah")
    home = tmp_path_factory.mktemp("image")
    wheels = home / "wheels"
    made = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--wheel-dir", str(wheels),
         "--constraint", "constraints.txt", f"{REPOSITORY}[otlp]", "hatchling"],
        capture_output=True, text=True, cwd=REPOSITORY, timeout=300,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    (home / "pip.conf").write_text("[global]\nno-index = true\nfind-links = /mnt\n")
    store = Store(home)
    base = store.run("from", "scratch").stdout.strip()
    store.run("add", "--quiet", base, str(bare_debian), "/")
    store.run("commit", "--quiet", base, BASE)
    store.run("build", "--isolation=chroot", f"--build-arg=BASE={BASE}", "--format=docker",
              f"--volume={wheels}:/mnt:ro", f"--volume={home}/pip.conf:/etc/pip.conf:ro",
              "--file=deploy/container/Containerfile", "--tag=wattledger:test", ".")  # fmt: skip
    yield store
    store.run("rm", "--all", check=False)
    shutil.rmtree(home, ignore_errors=True)


@pytest.mark.timeout(600)  # the image is made in the first test's time
def test_the_image_is_what_the_file_says_and_it_runs(store: Store) -> None:
    told: dict[str, Any] = json.loads(store.run("inspect", "wattledger:test").stdout)
    config = told["Docker"]["config"]
    assert config["User"] == "65532:65532"
    assert config["Entrypoint"] == ["/usr/bin/wattledger"]
    assert config["Healthcheck"]["Test"][0] == "CMD"
    names = {each.partition("=")[0] for each in config["Env"]}
    assert names == {
        "PATH", "STATE_DIRECTORY", "RUNTIME_DIRECTORY", "PYTHONDONTWRITEBYTECODE",
        "PYTHONUNBUFFERED", "PYTHONNODEBUGRANGES", "MALLOC_TRIM_THRESHOLD_",
        "NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES",
    }  # fmt: skip

    container = store.run("from", "wattledger:test").stdout.strip()
    assert store.inside(container, "id", "-u").stdout.strip() == "65532"
    version = store.inside(container, "wattledger", "--version")
    assert version.stdout.startswith("wattledger "), version.stderr
    # Neither what it was made with nor what it was made from.
    root = Path(store.run("mount", container).stdout.strip())
    library = root / "usr/lib/wattledger/lib"
    (packages,) = library.glob("python3.*/site-packages")
    assert not list(packages.glob("pip*")) and not list(packages.glob("setuptools*"))
    assert not (root / "src").exists() and not list((root / "mnt").iterdir())
    # buildah leaves an empty file where one was mounted.
    assert not (root / "etc/pip.conf").exists() or not (root / "etc/pip.conf").stat().st_size
    assert list((packages / "wattledger/__pycache__").glob("cli.*.pyc"))
    # The daemon starts as nobody, is healthy, and ends when it is told to.
    shown = store.inside(
        container, "/usr/bin/timeout", "--signal=TERM", "120", "sh", "-c",
        "wattledger serve --listen 127.0.0.1:0 & p=$!; trap 'kill $p; wait $p; exit 1' TERM; "
        "until python3 -IS /usr/lib/wattledger/healthcheck.py; "
        "do kill -0 $p || exit 1; sleep 0.2; done; echo healthy; "
        "kill $p; wait $p; echo ended $?",
    )  # fmt: skip
    assert shown.stdout.splitlines()[-2:] == ["healthy", "ended 0"], (shown.stdout, shown.stderr)
