"""`wattledger top`: its options, and what runs it. Imports little, for a quick start."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wattledger.remote import Remote


def add_top_command(
    commands: Any,
    parents: list[argparse.ArgumentParser],
    daemon: Callable[[argparse.Namespace], Remote],
) -> None:
    """Add it to the command line.

    Args:
        commands: where to add it.
        parents: the options that it shares with others.
        daemon: finds the daemon that the options mean.
    """
    top = commands.add_parser(
        "top",
        parents=parents,
        help="the node's power now, by device and job, drawn anew with each commit",
    )
    top.add_argument("--once", action="store_true", help="print it once, as into a pipe")
    top.add_argument("--json", action="store_true", help="once, for programs")

    def run(options: argparse.Namespace) -> int:
        from wattledger.top.screen import show

        show(daemon(options), once=options.once, as_json=options.json)
        return 0

    top.set_defaults(run=run)
