"""`wattledger estimate`: what it takes on the command line."""

from __future__ import annotations

import argparse
from typing import Any

from wattledger.core.estimate.inputs import INPUTS
from wattledger.errors import ConfigError


def add_estimate_command(commands: Any) -> None:
    """`estimate`, to the parser of all commands."""
    estimate = commands.add_parser(
        "estimate",
        help="a footprint without a meter, and published ones computed again",
        description="From what is known of a run to its energy, CO2e and water, by the arithmetic "
        "of the books. With a case or a file, the figures below take the place of its own.",
    )
    estimate.add_argument("case", nargs="?", metavar="CASE|FILE.toml")
    estimate.add_argument("--list", action="store_true", help="every published case")
    for name, known in INPUTS.items():
        if known.option:
            estimate.add_argument(known.option, dest=name, metavar="N", help=known.meaning)
    estimate.add_argument("--zone", help="a country of the packaged table, such as DE")
    form = estimate.add_mutually_exclusive_group()
    form.add_argument("--json", dest="format", action="store_const", const="json")
    form.add_argument("--csv", dest="format", action="store_const", const="csv")
    estimate.set_defaults(run=_estimate, format="table")


def _estimate(options: argparse.Namespace) -> int:
    from wattledger.estimates import files, showing

    given = files.given_by(options)
    if options.list and (options.case or given):
        raise ConfigError([("--list", "stands alone; it shows every published case")])
    if options.list:
        rows = [row for name in files.names() for row in files.rows_of(files.load(name))]
        showing.print_rows(rows, options.format)
        return 0
    if not options.case and not given:
        raise ConfigError([("estimate", "of what? Name a case, a file or figures, or --list")])
    case = files.load(options.case, given) if options.case else files.own_case(given)
    rows = files.rows_of(case, given if options.case else None)
    if options.format != "table":
        showing.print_rows(rows, options.format)
    elif options.case:
        showing.print_case(case, rows)
    else:
        showing.print_own(case, rows)
    return 0
