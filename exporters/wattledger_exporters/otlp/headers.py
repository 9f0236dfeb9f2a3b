"""Headers from a file: tokens, which are nobody else's."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from wattledger.errors import ExportFailed

CREDENTIAL = "%d/"
_MAX_BYTES = 16_384
_LINE = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+)\s*:\s*([\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?)")


def read_headers(file: str) -> dict[str, str]:
    """The headers of a file, `Name: value` on each line; empty lines and those after # are none.

    Args:
        file: its path; `%d/NAME` lies in systemd's directory of credentials.

    Raises:
        ExportFailed: it cannot be read, others can read it, or a line is no header. Nothing of
            its content is repeated.
    """
    path, mask = Path(file), 0o077
    directory = os.environ.get("CREDENTIALS_DIRECTORY", "")
    if directory and file.startswith(CREDENTIAL):
        path = Path(directory, file.removeprefix(CREDENTIAL))
        mask = 0o007  # its group bits show the mask of an ACL for the service's user
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise _refusal(f"{path} cannot be read: {error.strerror}") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _refusal(f"{path} is not a regular file")
        if status.st_mode & mask:
            raise _refusal(f"others can read {path}", f"chmod 600 {path}")
        raw = os.read(descriptor, _MAX_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(raw) > _MAX_BYTES:
        raise _refusal(f"{path} is longer than {_MAX_BYTES} bytes")
    headers: dict[str, str] = {}
    for number, line in enumerate(raw.decode("latin-1").splitlines(), start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        match = _LINE.fullmatch(text)
        if match is None:
            raise _refusal(f"line {number} of {path} is no header", "write `Name: value`")
        headers[match[1].lower()] = match[2]
    return headers


def _refusal(message: str, hint: str = "") -> ExportFailed:
    return ExportFailed("headers", f"headers_file: {message}", hint, retry_after_s=30.0)
