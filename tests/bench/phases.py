"""The phases of the benchmark, each of which adds its rows to the result.

1. counters: starts; then the daemon beside the floor, eight GPUs with counters and RAPL, each
   scraped every 15 s as Prometheus does. Energy, CPU, driver calls, memory.
2. scrapes: 10 a second, then 1,000 a second, of the same daemon.
3. mixed: energy again, most GPUs without a counter.
4. jobs: the first two again with jobs on the node.
5. ledger: questions to a ledger of a million runs.
6. fleet: 2,000 nodes in a VictoriaMetrics; only where it is asked for.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from bench import energy, fleet_phase, job_phase, ledger_phase, scrapes
from bench.node import RAPL_DEVICES, WRAP_S, WRAPPING, Node, all_counters, mixed
from bench.process import Process, ended, missed_ticks, series, start_daemon, start_floor
from bench.table import Result
from nvml_stub import Stub, StubConfig

STARTS = 5
SETTLE_S = 4.0  # imports and first turns are over
SCRAPE_EVERY_S = 15.0
METER_PERCENT = 0.1
SAMPLES_PERCENT = 2.0


class Phases:
    """One run of the benchmark in a directory of its own."""

    def __init__(self, directory: Path, result: Result, seconds: float, *, quick: bool) -> None:
        self._directory = directory
        self._result = result
        self._seconds = seconds
        self._paced_s = 10.0 if quick else 60.0
        self._flood_s = 10.0

    def run(self, only: str | None) -> None:
        if only in (None, "counters", "scrapes"):
            node = Node(self._directory / "counters", all_counters())
            with node.moving():
                self._starts(node)
                daemon, _ = start_daemon(node.directory, node.stub.env(), node.sysfs)
                with ended(daemon):
                    if only != "scrapes":
                        self._side_by_side(node, daemon)
                    if only != "counters":
                        self._scrapes(daemon)
                        self._flood(daemon)
                    self._result.add("end by SIGTERM", daemon.stop(), "s", 2)
        if only in (None, "mixed"):
            node = Node(self._directory / "mixed", mixed())
            with node.moving():
                daemon, _ = start_daemon(node.directory, node.stub.env(), node.sysfs)
                with ended(daemon):
                    self._energy_without_counters(node, daemon)
        if only in (None, "jobs"):
            job_phase.run(self._directory, self._result, self._seconds, self._paced_s)
        if only in (None, "ledger"):
            ledger_phase.measure(self._directory / "ledger", self._result)
        if only == "fleet":
            fleet_phase.measure(self._directory / "fleet", self._result)

    def _starts(self, node: Node) -> None:
        """The first start makes the ledger, the others find it."""
        times_s = []
        for _ in range(STARTS):
            daemon, ready_s = start_daemon(node.directory, node.stub.env(), node.sysfs)
            daemon.stop()
            times_s.append(ready_s)
        note = f"worst of {STARTS}; first {times_s[0]:.2f} s"
        self._result.add("exec to READY=1", max(times_s), "s", 1, note)

    # ── counters ────────────────────────────────────────────────────────────────────────────────

    def _side_by_side(self, node: Node, daemon: Process) -> None:
        _say(f"daemon and floor side by side, {self._seconds:.0f} s")
        directory = self._directory / "floor"
        stub = Stub(directory, StubConfig(gpus=[case.gpu for case in node.cases]))
        with ended(start_floor(directory, stub.env())) as floor:
            time.sleep(SETTLE_S)
            first = energy.fresh_page(daemon)
            before = [(p, s, p.cpu_s(), s.stats()) for p, s in ((daemon, node.stub), (floor, stub))]
            begin_s = time.monotonic()
            while (left_s := begin_s + self._seconds - time.monotonic()) > 0:
                time.sleep(min(left_s, SCRAPE_EVERY_S))
                daemon.page()
                floor.page()
            used = []
            for process, its_stub, cpu_s, stats in before:
                now = its_stub.stats()
                spent_s = process.cpu_s() - cpu_s
                inside_s = (now.cpu_ns - stats.cpu_ns) / 1e9
                used.append((spent_s, inside_s, now.calls - stats.calls))
            ran_s = time.monotonic() - begin_s
            memory, floor_memory = daemon.memory_mib(), floor.memory_mib()
            span = energy.span(first, energy.fresh_page(daemon))

        self._counter_rows(node, span)
        self._rapl_rows(node, span)
        (cpu_s, inside_s, calls), (floor_cpu_s, floor_inside_s, floor_calls) = used
        gpus, add = len(node.cases), self._result.add
        percent = 100 / ran_s
        note = f"{percent * cpu_s:.3f} % in all, {percent * inside_s:.3f} % inside the driver"
        add("CPU beyond the driver, of one core", percent * (cpu_s - inside_s), "%", 0.5, note)
        own_s = floor_cpu_s - floor_inside_s
        add("  the floor's", percent * own_s, "%", note=f"{percent * floor_cpu_s:.3f} % in all")
        add("driver calls per GPU and second", calls / gpus / ran_s, "", 1.5)
        add("  the floor's", floor_calls / gpus / ran_s, "")
        note = f"Pss {memory['Pss']:.1f}, most ever {memory['Peak']:.1f} MiB"
        add("resident memory", memory["Rss"], "MiB", 45, note)
        note = f"Pss {floor_memory['Pss']:.1f}, most ever {floor_memory['Peak']:.1f} MiB"
        add("  the floor's", floor_memory["Rss"], "MiB", note=note)
        add("missed ticks", missed_ticks(daemon), "", 0)

    def _counter_rows(self, node: Node, span: energy.Span) -> None:
        """The worst GPU of each waveform; allowed is 0.1 % plus a counter tick of peak power."""
        found = energy.errors(node, span)
        worst: dict[str, tuple[energy.Error, float]] = {}
        for case in node.cases:
            if case.by != "counter":
                continue
            error = found[case.gpu.uuid]
            tick_joules = case.gpu.peak_uw * case.gpu.tick_ns / 1e15
            allowed = METER_PERCENT / 100 * error.true_joules + tick_joules
            so_far = worst.get(case.load)
            if so_far is None or abs(error.joules) / allowed > abs(so_far[0].joules) / so_far[1]:
                worst[case.load] = (error, allowed)
        for load, (error, allowed) in worst.items():
            note = f"{error.percent:+.3f} % of {error.true_joules:.0f} J in {span.seconds:.1f} s"
            self._result.add(f"counter, {load}", error.joules, "J", allowed, note)

    def _rapl_rows(self, node: Node, span: energy.Span) -> None:
        found = energy.errors(node, span)
        for zone, device in RAPL_DEVICES.items():
            error = found[device]
            note = f"{error.joules:+.1f} of {error.true_joules:.0f} J"
            if zone == WRAPPING:
                note += f", {span.seconds / WRAP_S:.0f} wraps"
            self._result.add(f"RAPL {device}", error.percent, "%", METER_PERCENT, note)

    # ── scrapes ─────────────────────────────────────────────────────────────────────────────────

    def _scrapes(self, daemon: Process) -> None:
        """The daemon by kept and by new connections, and the floor for comparison, in turn."""
        add = self._result.add
        _say(f"10 scrapes a second, {self._paced_s:.0f} s")
        stub = Stub(self._directory / "floor", StubConfig(gpus=[c.gpu for c in all_counters()]))
        with ended(start_floor(self._directory / "floor", stub.env())) as floor:
            time.sleep(SETTLE_S)
            stolen = _stolen_s()
            jobs = [
                scrapes.Job(daemon.port, daemon.pid, 5, keep=True, begin=0.0),
                scrapes.Job(daemon.port, daemon.pid, 5, keep=False, begin=0.5),
                scrapes.Job(floor.port, floor.pid, 5, keep=False, begin=0.25),
            ]
            kept, fresh, of_floor = scrapes.together(jobs, self._paced_s)
            stolen = _stolen_s() - stolen
        for name, found, target in (
            ("scrape, kept connection", kept, 3),
            ("scrape, new connections", fresh, 3),
            ("  the floor's", of_floor, None),
        ):
            note = f"{len(found.latencies_ms)} scrapes, slowest {max(found.latencies_ms):.2f} ms"
            add(f"{name}, median", found.quantile_ms(0.5), "ms", note=note)
            alone_ms = found.undisturbed_ms(0.99)
            note = f"{alone_ms:.2f} ms without waiting for a CPU that other programs held"
            add(f"{name}, p99", found.quantile_ms(0.99), "ms", target, note)
        percent = 100 * stolen / self._paced_s
        add("CPU time that the hypervisor took meanwhile", percent, "%", note="of one core")

    def _flood(self, daemon: Process) -> None:
        add = self._result.add
        _say(f"1,000 scrapes a second, {self._flood_s:.0f} s")
        missed = missed_ticks(daemon)
        cpu_s = daemon.cpu_s()
        jobs = [
            scrapes.Job(daemon.port, daemon.pid, 250, keep=True, begin=part / 4)
            for part in range(4)
        ]
        flood = scrapes.merged(scrapes.together(jobs, self._flood_s))
        cpu_s = daemon.cpu_s() - cpu_s
        energy.fresh_page(daemon)  # a page that was rendered after the flood
        add("missed ticks in the flood", missed_ticks(daemon) - missed, "", 0)
        cost_ms = 1000 * cpu_s / len(flood.latencies_ms)
        note = f"{cost_ms:.2f} ms CPU each; median {flood.quantile_ms(0.5):.2f} ms"
        add("scrapes a second, reached", flood.per_second, "", note=note)
        add("scrape in the flood, p99", flood.quantile_ms(0.99), "ms")
        pages = flood.seconds / energy.COMMIT_S
        note = f"{len(flood.bodies)} in {flood.seconds:.1f} s; a commit may fall on either end"
        add("distinct pages in 5 s", (len(flood.bodies) - 1) / pages, "", 2, note)
        memory = daemon.memory_mib()
        add("resident memory after it", memory["Rss"], "MiB", 45, f"most ever {memory['Peak']:.1f}")

    # ── mixed ───────────────────────────────────────────────────────────────────────────────────

    def _energy_without_counters(self, node: Node, daemon: Process) -> None:
        _say(f"GPUs without a counter, {self._seconds:.0f} s")
        time.sleep(SETTLE_S)
        first = energy.fresh_page(daemon)
        time.sleep(self._seconds)
        span = energy.span(first, energy.fresh_page(daemon))
        found = energy.errors(node, span)
        integrated = 0.0
        for case in node.cases:
            if case.by == "counter":
                continue
            error = found[case.gpu.uuid]
            integrated += error.true_joules + error.joules
            note = f"{error.joules:+.1f} of {error.true_joules:.0f} J"
            target = SAMPLES_PERCENT if case.by == "samples" else None
            self._result.add(f"{case.by}, {case.load}", error.percent, "%", target, note)
        quality = energy.by_quality(span)
        note = f"{quality['integrated']:.0f} J integrated, {quality['metered']:.0f} J metered"
        wrong = abs(quality["integrated"] - integrated)
        self._result.add("energy without a counter not said so", wrong, "J", 0.01, note)
        unobserved = series(span.last, "wattledger_unobserved_seconds_total")
        before = series(span.first, "wattledger_unobserved_seconds_total")
        lost_s = sum(unobserved.values()) - sum(before.values())
        self._result.add("unobserved, all devices", lost_s, "s")


def _stolen_s() -> float:
    """Time in which a hypervisor ran others on our CPUs, over all of them."""
    ticks = int(Path("/proc/stat").read_text().split()[8])
    return ticks / os.sysconf("SC_CLK_TCK")


def _say(text: str) -> None:
    print(f"… {text}", file=sys.stderr, flush=True)
