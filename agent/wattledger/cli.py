"""The commands."""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from wattledger import __version__
from wattledger.alternatives.arguments import WHAT_IF, WHAT_IF_HELP, add_when_command
from wattledger.audit.arguments import (
    EXPORT,
    add_audit_commands,
    add_export_options,
    run_export,
)
from wattledger.config import Config, load_config
from wattledger.config.check import check_tokens
from wattledger.errors import ConfigError, WattledgerError
from wattledger.estimates.arguments import add_estimate_command
from wattledger.job_reports.arguments import add_job_commands
from wattledger.relay.arguments import add_grid_command
from wattledger.setting import FilePath, Listen
from wattledger.top import add_top_command
from wattledger.units import NS_PER_S, parse_duration_ns
from wattledger_exporters.report import GROUPINGS

USAGE_EXIT = 2  # bad arguments or a bad configuration
FAILURE_EXIT = 1

log = logging.getLogger("wattledger")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the `wattledger` command; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except ConfigError as error:
        for path, text in error.faults:
            print(f"{path}: {text}", file=sys.stderr)
        return USAGE_EXIT
    except WattledgerError as error:
        print(f"wattledger: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"  {error.hint}", file=sys.stderr)
        return FAILURE_EXIT
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130


# ── commands ────────────────────────────────────────────────────────────────────────────────────


def _serve(options: argparse.Namespace) -> int:
    config = _config_of_daemon(options)
    _configure_logging(config.log.level)
    from wattledger.app import App
    from wattledger.systemd import Signals

    reload = None
    if options.config is not None:
        reload = lambda: _config_of_daemon(options)  # noqa: E731
    apps: list[App] = []
    stop, again = (lambda: apps[0].request_stop()), (lambda: apps[0].request_reload())
    signals = Signals({signal.SIGTERM: stop, signal.SIGINT: stop, signal.SIGHUP: again})
    app = App(config, reload, announce=lambda text: print(text, flush=True))
    apps.append(app)
    signals.start()
    # The start leaves a hundred thousand objects that live as long as the process; taken out of
    # the collector's sight, its later rounds cost next to nothing.
    gc.collect()
    gc.freeze()
    # A turn with many jobs makes thousands of tuples that live until the commit, and no cycles:
    # the default of 700 would look for some ten times in each.
    gc.set_threshold(20_000)
    code = 0
    try:
        code = app.run()
    except Exception:
        log.exception("the sampling loop failed; what was committed is safe")
        code = FAILURE_EXIT
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    # A thread in a hung driver call can be neither joined nor cancelled: leave without it.
    os._exit(code)


def _release(options: argparse.Namespace) -> int:
    try:
        duration_ns = 0 if options.end else parse_duration_ns(options.duration)
    except ValueError as error:
        raise ConfigError([("--for", str(error))]) from error
    if not options.end and duration_ns < NS_PER_S:
        raise ConfigError([("--for", 'is shorter than "1s"; --end takes NVML up again')])
    seconds = str(-(-duration_ns // NS_PER_S))
    answer = _remote(options).request("/api/v1/release", {"seconds": seconds}, method="POST")
    print(answer["message"])
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from wattledger.doctor import examine, show

    findings = examine(_config(options), _remote(options))
    if not options.json:
        return 0 if show(findings) else FAILURE_EXIT
    found = list(findings)
    print(json.dumps([finding._asdict() for finding in found], indent=2))
    return 0 if all(finding.ok for finding in found) else FAILURE_EXIT


def _config_check(options: argparse.Namespace) -> int:
    config = load_config(options.file)
    check_tokens(config)
    if config.http.web_config:  # with faults in it no daemon starts either
        from wattledger_exporters.web_config import load_web_config

        load_web_config(Path(config.http.web_config))
    print(f"{options.file}: ok")
    return 0


def _config_show(options: argparse.Namespace) -> int:
    from wattledger.config.document import effective_toml

    print(effective_toml(_config(options)), end="")
    return 0


def _config_default(_options: argparse.Namespace) -> int:
    from wattledger.config.document import default_toml

    print(default_toml(), end="")
    return 0


def _report(options: argparse.Namespace) -> int:
    from wattledger.report import asked_of, print_report, read_totals

    remote = _remote(options)
    if options.export is not None and options.what_if is not None:
        text = "writes what the books hold, which --what-if does not change: leave one out"
        raise ConfigError([(EXPORT, text)])
    if (code := run_export(options, lambda: _config(options), remote)) is not None:
        return code

    def ask(asked: Mapping[str, str]) -> Mapping[str, Any]:
        return read_totals(asked, lambda: _config(options), remote)

    if options.what_if is not None:
        from wattledger.alternatives.what_if_command import what_if_command

        return what_if_command(options, lambda: _config(options), ask)
    print_report(ask(asked_of(options)), options.format, options.limit)
    return 0


def _run(options: argparse.Namespace) -> int:
    from wattledger.run_command import run

    # The command's standard error is no place for a log; what matters is in the receipt.
    _configure_logging("critical")
    code = run(options, lambda: _config(options), lambda: _remote(options))
    logging.shutdown()
    # A thread in a hung driver call can be neither joined nor cancelled: leave without it.
    os._exit(code)


# ── shared by the commands ──────────────────────────────────────────────────────────────────────


def _config_of_daemon(options: argparse.Namespace) -> Config:
    """Its settings, and with them what it alone must be able to read."""
    config = _config(options)
    check_tokens(config)
    return config


def _config(options: argparse.Namespace) -> Config:
    return _overlay(load_config(options.config), options)


def _overlay(config: Config, options: argparse.Namespace) -> Config:
    """The settings with the command line's flags over them."""
    if getattr(options, "listen", None):
        from wattledger.config.load import parse_listen

        try:
            listen = Listen(parse_listen(options.listen))
        except ValueError as error:
            raise ConfigError([("--listen", str(error))]) from error
        config = replace(config, http=replace(config.http, listen=listen))
    if getattr(options, "ledger", None):
        config = replace(config, ledger=replace(config.ledger, path=FilePath(options.ledger)))
    if getattr(options, "simulate", None):
        nvml = replace(config.meters.nvml, backend="simulated", scenario=FilePath(options.simulate))
        config = replace(config, meters=replace(config.meters, nvml=nvml))
    for name in ("sysfs", "procfs"):
        if given := getattr(options, name, None):
            config = replace(config, path=replace(config.path, **{name: FilePath(given)}))
    return config


def _remote(options: argparse.Namespace) -> Any:
    """The running daemon: the socket given, else those where one may listen."""
    from wattledger.remote import remote_of

    # Whoever names a ledger or a scenario means that one, not the books of the system's daemon.
    named = bool(options.ledger or options.simulate)
    return remote_of(_config(options), options.socket, named=named)


class _Formatter(logging.Formatter):
    """Plain lines; under systemd with the journal's priorities and without a time of our own."""

    PRIORITIES = {"DEBUG": 7, "INFO": 6, "WARNING": 4, "ERROR": 3, "CRITICAL": 2}  # noqa: RUF012

    def __init__(self) -> None:
        journal = "JOURNAL_STREAM" in os.environ
        super().__init__(
            "%(message)s" if journal else "%(asctime)s %(levelname)s %(name)s: %(message)s",
            datefmt="%Y-%m-%dT%H:%M:%SZ",
        )
        self._journal = journal

    converter = staticmethod(time.gmtime)

    def format(self, record: logging.LogRecord) -> str:
        """One record; no line of it can be mistaken for another record."""
        text = super().format(record)
        if self._journal:
            priority = self.PRIORITIES.get(record.levelname, 6)
            return "\n".join(f"<{priority}>{line}" for line in text.splitlines())
        return text


def _configure_logging(level: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


# ── arguments ───────────────────────────────────────────────────────────────────────────────────


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="wattledger",
        description="Energy, carbon and water books of a GPU node.",
        epilog="Settings and metrics are documented in configs/README.md and "
        "exporters/METRICS.md of the project.",
    )
    parser.add_argument("--version", action="version", version=f"wattledger {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    settings = argparse.ArgumentParser(add_help=False)
    settings.add_argument("--config", type=Path, metavar="FILE", help="settings (TOML)")
    settings.add_argument("--ledger", metavar="FILE", help="the SQLite file of the books")
    settings.add_argument(
        "--simulate", metavar="SCENARIO", help="meter the simulated GPUs of a scenario file"
    )
    settings.add_argument("--path.sysfs", dest="sysfs", metavar="DIR", help="another /sys")
    settings.add_argument("--path.procfs", dest="procfs", metavar="DIR", help="another /proc")
    socket = argparse.ArgumentParser(add_help=False)
    socket.add_argument("--socket", type=Path, metavar="FILE", help="the daemon's Unix socket")

    serve = commands.add_parser("serve", parents=[settings], help="run the daemon")
    serve.add_argument("--listen", metavar="ADDR:PORT", help="where to serve HTTP")
    serve.set_defaults(run=_serve)

    release = commands.add_parser(
        "release",
        parents=[settings, socket],
        help="close NVML for a while, for a GPU reset, a MIG change or a driver upgrade",
    )
    group = release.add_mutually_exclusive_group()
    group.add_argument("--for", dest="duration", default="15m", metavar="DURATION")
    group.add_argument("--end", action="store_true", help="take it up again now")
    release.set_defaults(run=_release)

    doctor = commands.add_parser(
        "doctor", parents=[settings, socket], help="what answers, what does not, what to do"
    )
    doctor.add_argument("--json", action="store_true")
    doctor.set_defaults(run=_doctor)

    config = commands.add_parser("config", help="check, show or print settings")
    actions = config.add_subparsers(required=True, metavar="ACTION")
    check = actions.add_parser("check", help="name every mistake in a file")
    check.add_argument("file", type=Path)
    check.set_defaults(run=_config_check)
    show = actions.add_parser("show", parents=[settings], help="what is in force")
    show.set_defaults(run=_config_show)
    default = actions.add_parser("default", help="the annotated default file")
    default.set_defaults(run=_config_default)

    report = commands.add_parser(
        "report",
        parents=[settings, socket],
        help="totals by device, kind, payee, job, user, hour or day",
    )
    report.add_argument("--by", choices=GROUPINGS, default="", help="kind, unless told otherwise")
    report.add_argument(
        "--since", default="", metavar="TIME", help='"24h" ago, or an instant such as 2026-11-01'
    )
    report.add_argument("--until", default="", metavar="TIME")
    add_export_options(report)
    report.add_argument(WHAT_IF, metavar="ANOTHER", help=WHAT_IF_HELP)
    report.add_argument(
        "--limit",
        type=_row_count,
        metavar="N",
        help="the first N rows only; of jobs and users those that used most come first, and a "
        "table shows 50",
    )
    form = report.add_mutually_exclusive_group()
    form.add_argument("--json", dest="format", action="store_const", const="json")
    form.add_argument("--csv", dest="format", action="store_const", const="csv")
    form.add_argument(
        "--format", choices=("table", "json", "csv", "parquet"), help="parquet: with --export"
    )
    report.set_defaults(run=_report, format="table")
    add_job_commands(commands, [settings, socket], _config, _remote)
    add_top_command(commands, [settings, socket], _remote)
    _add_run_command(commands, settings, socket)
    add_audit_commands(commands, [settings, socket], _config, _remote)
    add_grid_command(commands, _configure_logging)
    add_estimate_command(commands)
    add_when_command(commands, _config)
    return parser


def _row_count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < len(text) < 10 and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of rows")
    return int(text)


def _add_run_command(
    commands: Any, settings: argparse.ArgumentParser, socket: argparse.ArgumentParser
) -> None:
    run = commands.add_parser(
        "run",
        parents=[settings, socket],
        usage="%(prog)s [OPTIONS] -- COMMAND …",
        help="run a command and print what it cost, whether or not a daemon runs",
        description="Run a command and print on standard error what it cost: energy, CO2e, water. "
        "The exit code is the command's; 2: an option cannot be, 125: it was not started for "
        "another reason, 126: it cannot be executed, 127: it was not found, 128 + N: signal N "
        "killed it.",
    )
    run.add_argument("--name", help="what to call it")
    run.add_argument(
        "--gpus", metavar="0,1", help="claim these GPUs (numbers or UUIDs), which nobody holds"
    )
    run.add_argument("--json", metavar="FILE", help="write the receipt to a file as well")
    run.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND", help="the command")
    run.set_defaults(run=_run)


if __name__ == "__main__":
    sys.exit(main())
