"""The commands about jobs: their options, and what runs them. Imports little, for a quick start."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from wattledger.config import Config
from wattledger.fleet.arguments import add_from_options, check_from
from wattledger.model.jobbooks import JOB_SORTS
from wattledger.model.jobs import MANAGERS

if TYPE_CHECKING:
    from wattledger.remote import Remote

Settings = Callable[[argparse.Namespace], Config]
Daemon = Callable[[argparse.Namespace], "Remote"]


def add_job_commands(
    commands: Any, parents: list[argparse.ArgumentParser], settings: Settings, daemon: Daemon
) -> None:
    """Add them to the command line.

    Args:
        commands: where to add them.
        parents: the options that all of them share.
        settings: makes the settings of the options.
        daemon: finds the daemon that the options mean.
    """
    _add_jobs(commands, parents, settings, daemon)
    _add_job(commands, parents, settings, daemon)
    _add_waste(commands, parents, settings, daemon)


def _add_jobs(
    commands: Any, parents: list[argparse.ArgumentParser], settings: Settings, daemon: Daemon
) -> None:
    jobs = commands.add_parser(
        "jobs", parents=parents, help="jobs that run or ran, with what they cost"
    )
    jobs.add_argument("--manager", choices=MANAGERS)
    jobs.add_argument("--user", metavar="NAME", help="a name or a uid")
    jobs.add_argument("--account", metavar="NAME")
    jobs.add_argument("--name", metavar="PATTERN", help="the job's name; *, ? and [...] as in sh")
    jobs.add_argument("--state", choices=("all", "running", "ended"))
    jobs.add_argument("--since", metavar="TIME", help='ran since: "24h" ago, or an instant')
    jobs.add_argument("--until", metavar="TIME", help="began before")
    jobs.add_argument("--sort", choices=JOB_SORTS, help="latest or most first")
    jobs.add_argument("--reverse", action="store_true", help="earliest or least first")
    jobs.add_argument("--limit", metavar="N", help="at most so many (100)")
    jobs.add_argument("--all", action="store_true", help="all of them, page after page")
    jobs.add_argument("--cursor", help=argparse.SUPPRESS)
    _add_forms(jobs, csv=True)
    add_from_options(jobs)

    def run(options: argparse.Namespace) -> int:
        from wattledger.job_reports import asking, tables

        if check_from(options):
            from wattledger.fleet.asking import read_jobs

            tables.print_jobs(read_jobs(options), options.format)
            return 0
        answer = asking.read_jobs(options, lambda: settings(options), daemon(options))
        tables.print_jobs(answer, options.format)
        return 0

    jobs.set_defaults(run=run, format="table")


def _add_job(
    commands: Any, parents: list[argparse.ArgumentParser], settings: Settings, daemon: Daemon
) -> None:
    job = commands.add_parser(
        "job", parents=parents, help="what one job cost, and how well it used its GPUs"
    )
    job.add_argument("job_id", metavar="ID", help="4711, or with its manager: slurm/4711")
    job.add_argument("--manager", choices=MANAGERS, default="")
    _add_forms(job, csv=False, line=True)
    add_from_options(job, nodes=True)

    def run(options: argparse.Namespace) -> int:
        if check_from(options):
            from wattledger.job_reports import fleet

            fleet.print_job(options)
            return 0
        from wattledger.job_reports import asking, line, receipt

        found = asking.read_job(options, lambda: settings(options), daemon(options))
        if options.format == "line":
            line.print_line(found[0], options.nodes)
            return 0
        receipt.print_job(found, options.format)
        return 0

    job.set_defaults(run=run, format="table")


def _add_waste(
    commands: Any, parents: list[argparse.ArgumentParser], settings: Settings, daemon: Daemon
) -> None:
    waste = commands.add_parser(
        "waste",
        parents=parents,
        help="GPU time, energy and money that was held without use, the worst first",
    )
    waste.add_argument(
        "--since", metavar="TIME", default="7d", help='"7d" ago (default), or an instant'
    )
    waste.add_argument("--until", metavar="TIME")
    waste.add_argument("--by", choices=("user", "account"), default="user")
    _add_forms(waste, csv=True)
    add_from_options(waste)

    def run(options: argparse.Namespace) -> int:
        from wattledger.job_reports import asking, tables

        if check_from(options):
            from wattledger.fleet.asking import read_waste

            tables.print_waste(read_waste(options), options.format)
            return 0
        answer = asking.read_waste(options, lambda: settings(options), daemon(options))
        tables.print_waste(answer, options.format)
        return 0

    waste.set_defaults(run=run, format="table")


def _add_forms(parser: argparse.ArgumentParser, *, csv: bool, line: bool = False) -> None:
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", dest="format", action="store_const", const="json")
    if csv:
        form.add_argument("--csv", dest="format", action="store_const", const="csv")
    if line:
        form.add_argument(
            "--line", dest="format", action="store_const", const="line", help="one line of text"
        )
