"""Measuring commands without a daemon: its meters and its arithmetic, in this process.

One engine serves all that a process measures. It is started by the first, and ends some seconds
after the last, so that a step in a loop does not open the meters each time. Nothing is kept.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from wattledger import __version__, build
from wattledger.clock import SystemClock, TickGrid
from wattledger.config import Config
from wattledger.config.site_market import embodied
from wattledger.errors import WattledgerError
from wattledger.jobs.node import NodeLoad
from wattledger.jobs.runs import NoJobs, RunRegistry, WithRuns
from wattledger.jobs.runs.claiming import claim, gpus_in
from wattledger.memory_ledger import MemoryLedger
from wattledger.meters.nvml.meter import NvmlMeter
from wattledger.model import GridChoice, GridSignal, Instant, SourceStatus
from wattledger.model.jobs import JobKey, Survey
from wattledger.model.measuring import GpuNames, Process
from wattledger.model.running import RunRequest
from wattledger.ports import Grid, Jobs
from wattledger.sampler import Sampler
from wattledger.services import MeterThread, PollingThread
from wattledger.site_build import site_feed
from wattledger.units import NS_PER_S, seconds
from wattledger_exporters.receipts import receipt_json

log = logging.getLogger(__name__)

FIRST_TURN_S = 0.6  # a command waits this long for meters that are slow to open
SETTLE_S = 0.04  # the estimate needs a first span: some ticks of the kernel, 10 ms each
LAST_TURN_S = 1.0  # and its receipt for their last turn
GRID_S = 1.5  # the first price waits this long for a live intensity
LINGER_NS = 10 * NS_PER_S
OTHERS = JobKey("", "another process")
_MAX_NOTES = 2
_PAUSE_S = 0.005


class _Patient:
    """A `ports.Grid` that waits once, for the first answer of its sources."""

    def __init__(self, grid: Grid, asked: threading.Event, patience_s: float) -> None:
        self._grid = grid
        self._asked = asked
        self._deadline_s = time.monotonic() + patience_s

    def at(self, wall_ns: int) -> GridChoice:
        """The best signal known for this instant."""
        if not self._asked.is_set():
            self._asked.wait(max(0.0, self._deadline_s - time.monotonic()))
        return self._grid.at(wall_ns)

    def signals(self) -> tuple[GridSignal, ...]:
        """The last good signals."""
        return self._grid.signals()

    def statuses(self) -> tuple[SourceStatus, ...]:
        """The health of each source."""
        return self._grid.statuses()


class _Listening:
    """A `ports.Jobs` that remembers who is on which GPU."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self.listed: Mapping[str, tuple[Process, ...]] = {}

    def survey(
        self,
        now: Instant,
        busy_ns: int | None = None,
        processes: Mapping[str, tuple[Process, ...]] = MappingProxyType({}),
    ) -> Survey:
        """See `ports.Jobs`."""
        self.listed = processes
        return self._jobs.survey(now, busy_ns, processes)


class Engine:
    """Meters, sampler and the commands of one process; for any thread."""

    def __init__(self, config: Config) -> None:
        """Open the meters and take their first readings; takes less than a second.

        Raises:
            ConfigError: a zone that nothing knows, a source that cannot be.
            ScenarioError: a simulated scenario that cannot be played.
        """
        self._config = config
        procfs = Path(config.path.procfs)
        self._clock = SystemClock(procfs)
        self._lock = threading.Lock()  # the sampler is for one thread at a time
        self._running: set[str] = set()
        self._idle_since_ns = self._clock.now().monotonic_ns
        self.closed = False
        feed = build.grid_feed(config, self._clock, ())
        site = site_feed(config, build.site_factors(config), self._clock)
        asked = threading.Event()

        def poll() -> float:
            try:
                return min(site.poll_once(), feed.poll_once())
            finally:
                asked.set()

        self._poller = PollingThread("grid", poll)
        required = build.required_meters(config)
        self._registry = RunRegistry(self._clock, procfs=procfs, claim_gpus=self._claim)
        meters = build.meters(config, self._clock, self._registry.is_young)
        self._meters = [MeterThread(one, self._clock, required=required) for one in meters]
        self._nvml = next((one for one in meters if isinstance(one, NvmlMeter)), None)
        self._jobs = _Listening(
            WithRuns(
                NoJobs(procfs), self._registry, boot_id=self._clock.boot_id, gpus=self._gpu_names
            )
        )
        load = NodeLoad(procfs)
        self._simulated = build.scenario_name(config)
        self._sampler = Sampler(
            clock=self._clock,
            feeds=self._meters,
            grid=_Patient(feed, asked, GRID_S),
            site=site,
            ledger=MemoryLedger(self._clock.now()),
            node_load=load.busy_ppm,
            node_busy_ns=lambda: load.busy_ns,
            jobs=self._jobs,
            idle_policy=config.jobs.idle_policy,
            cpu_idle_uw=build.cpu_idle_uw(config),
            embodied=embodied(config),
            version=__version__,
            simulated=self._simulated,
        )
        self._poller.start()
        for meter in self._meters:
            meter.start()
        deadline_s = time.monotonic() + FIRST_TURN_S
        for started in self._meters:
            started.first_turn.wait(max(0.0, deadline_s - time.monotonic()))
        time.sleep(SETTLE_S)
        self._sampler.tick()
        threading.Thread(target=self._run, name="sampler", daemon=True).start()

    # ── commands ────────────────────────────────────────────────────────────────────────────────

    def begin(self, name: str, gpus: tuple[str, ...]) -> Begun | None:
        """Measure this process from now on; None: the engine has just ended.

        Raises:
            RunRefused: a GPU is not the caller's to claim.
        """
        with self._lock:
            if self.closed:
                return None
            prompt = self._read_now()
            self._sampler.tick()
            ticket = self._registry.register(RunRequest(os.getpid(), os.geteuid(), name, gpus))
            self._running.add(ticket.payee.job_id)
        return Begun(self, ticket.payee.job_id, prompt)

    def finish(self, run_id: str, exit_code: int, *, prompt: bool) -> dict[str, Any]:
        """Measure up to now; the receipt as plain data.

        Args:
            run_id: of `begin`.
            exit_code: of the command.
            prompt: all meters were read when it began.
        """
        with self._lock:
            self._registry.finish(run_id, None, exit_code)
            complete = self._read_now() and prompt and not self.closed
            self._sampler.tick()
            self._registry.end(run_id)
            self._sampler.tick()  # sees that it has ended
            self._running.discard(run_id)
            self._idle_since_ns = self._clock.now().monotonic_ns
            receipt = self._sampler.receipt(run_id)
        if receipt is None:
            raise WattledgerError("nothing was measured")
        site = self._config.site
        return receipt_json(
            receipt,
            measured_by="direct",
            exit_code=exit_code,
            complete=None if complete else False,
            water_stress_factor=site.water_stress_factor,
            simulated=self._simulated,
        )

    def troubles(self) -> tuple[str, ...]:
        """What does not answer and should, each in a sentence."""
        statuses = [status for meter in self._meters for status in meter.statuses()]
        return tuple(
            f"{status.meter} does not answer: {status.message}"
            for status in statuses
            if not status.up and status.message
        )[:_MAX_NOTES]

    def _claim(
        self, request: RunRequest, groups: frozenset[int], inside: frozenset[JobKey]
    ) -> tuple[str, ...]:
        """The GPUs of a request, if nobody else's processes are on them; see `claim`."""
        snapshot = self._sampler.commit()
        holders = {
            device: frozenset({OTHERS})
            for device, listed in self._jobs.listed.items()
            if not all(self._is_ours(process.pid) for process in listed)
        }
        gpus = gpus_in(snapshot, self._gpu_names(), None if snapshot.simulated else Path("/dev"))
        return claim(request.gpus, gpus, holders, inside, request.uid, groups)

    def _gpu_names(self) -> Sequence[GpuNames]:
        return self._nvml.gpu_names() if self._nvml is not None else ()

    def _is_ours(self, pid: int) -> bool:
        return os.getpid() in self._registry.processes.ancestors(pid)

    # ── the thread ──────────────────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        turns = TickGrid(min(int(self._config.sampling.interval), NS_PER_S))
        commit_ns = int(self._config.sampling.commit_interval)
        due_ns = self._clock.now().monotonic_ns + commit_ns
        while not self.closed:
            now_ns = self._clock.now().monotonic_ns
            # The meters take their turn on the grid; the books follow a third of a turn later.
            at_ns = turns.next_after(now_ns - turns.interval_ns // 3) + turns.interval_ns // 3
            time.sleep(seconds(at_ns - now_ns))
            with self._lock:
                try:
                    due_ns = self._turn(due_ns, commit_ns)
                except Exception:
                    log.exception("measuring failed; receipts will be incomplete")
                    self.closed = True
        self._poller.stop()
        for meter in self._meters:
            meter.stop()

    def _turn(self, due_ns: int, commit_ns: int) -> int:
        """One turn of the books. Returns when to commit next (on CLOCK_MONOTONIC)."""
        now_ns = self._clock.now().monotonic_ns
        if not self._running and now_ns - self._idle_since_ns > LINGER_NS:
            self.closed = True
            return due_ns
        self._sampler.tick()
        if now_ns < due_ns:
            return due_ns
        self._sampler.commit()  # nothing is written; it keeps what is pending small
        return now_ns + commit_ns

    def _read_now(self) -> bool:
        """Have all meters read at this moment. Returns: whether they were, in time."""
        now_ns = self._clock.now().monotonic_ns
        for meter in self._meters:
            meter.read_now()
        deadline_ns = now_ns + round(LAST_TURN_S * NS_PER_S)
        while any(meter.read_up_to_ns() < now_ns for meter in self._meters):
            if self._clock.now().monotonic_ns >= deadline_ns:
                return False
            time.sleep(_PAUSE_S)
        return all(meter.first_turn.is_set() for meter in self._meters)


class Begun(NamedTuple):
    """A command that is measured by this process.

    Attributes:
        engine: by which.
        run_id: its id there.
        prompt: all meters were read when it began.
    """

    engine: Engine
    run_id: str
    prompt: bool

    def finish(self, exit_code: int) -> tuple[dict[str, Any], tuple[str, ...]]:
        """Its receipt, and sentences about what did not answer."""
        receipt = self.engine.finish(self.run_id, exit_code, prompt=self.prompt)
        return receipt, self.engine.troubles()


# ── the one engine of this process ──────────────────────────────────────────────────────────────

_engines: dict[Config, Engine] = {}
_lock = threading.Lock()


def begin_directly(name: str, gpus: tuple[str, ...], config: Config) -> Begun:
    """Measure this process and its descendants from now on.

    Raises:
        RunRefused: a GPU is not the caller's to claim.
        ConfigError: a zone that nothing knows, a source that cannot be.
        ScenarioError: a simulated scenario that cannot be played.
    """
    while True:
        with _lock:
            engine = _engines.get(config)
            if engine is None or engine.closed:
                engine = _engines[config] = Engine(config)
        begun = engine.begin(name, gpus)
        if begun is not None:
            return begun


def _after_fork() -> None:
    """The threads are the parent's; a child that measures opens meters of its own."""
    global _lock
    _lock = threading.Lock()
    _engines.clear()


os.register_at_fork(after_in_child=_after_fork)
