"""`settle`, `verify` and `report --export`: their options. Imports little, for a quick start."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from wattledger.config import Config

if TYPE_CHECKING:
    from wattledger.remote import Remote

Settings = Callable[[argparse.Namespace], Config]
Daemon = Callable[[argparse.Namespace], "Remote"]
EXPORT = "--export"
EXPORT_HELP = (
    "write entries, settlements and prices of the time as JSON lines, from which every gram can be "
    "recomputed; - is standard output"
)


def add_audit_commands(
    commands: Any, parents: list[argparse.ArgumentParser], settings: Settings, daemon: Daemon
) -> None:
    """Add them to the command line.

    Args:
        commands: where to add them.
        parents: the options that all of them share.
        settings: makes the settings of the options.
        daemon: finds the daemon that the options mean.
    """
    settle = commands.add_parser(
        "settle",
        parents=parents,
        help="price the past by what its sources have published since, beside what was booked",
    )
    settle.add_argument(
        "--days", type=int, metavar="N", help="how far back; at most grid.settle_window (45 d)"
    )
    settle.add_argument("--json", action="store_true")

    def run_settle(options: argparse.Namespace) -> int:
        from wattledger.audit.settle_command import settle_command

        return settle_command(options, lambda: settings(options), daemon(options))

    settle.set_defaults(run=run_settle)
    verify = commands.add_parser(
        "verify",
        parents=parents,
        help="recompute every gram and litre of the books and list every difference",
    )
    verify.add_argument("--json", action="store_true")

    def run_verify(options: argparse.Namespace) -> int:
        from wattledger.audit.verify_command import verify_command

        return verify_command(options, lambda: settings(options), daemon(options))

    verify.set_defaults(run=run_verify)
