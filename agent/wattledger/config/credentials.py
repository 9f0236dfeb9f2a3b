"""Where tokens lie: files, or the credentials that systemd hands to a service."""

from __future__ import annotations

import os
from pathlib import Path

CREDENTIAL = "%d/"


def expand_credential(path: str) -> Path | None:
    """A token file's path; `%d/NAME` lies in systemd's credentials directory, if there is one."""
    if not path:
        return None
    directory = os.environ.get("CREDENTIALS_DIRECTORY", "")
    if directory and path.startswith(CREDENTIAL):
        return Path(directory, path.removeprefix(CREDENTIAL))
    return Path(path)
