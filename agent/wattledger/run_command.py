"""`wattledger run`: what one command costs, without coming between it and the world."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from wattledger.build import SYSTEM_SOCKET
from wattledger.config import Config
from wattledger.errors import ConfigError, LedgerError, RunRefused, ScenarioError, WattledgerError
from wattledger.metering import Metering, Unmeasured, Wanted, begin
from wattledger.remote import Remote
from wattledger.wrapping import CommandFailed, Wrapped, find_command, occupy_standard_streams
from wattledger_exporters.receipts import receipt_text

CANNOT_EXIT = 125  # ours, where the command was not started; as env, nice and timeout have it

_STILL_RUNNING = "Processes that it started still run; what they use from now on is not counted."

log = logging.getLogger(__name__)


def run(
    options: argparse.Namespace, config: Callable[[], Config], remote: Callable[[], Remote]
) -> int:
    """Run a command, measure it and print its receipt on standard error.

    Returns:
        The command's exit code, 128 + N where signal N killed it, 127 or 126 where it cannot be
        found or executed, 125 where it was not started for a reason of ours.

    Raises:
        ConfigError: an option that cannot be.
    """
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command:
        raise ConfigError([("run", "names no command; write `wattledger run -- COMMAND …`")])
    gpus = tuple(part.strip() for part in options.gpus.split(",")) if options.gpus else ()
    if not all(gpus):
        raise ConfigError([("--gpus", f"{options.gpus!r} is not a list such as 0,1")])
    file = Path(options.json) if options.json else None
    if file is not None and not file.parent.is_dir():
        raise ConfigError([("--json", f"there is no directory {file.parent}")])
    occupy_standard_streams()
    settings = config()
    directly = options.simulate or options.sysfs or options.procfs
    wanted = Wanted.of(options.name or "", gpus)
    try:
        path = find_command(command[0])
        wrapped = Wrapped()
        metering = _begin(wanted, settings, None if directly else remote)
        code = wrapped.ended_early()
        if code is not None:
            _discard(metering, code)
            return code
        try:
            wrapped.start(path, command)
        except CommandFailed as error:
            _discard(metering, error.exit_code)
            raise
    except CommandFailed as error:
        _say(f"wattledger: {error.message}")
        return error.exit_code
    except WattledgerError as error:
        _say(f"wattledger: {error.message}" + (f"\n  {error.hint}" if error.hint else ""))
        return CANNOT_EXIT
    code = wrapped.wait()
    # From here on nothing may change what the command ended with.
    try:
        _receipt(metering, wrapped, code, file)
    except Exception as error:
        log.debug("no receipt", exc_info=True)
        _say(f"wattledger: no receipt could be made: {error!r}")
    return code


def _begin(wanted: Wanted, config: Config, remote: Callable[[], Remote] | None) -> Metering:
    """Begin to measure; a command that cannot be measured is run all the same.

    Raises:
        WattledgerError: the user asked for what cannot be.
    """
    try:
        return begin(wanted, config, _daemon(remote), watch=True)
    except (RunRefused, ConfigError, ScenarioError):
        raise
    except WattledgerError as error:
        return Unmeasured(wanted.name, f"It could not be measured: {error.message.rstrip('.')}.")
    except Exception as error:
        log.debug("not measured", exc_info=True)
        return Unmeasured(wanted.name, f"It could not be measured: {error!r}.")


def _daemon(remote: Callable[[], Remote] | None) -> Remote | None:
    try:
        return remote() if remote is not None else None
    except LedgerError:  # without a home there are no books of one's own, but the system's daemon
        return Remote([SYSTEM_SOCKET])


def _discard(metering: Metering, code: int) -> None:
    """The command did not begin, so that there is nothing to show."""
    try:
        metering.finish(code)
    except Exception:
        log.debug("not ended properly", exc_info=True)


def _receipt(metering: Metering, wrapped: Wrapped, code: int, file: Path | None) -> None:
    receipt, notes = metering.finish(code)
    if wrapped.reap():
        notes = (*notes, _STILL_RUNNING)
    if file is not None:
        try:
            _write(file, receipt)
        except OSError as error:
            notes = (*notes, f"{file} could not be written: {error.strerror or error}.")
    _say(receipt_text(receipt, notes))


def _write(file: Path, receipt: Mapping[str, Any]) -> None:
    """The receipt as a file, whole or not at all."""
    text = json.dumps(receipt, indent=2) + "\n"
    if file.exists() and not file.is_file():  # a pipe, /dev/fd/3
        file.write_text(text)
        return
    target = file.resolve()  # a link stays one
    beside = target.with_name(f".{target.name[:200]}.{os.getpid()}")
    try:
        with beside.open("x") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        beside.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise


def _say(text: str) -> None:
    """On standard error; whether anybody reads it is not our business."""
    if sys.stderr is None:  # it was closed before we began
        return
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
