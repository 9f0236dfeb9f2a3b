"""From the options of a command to its answer over all nodes."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from contextlib import closing
from typing import Any

from wattledger.errors import ConfigError
from wattledger.fleet.arguments import DEFAULT_SINCE, door_of, matchers_of
from wattledger.fleet.books import Fleet, Span
from wattledger.fleet.door import Door
from wattledger.fleet.job import find, job
from wattledger.fleet.jobs import jobs, span_of
from wattledger.fleet.reply import LATEST_S, BadReply, scalar
from wattledger.fleet.waste import waste
from wattledger.units import NS_PER_S
from wattledger_exporters.http import jobs_api, waste_api
from wattledger_exporters.http.query import BadRequest, instant_ns

Answer = Mapping[str, Any]


def server_now_s(door: Door) -> int:
    """The API's own time, rounded up: what was scraped this second is before it.

    Raises:
        WattledgerError: it does not answer as such an API does.
    """
    now = scalar(door.query("time()"))
    if not 0 < now < LATEST_S:
        raise BadReply("its time is none")
    return math.ceil(now)


def read_jobs(options: argparse.Namespace) -> Answer:
    """The jobs of all nodes; see `fleet.jobs.jobs`.

    Raises:
        ConfigError: an option that cannot be.
        WattledgerError: there is no whole answer, or a filter cannot be answered.
    """
    match = matchers_of(options)
    names = [name for name in jobs_api.PARAMETERS if name not in ("order", "cursor")]
    asked = {name: str(given) for name in names if (given := getattr(options, name, None))}
    asked.setdefault("since", DEFAULT_SINCE)
    if options.reverse:
        asked["order"] = "asc"
    with closing(door_of(options)) as door:
        now_s = server_now_s(door)
        try:
            query = jobs_api.jobs_query(asked, now_s * NS_PER_S, None)
        except BadRequest as error:
            raise ConfigError([("jobs", str(error))]) from error
        cursor = {"cursor": options.cursor} if options.cursor else {}
        span, query = span_of(query, now_s, cursor)
        return jobs(Fleet(door, span, match), query, every=options.all)


def read_job(
    options: argparse.Namespace, candidates: list[tuple[str, str]]
) -> tuple[Answer | None, list[tuple[str, str]]]:
    """One job over all nodes, and other jobs that may be meant as well; see `fleet.job.job`.

    Args:
        options: of the command.
        candidates: (manager, job id), the likeliest first.

    Returns:
        None where there is no such job in the span.

    Raises:
        ConfigError: an option that cannot be.
        WattledgerError: there is no whole answer.
    """
    match = matchers_of(options)
    expected = [name.strip() for name in options.nodes.split(",") if name.strip()]
    with closing(door_of(options)) as door:
        now_s = server_now_s(door)
        try:
            since_ns = instant_ns("since", options.since or DEFAULT_SINCE, now_s * NS_PER_S)
        except BadRequest as error:
            raise ConfigError([("--since", str(error))]) from error
        if since_ns // NS_PER_S >= now_s:
            raise ConfigError([("--since", "lies in the future")])
        fleet = Fleet(door, Span(since_ns // NS_PER_S, now_s), match)
        found = find(fleet, candidates)
        if not found:
            return None, []
        return job(fleet, *found[0], expected), found[1:]


def read_waste(options: argparse.Namespace) -> Answer:
    """Who held GPUs without use, over all nodes; see `fleet.waste.waste`.

    Raises:
        ConfigError: an option that cannot be.
        WattledgerError: there is no whole answer.
    """
    match = matchers_of(options)
    names = waste_api.PARAMETERS
    asked = {name: str(given) for name in names if (given := getattr(options, name, None))}
    with closing(door_of(options)) as door:
        now_s = server_now_s(door)
        try:
            query = waste_api.waste_query(asked, now_s * NS_PER_S)
        except BadRequest as error:
            raise ConfigError([("waste", str(error))]) from error
        span = Span(query.since_ns // NS_PER_S, min(now_s, query.until_ns // NS_PER_S))
        if span.since_s >= span.until_s:
            raise ConfigError([("--since", "lies after --until or in the future")])
        return waste(door, span, match, query.by)
