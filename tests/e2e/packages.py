"""The Debian package of this checkout, one of an earlier version, and stand-ins for others."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from e2e.booted import REPOSITORY

EARLIER = "0.0.9"
PARTS = (
    "agent", "exporters", "configs", "deploy", "pyproject.toml", "constraints.txt", "Makefile",
    "README.md", "LICENSE", "CHANGELOG.md",
)  # fmt: skip


def build(checkout: Path, out: Path, *, umask: int = -1, tmpdir: Path | None = None) -> Path:
    """`make deb`, with another umask and directory for temporary files; returns the package."""
    made = subprocess.run(
        ["make", "--silent", "deb", f"OUT={out}"],
        cwd=checkout,
        env={**os.environ, **({"TMPDIR": str(tmpdir)} if tmpdir is not None else {})},
        umask=umask,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert made.returncode == 0, made.stderr
    return Path(made.stdout.splitlines()[-1])


def copy_checkout(folder: Path, version: str = "") -> Path:
    """What a package is made of, in a folder of its own, as if it were released as `version`."""
    folder.mkdir()
    for name in PARTS:
        if (REPOSITORY / name).is_dir():
            ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(REPOSITORY / name, folder / name, ignore=ignore)
        else:
            shutil.copy(REPOSITORY / name, folder / name)
    for name in ("pyproject.toml", "agent/wattledger/__init__.py") if version else ():
        file = folder / name
        line = re.compile(r'^(version|__version__) = "[^"]+"$', re.MULTILINE)
        text, changes = line.subn(rf'\1 = "{version}"', file.read_text())
        assert changes == 1, name
        file.write_text(text)
    return folder


def give(folder: Path, *, others: bool) -> None:
    """The modes of a checkout under a umask that lets others read, or nobody but its owner."""
    mode = "u=rwX,go=rX" if others else "u=rwX,go="
    subprocess.run(["chmod", "--recursive", mode, str(folder)], check=True)


def build_stand_in(name: str, folder: Path, postinst: str = "") -> Path:
    """An empty package of this name, for apt; `postinst` runs when it is configured."""
    tree = folder / name
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(
        f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: x <x@localhost>\n"
        "Description: stands for another\n"
    )
    script = tree / "DEBIAN/postinst"
    script.write_text(f"#!/bin/sh\n{postinst}\n")
    script.chmod(0o755)
    package = folder / f"{name}.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "--build", str(tree), str(package)],
        check=True,
        capture_output=True,
        timeout=60,
    )
    return package
