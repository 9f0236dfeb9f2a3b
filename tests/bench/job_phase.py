"""The fourth phase: what the daemon costs where jobs run, and what its page says of them."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from bench import energy, scrapes
from bench.process import Process, ended, missed_ticks, start_daemon
from bench.table import Result
from bench.tenants import ENDED, LINGERING, RUNNING, TenantNode
from wattledger.model.jobs import SLURM

SETTLE_S = 4.0
SCRAPE_EVERY_S = 15.0
PAYEES = "wattledger_payee_energy_joules_total"


def run(directory: Path, result: Result, seconds: float, paced_s: float) -> None:
    """Add the phase's rows.

    Args:
        directory: of the benchmark.
        result: takes the rows.
        seconds: how long the cost is taken.
        paced_s: how long it is scraped ten times a second.
    """
    node = TenantNode(directory / "jobs")
    with node.working():
        daemon, ready_s = start_daemon(
            node.directory,
            node.stub.env(),
            node.sysfs,
            procfs=node.procfs,
            settings=node.settings,
        )
        with ended(daemon):
            result.add("jobs: exec to READY=1", ready_s, "s", 1)
            _cost(result, node, daemon, seconds)
            _scrapes(result, daemon, paced_s)
            result.add("jobs: end by SIGTERM", daemon.stop(), "s", 2)


def _cost(result: Result, node: TenantNode, daemon: Process, seconds: float) -> None:
    print(
        f"… {RUNNING} jobs run, {LINGERING} linger, {ENDED} ended, {seconds:.0f} s",
        file=sys.stderr,
        flush=True,
    )
    time.sleep(SETTLE_S)
    first = energy.fresh_page(daemon)
    begin_s, cpu_s, stats = time.monotonic(), daemon.cpu_s(), node.stub.stats()
    while (left_s := begin_s + seconds - time.monotonic()) > 0:
        time.sleep(min(left_s, SCRAPE_EVERY_S))
        text = daemon.text()
    ran_s, now = time.monotonic() - begin_s, node.stub.stats()
    percent = 100 / ran_s
    all_percent = percent * (daemon.cpu_s() - cpu_s)
    inside_percent = percent * (now.cpu_ns - stats.cpu_ns) / 1e9
    note = f"{all_percent:.3f} % in all, {inside_percent:.3f} % inside the driver"
    result.add(
        "jobs: CPU beyond the driver, of one core", all_percent - inside_percent, "%", 1, note
    )
    calls = (now.calls - stats.calls) / len(node.cases) / ran_s
    result.add("jobs: driver calls per GPU and second", calls, "", 1.5)
    memory = daemon.memory_mib()
    note = f"Pss {memory['Pss']:.1f}, most ever {memory['Peak']:.1f} MiB"
    result.add("jobs: resident memory", memory["Rss"], "MiB", 55, note)
    note = f"{text.count(chr(10))} lines"
    result.add("jobs: the page", len(text.encode()) / 1000, "KB", 250, note)
    _shown(result, node, energy.span(first, energy.fresh_page(daemon)))
    result.add("jobs: missed ticks", missed_ticks(daemon), "", 0)


def _shown(result: Result, node: TenantNode, span: energy.Span) -> None:
    """Every job has its series, and somebody pays for every joule of the GPUs: all are held."""
    info, power = _slurm_ids(span, "job_info"), _slurm_ids(span, "job_power_watts")
    result.add("jobs: not shown", abs(RUNNING + LINGERING - len(info)), "", 0)
    running = {tenant.job_id for tenant in node.tenants}
    result.add("jobs: run and have no power", len(running - power), "", 0)
    unpaid_j = all_j = 0.0
    for (name, labels), joules in span.last.items():
        named = dict(labels)
        if name == PAYEES and named["kind"] == "gpu":
            grown_j = joules - span.first[name, labels]
            all_j += grown_j
            unpaid_j += grown_j if named["payee"] != "jobs" else 0
    note = f"of {all_j:.0f} J in {span.seconds:.1f} s"
    result.add("jobs: energy of GPUs that nobody pays", unpaid_j, "J", 0, note)


def _slurm_ids(span: energy.Span, metric: str) -> set[str]:
    found = (dict(labels) for name, labels in span.last if name == f"wattledger_{metric}")
    return {labels["job_id"] for labels in found if labels["manager"] == SLURM}


def _scrapes(result: Result, daemon: Process, paced_s: float) -> None:
    print(f"… 10 scrapes a second, {paced_s:.0f} s", file=sys.stderr, flush=True)
    job = scrapes.Job(daemon.port, daemon.pid, 10, keep=True, begin=0.0)
    (found,) = scrapes.together([job], paced_s)
    note = f"{len(found.latencies_ms)} scrapes, median {found.quantile_ms(0.5):.2f} ms, "
    note += f"p99 {found.undisturbed_ms(0.99):.2f} ms without waiting for a CPU"
    result.add("jobs: scrape p99, kept connection", found.quantile_ms(0.99), "ms", 5, note)
