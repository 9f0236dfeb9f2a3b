"""What the API answers about jobs: asked of the daemon, or worked out here over its ledger."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import quote

from wattledger import build
from wattledger.config import Config
from wattledger.errors import ConfigError, DaemonUnreachable, WattledgerError
from wattledger.ledger import LedgerReader, open_reader_offline
from wattledger.model import SiteFactors
from wattledger.model.jobs import MANAGERS
from wattledger.remote import Refused, Remote
from wattledger_exporters.http import jobs_api, waste_api
from wattledger_exporters.http.query import BadRequest
from wattledger_exporters.wording import escaped, unescaped

Answer = Mapping[str, Any]
T = TypeVar("T")

_FILTERS = tuple(name for name in jobs_api.PARAMETERS if name not in ("order", "cursor"))


def read_jobs(options: argparse.Namespace, config: Callable[[], Config], remote: Remote) -> Answer:
    """What `/api/v1/jobs` answers to these options; with `--all` all its pages as one.

    Raises:
        ConfigError: an option that cannot be.
        LedgerError: no daemon runs, and its ledger cannot be read either.
    """
    asked = _given(options, _FILTERS)
    if options.reverse:
        asked["order"] = "asc"
    if options.all:
        asked["limit"] = str(jobs_api.MAX_LIMIT)

    def from_ledger(reader: LedgerReader, _site: SiteFactors, asked: Mapping[str, str]) -> Answer:
        query = jobs_api.jobs_query(asked, time.time_ns(), None)
        rows = reader.jobs(jobs_api.with_one_more(query))
        return jobs_api.jobs(query, rows, simulated=build.scenario_told(config()))

    def pages(page: Callable[[Mapping[str, str]], Answer]) -> Answer:
        cursor = options.cursor
        runs: list[Any] = []
        while True:
            answer = page({**asked, "cursor": cursor} if cursor else asked)
            runs += answer["jobs"]
            cursor = answer["next_cursor"]
            if not (options.all and cursor):
                return {**answer, "jobs": runs}

    try:
        return pages(lambda query: _object(remote.request("/api/v1/jobs", query)))
    except DaemonUnreachable:
        return _offline(
            "jobs", config(), lambda reader, site: pages(lambda q: from_ledger(reader, site, q))
        )


def read_waste(options: argparse.Namespace, config: Callable[[], Config], remote: Remote) -> Answer:
    """What `/api/v1/waste` answers to these options.

    Raises:
        ConfigError: an option that cannot be.
        LedgerError: no daemon runs, and its ledger cannot be read either.
    """
    asked = _given(options, waste_api.PARAMETERS)

    def from_ledger(reader: LedgerReader, _site: SiteFactors) -> Answer:
        query = waste_api.waste_query(asked, time.time_ns())
        simulated = build.scenario_told(config())
        return waste_api.waste(query, reader.waste(*query), None, simulated)

    try:
        return _object(remote.request("/api/v1/waste", asked))
    except DaemonUnreachable:
        return _offline("waste", config(), from_ledger)


def read_job(
    options: argparse.Namespace, config: Callable[[], Config], remote: Remote
) -> tuple[Answer, list[str]]:
    """What `/api/v1/jobs/{manager}/{job_id}` answers, and other jobs that may be meant as well.

    Raises:
        ConfigError: no job can be called that.
        WattledgerError: there is no such job, or it is not the caller's to see.
    """
    meant = candidates(options.job_id, options.manager)

    def from_ledger(reader: LedgerReader, site: SiteFactors) -> list[Answer]:
        details = ((which, reader.job(*which)) for which in meant)
        simulated = build.scenario_told(config())
        return [
            jobs_api.job(*which, found, None, site, simulated=simulated)
            for which, found in details
            if found
        ]

    hint = ""
    found: list[Answer] = []
    try:
        for manager, job_id in meant:
            try:
                path = f"/api/v1/jobs/{manager}/{quote(job_id, safe='', errors='replace')}"
                found.append(_object(remote.request(path)))
            except Refused as error:
                if error.status != 404:
                    raise
                hint = error.hint
    except DaemonUnreachable:
        found = _offline("job", config(), from_ledger)
    if not found:
        how = "`wattledger jobs` lists them; another manager's is named as in pod/ID"
        raise WattledgerError(
            f"there is no job '{escaped(options.job_id)}' that you may see",
            f"{how}. {hint}" if hint else how,
        )
    return found[0], [f"{other['manager']}/{escaped(other['job_id'])}" for other in found[1:]]


def candidates(given: str, manager: str) -> list[tuple[str, str]]:
    """The jobs that may be meant: `4711`, `slurm/4711`, or with --manager.

    Raises:
        ConfigError: no job can be called that.
    """
    head, slash, rest = given.partition("/")
    if not manager and slash and head in MANAGERS:
        manager, given = head, rest
    names = dict.fromkeys((given, unescaped(given)))  # as it is, or as the lists show it
    managers = [manager] if manager else MANAGERS
    try:
        return [jobs_api.job_of_path(m, name) for name in names for m in managers]
    except BadRequest as error:
        raise ConfigError([("job", str(error))]) from error


def _given(options: argparse.Namespace, names: tuple[str, ...]) -> dict[str, str]:
    return {name: str(given) for name in names if (given := getattr(options, name, None))}


def _object(answer: Answer) -> Answer:
    return answer


def _offline(command: str, config: Config, question: Callable[[LedgerReader, SiteFactors], T]) -> T:
    """Ask the ledger of a daemon that is stopped, with the site's factors of the settings."""
    reader = open_reader_offline(build.ledger_path(config))
    try:
        return question(reader, build.site_factors(config))
    except BadRequest as error:
        raise ConfigError([(command, str(error))]) from error
    finally:
        reader.close()
