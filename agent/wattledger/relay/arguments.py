"""`grid serve`: its options. Imports little, for a quick start."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

DEFAULT_LISTEN = "127.0.0.1:19401"


def add_grid_command(commands: Any, configure_log: Callable[[str], None]) -> None:
    """Add it to the command line. Args: commands: where. configure_log: sets the log up."""
    grid = commands.add_parser("grid", help="a relay of grid signals for a cluster")
    actions = grid.add_subparsers(required=True, metavar="ACTION")
    serve = actions.add_parser(
        "serve",
        help='serve nodes whose [[grid.source]] has kind = "wattledger"',
        description="Ask the [[grid.source]] of the settings once for any number of nodes, which "
        'name this relay as their own source with kind = "wattledger". http.web_config adds TLS '
        "and passwords.",
    )
    serve.add_argument("--config", type=Path, metavar="FILE", help="settings (TOML)")
    serve.add_argument(
        "--listen", default=DEFAULT_LISTEN, metavar="ADDR:PORT", help=f"default {DEFAULT_LISTEN}"
    )

    def run_serve(options: argparse.Namespace) -> int:
        from wattledger.relay.command import serve_command

        return serve_command(options, configure_log)

    serve.set_defaults(run=run_serve)
