"""`settle`, `restate`, `verify`, `report --export`: their options. Imports little."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wattledger.config import Config
from wattledger.errors import ConfigError

if TYPE_CHECKING:
    from wattledger.remote import Remote

Settings = Callable[[argparse.Namespace], Config]
Daemon = Callable[[argparse.Namespace], "Remote"]
EXPORT = "--export"
EXPORT_HELP = (
    "write entries, corrections, their grounds and prices of the time as JSON lines, from which "
    "every gram can be recomputed; - is standard output. With --format parquet a directory, with a "
    "file for each UTC day and node"
)


def add_export_options(report: argparse.ArgumentParser) -> None:
    """Add the options of `report` that write files."""
    report.add_argument(EXPORT, type=Path, metavar="FILE", help=EXPORT_HELP)
    parquet = report.add_argument_group("with --export and --format parquet")
    parquet.add_argument(
        "--node", default="", metavar="NAME", help="without it $NODE_NAME, else the host's name"
    )
    parquet.add_argument(
        "--only-settled",
        action="store_true",
        help="only days that are over and whose every price was published since",
    )
    parquet.add_argument(
        "--names", action="store_true", help="with users, accounts and the jobs' names"
    )


def run_export(
    options: argparse.Namespace, config: Callable[[], Config], remote: Remote
) -> int | None:
    """Writes what is to be exported; None: nothing is.

    Raises:
        ConfigError: options that do not go together.
        WattledgerError: it cannot be written.
    """
    if options.format == "parquet":
        if options.export is None or str(options.export) == "-":
            raise ConfigError([("--format", "parquet goes with --export and a directory")])
        from wattledger.audit.parquet_export import export_parquet

        return export_parquet(options, config, remote)
    for name in ("node", "only_settled", "names"):
        if getattr(options, name):
            text = "goes with --export and --format parquet"
            raise ConfigError([(f"--{name.replace('_', '-')}", text)])
    if options.export is None:
        return None
    from wattledger.audit.export import export

    return export(options, config, remote)


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
    _add_restate(commands, parents, settings, daemon)
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


def _add_restate(
    commands: Any, parents: list[argparse.ArgumentParser], settings: Settings, daemon: Daemon
) -> None:
    restate = commands.add_parser(
        "restate",
        parents=parents,
        help="correct a PUE, WUE or EWIF of the past, beside what was booked",
    )
    restate.add_argument("--pue", metavar="RATIO", help="facility energy over IT energy")
    restate.add_argument("--wue-l-per-kwh", metavar="L", help="on site, per kWh of IT energy")
    restate.add_argument("--ewif-l-per-kwh", metavar="L", help="of the grid, per kWh")
    restate.add_argument("--since", metavar="WHEN", help="the first hour, of UTC")
    restate.add_argument("--until", metavar="WHEN", help="exclusive; without it, from then on")
    restate.add_argument("--author", metavar="NAME", help="who says so")
    restate.add_argument("--reason", metavar="TEXT", help="why, and by what measurement")
    restate.add_argument("--list", action="store_true", help="show what was restated so far")
    restate.add_argument("--json", action="store_true")

    def run_restate(options: argparse.Namespace) -> int:
        from wattledger.audit.restate_command import restate_command

        return restate_command(options, lambda: settings(options), daemon(options))

    restate.set_defaults(run=run_restate)
