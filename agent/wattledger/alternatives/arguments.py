"""`wattledger when` and `report --what-if`: what they take. Imports little, for a quick start."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wattledger.config import Config

Settings = Callable[[argparse.Namespace], Config]

WHAT_IF = "--what-if"
WHAT_IF_HELP = (
    "the same energy elsewhere, otherwise made or at another time, beside the real figure: "
    "zone=FR (country table), zone=FR,source=energy_charts (its history), "
    "mix=nuclear=0.7,fusion=0.3@12 (shares, and g/kWh where the fuel table has none; "
    "fusion=0.3@12@2.5 with its litres per kWh), shift=-6h"
)


def add_when_command(commands: Any, settings: Settings) -> None:
    """Add `when` to the command line.

    Args:
        commands: where to add it.
        settings: makes the settings of the options.
    """
    when = commands.add_parser(
        "when",
        help="the cleanest time ahead, by the grid's forecast",
        description="The window with the lowest mean carbon intensity among all that begin now or "
        "later, by the forecast of the first source that has one, beside starting now.",
    )
    when.add_argument("--config", type=Path, metavar="FILE", help="settings (TOML)")
    when.add_argument("--hours", metavar="N", required=True, help="how long it takes, such as 4")
    when.add_argument(
        "--within", metavar="DURATION", default="24h", help="it ends within this time (24h)"
    )
    when.add_argument("--zone", default="", help="another than the site's, such as GB or DE")
    when.add_argument("--source", default="", metavar="KIND", help="this one only, such as neso")
    when.add_argument("--power", metavar="W", help="IT power: says what the window emits, with PUE")
    when.add_argument("--json", action="store_true")

    def run(options: argparse.Namespace) -> int:
        from wattledger.alternatives.when_command import when_command

        return when_command(options, settings(options))

    when.set_defaults(run=run)
