"""Where things lie by default: the books, the socket of the command line."""

from __future__ import annotations

import os
from pathlib import Path

from wattledger.config.settings import Config
from wattledger.errors import LedgerError

SYSTEM_SOCKET = Path("/run/wattledger/wattledger.sock")  # of the daemon that systemd runs


def state_directory() -> Path:
    """Where the books lie by default: systemd's state directory, else the user's.

    Raises:
        LedgerError: there is neither.
    """
    if given := os.environ.get("STATE_DIRECTORY", ""):
        return Path(given.split(":")[0])
    try:
        home = os.environ.get("XDG_STATE_HOME", "") or Path.home() / ".local/state"
    except RuntimeError:
        raise LedgerError(
            "this user has no home directory to keep the books in",
            "name a place with --ledger FILE or ledger.path",
        ) from None
    return Path(home) / "wattledger"


def ledger_path(config: Config) -> Path:
    """The SQLite file. Simulated energy is never written to the real books by default.

    Raises:
        LedgerError: there is no place for it.
    """
    if config.ledger.path:
        return Path(config.ledger.path)
    simulated = config.meters.nvml.backend == "simulated"
    return state_directory() / ("simulated.sqlite" if simulated else "ledger.sqlite")


def socket_path(config: Config) -> Path | None:
    """The Unix socket of the command line.

    Returns:
        None: there is none, or there is no place for the books, beside which it would lie.
    """
    if config.http.socket == "none":
        return None
    if config.http.socket:
        return Path(config.http.socket)
    if given := os.environ.get("RUNTIME_DIRECTORY", ""):
        return Path(given.split(":")[0]) / "wattledger.sock"
    try:
        return ledger_path(config).with_suffix(".sock")
    except LedgerError:  # a user without a home, as in a container
        return None
