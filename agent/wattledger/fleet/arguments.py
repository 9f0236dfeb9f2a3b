"""The options of commands that can ask a fleet. Imports little, for a quick start."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from wattledger.errors import ConfigError
from wattledger.units import parse_duration_ns, seconds

if TYPE_CHECKING:
    from wattledger.fleet.door import Door

DEFAULT_SINCE = "30d"
_BESIDE = ("tenant", "token_file", "basic_auth_file", "ca_file", "match", "deadline")


def add_from_options(parser: argparse.ArgumentParser, *, nodes: bool = False) -> None:
    """Add `--from` and what goes with it.

    Args:
        parser: of the command.
        nodes: the command is about one job, whose nodes may be named.
    """
    group = parser.add_argument_group("over all nodes, from what Prometheus scraped")
    group.add_argument(
        "--from",
        dest="source",
        metavar="URL",
        default="",
        help="the address of a Prometheus-compatible API (Prometheus, VictoriaMetrics, Thanos, "
        "Mimir), such as http://prometheus:9090 or https://host/prometheus",
    )
    group.add_argument("--tenant", metavar="ID", default="", help="sent as X-Scope-OrgID")
    group.add_argument("--token-file", type=Path, metavar="FILE", help="holds a bearer token")
    group.add_argument(
        "--basic-auth-file", type=Path, metavar="FILE", help="holds user:password on one line"
    )
    group.add_argument("--ca-file", type=Path, metavar="FILE", help="certificates to trust (PEM)")
    group.add_argument(
        "--match",
        action="append",
        metavar="LABEL=VALUE",
        help="only series with this label, such as cluster=a; several: all of them",
    )
    group.add_argument(
        "--deadline", metavar="DURATION", default="", help="for all questions together (2m)"
    )
    if nodes:
        group.add_argument(
            "--since", metavar="TIME", default="", help=f"look back so far ({DEFAULT_SINCE})"
        )
        group.add_argument(
            "--nodes",
            metavar="A,B",
            default="",
            help="where the job ran, for nodes without any figures to be named",
        )


def check_from(options: argparse.Namespace) -> bool:
    """Whether the fleet is meant.

    Raises:
        ConfigError: options of it without `--from`.
    """
    if options.source:
        return True
    beside = (*_BESIDE, "since") if hasattr(options, "nodes") else _BESIDE
    given = [name for name in beside if getattr(options, name, None)]
    if getattr(options, "format", "") == "line" and "nodes" in given:
        given.remove("nodes")  # one node's line names the others, too
    if given:
        flag = f"--{given[0].replace('_', '-')}"
        raise ConfigError([(flag, "goes with --from URL")])
    return False


def door_of(options: argparse.Namespace) -> Door:
    """The way to the API that the options mean.

    Raises:
        ConfigError: it cannot be asked so.
    """
    from wattledger.fleet.door import DEADLINE_S, Door, endpoint

    deadline_s = DEADLINE_S
    if options.deadline:
        try:
            deadline_s = seconds(parse_duration_ns(options.deadline))
        except ValueError as error:
            raise ConfigError([("--deadline", str(error))]) from error
        if not deadline_s:
            raise ConfigError([("--deadline", "is 0")])
    where = endpoint(
        options.source,
        tenant=options.tenant,
        token_file=options.token_file,
        basic_auth_file=options.basic_auth_file,
        ca_file=options.ca_file,
    )
    return Door(where, deadline_s=deadline_s)


def matchers_of(options: argparse.Namespace) -> list[str]:
    """The matchers of `--match`.

    Raises:
        ConfigError: one is none.
    """
    from wattledger.fleet import promql

    found = []
    for text in options.match or ():
        label, equals, value = text.partition("=")
        if not equals or not promql.is_label(label) or label.startswith("__"):
            raise ConfigError([("--match", f"{text[:64]!r} is not LABEL=VALUE")])
        found.append(promql.equal(label, value))
    return found
