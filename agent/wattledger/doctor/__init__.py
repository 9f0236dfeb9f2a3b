"""`wattledger doctor`: what answers, what does not, and the exact command that mends it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from wattledger import build
from wattledger.config import Config
from wattledger.doctor import daemon, hardware, jobs, machine, site, web
from wattledger.doctor.finding import Finding
from wattledger.errors import DaemonUnreachable, WattledgerError
from wattledger.remote import Remote


def examine(config: Config, remote: Remote) -> Iterator[Finding]:
    """Look at everything once, one finding after the other.

    A running daemon is asked first: it has the rights and the settings that count. What it cannot
    tell, or all where none runs, is looked at from here.

    Raises:
        ScenarioError: a simulated scenario that cannot be played.
    """
    status: Mapping[str, Any] | None = None
    try:
        status = remote.request("/api/v1/status")
    except DaemonUnreachable as error:
        yield _no_daemon(config, error)
    except WattledgerError as error:
        yield Finding("daemon", "problem", error.message, error.hint)
    if status is not None:
        yield from daemon.of_process(status)
        yield from daemon.of_meters(status, Path(config.path.sysfs))
        yield from _persistence(config, status)
        yield from daemon.of_grid(status)
        yield from daemon.of_exporters(status)
        yield from web.of_status(status)
        yield from site.of_status(status)
        yield from hardware.of_status(status)
        yield from daemon.of_claims(status)
        yield from jobs.of_slurm(config)
        yield machine.of_clock()
        yield from daemon.of_ledger(status)
        return
    gpus, trouble = machine.survey_gpus(config)
    yield from trouble
    for gpu in gpus:
        yield from machine.of_gpu(gpu, config.meters.nvml.backend == "simulated")
    yield from machine.of_cpus(config, covered=any(gpu.module for gpu in gpus))
    yield from machine.of_grid(config)
    yield from site.of_config(config)
    yield from web.of_config(config)
    yield from hardware.of_config(config, gpus)
    yield from jobs.of_slurm(config)
    yield machine.of_clock()
    yield from machine.of_ledger(config)


def show(findings: Iterable[Finding]) -> bool:
    """For people, on standard output, each as it comes. Returns whether all is well."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    marks = {"ok": "[green]ok     [/]", "note": "[cyan]note   [/]", "problem": "[red]PROBLEM[/]"}
    problems = 0
    for finding in findings:
        console.print(marks[finding.level], f"{finding.area:<7}", end=" ")
        console.print(finding.message, markup=False)
        if finding.hint:
            console.print(f"                → {finding.hint}", markup=False, style="dim")
        problems += not finding.ok
    console.print(
        "all is well" if not problems else f"{problems} problem{'s' if problems > 1 else ''}",
        style="bold",
    )
    return not problems


def _no_daemon(config: Config, error: DaemonUnreachable) -> Finding:
    """Before the first start this is a fact; where there are books already, it is a fault."""
    try:
        known = build.ledger_path(config).exists()
    except OSError:
        known = True
    message = "no daemon is running" + (", though it has books here" if known else "")
    return Finding("daemon", "problem" if known else "note", message, error.hint)


def _persistence(config: Config, status: Mapping[str, Any]) -> Iterator[Finding]:
    """What the daemon does not tell of GPUs: persistence mode, and why one cannot be opened."""
    gpus = any(d["kind"] == "gpu" and d["present"] for d in status["devices"])
    if gpus and not status["simulated"] and not status["released_until"]:
        for gpu in machine.survey_gpus(config)[0]:
            yield from machine.of_gpu(gpu, False) if gpu.error else machine.of_persistence(gpu)
