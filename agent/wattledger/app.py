"""The wiring: one daemon from its settings, its life from start to end.

The main thread samples and commits; each meter, the grid feed and the HTTP server have threads of
their own. The end: the meters take a last turn, one last commit, the ledger is closed, and the
process leaves within 2 s even if a driver call hangs.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from wattledger import __version__, build
from wattledger.banner import banner
from wattledger.books_door import BooksDoor
from wattledger.clock import SystemClock, TickGrid
from wattledger.config import Config
from wattledger.config.site_market import embodied
from wattledger.errors import MeterUnavailable, RunRefused, WattledgerError
from wattledger.exporter_build import build_exporters
from wattledger.feeds import Feeds
from wattledger.jobs.node import NodeLoad
from wattledger.jobs.runs.claiming import GpuClaims
from wattledger.ledger import LedgerReader
from wattledger.meters.nvml.meter import NvmlMeter
from wattledger.model import Snapshot
from wattledger.model.measuring import GpuNames
from wattledger.model.running import RunRequest, RunResult, RunTicket
from wattledger.outbox import DeliveringLedger
from wattledger.payroll import known_runs, remembered_runs
from wattledger.release import RELEASE_NOTE, Released, describe_release
from wattledger.run_desk import RunDesk
from wattledger.sampler import SITE_NOTE, Sampler
from wattledger.services import MeterThread, PollingThread
from wattledger.settle_desk import SettleDesk
from wattledger.settling_ledger import SettlingLedger
from wattledger.systemd import Notifier
from wattledger.units import NS_PER_S, seconds
from wattledger_exporters.http import HttpServer, inherited_sockets

log = logging.getLogger(__name__)

FIRST_TURN_S = 0.6  # the first page waits this long for meters that are slow to open
FIRST_CLAIMS_S = 0.5  # and for a kubelet that is slow to answer
LAST_TURN_S = 0.8  # and the end for their last turn
LAST_PUSH_S = 0.5  # and for the exporters' last delivery
REST_S = 1.0  # what waits for jobs looks as often whether it is to end
RELEASE_WAIT_S = 10.0
RESTART_EXIT = 75  # EX_TEMPFAIL of sysexits.h: systemd's Restart=on-failure starts it again


class App(BooksDoor):
    """The running daemon; implements `ports.Daemon` for the HTTP floor."""

    def __init__(
        self,
        config: Config,
        reload: Callable[[], Config] | None = None,
        notifier: Notifier | None = None,
        announce: Callable[[str], None] = print,
    ) -> None:
        """A daemon that has not started.

        Args:
            config: the settings.
            reload: gives the settings anew at SIGHUP; raises ConfigError.
            notifier: word to systemd.
            announce: takes the lines that say what is measured and where to look.
        """
        self._config = config
        self._reload = reload
        self._notifier = notifier or Notifier()
        self._announce = announce
        self._clock = SystemClock(Path(config.path.procfs))
        self._stop = threading.Event()
        self._wake = threading.Event()  # the sampling loop has something to do before its time
        self._reload_asked = threading.Event()
        self._commit_asked = threading.Event()
        self._committed = threading.Condition()
        self._commits = 0
        self._exit_code = 0
        self._snapshot: Snapshot | None = None

        path = build.ledger_path(config)
        self._deliveries = DeliveringLedger(build.ledger(config, self._clock))
        self._ledger = SettlingLedger(self._deliveries)
        try:
            self._reader = LedgerReader(path)
            self._settling = SettleDesk(
                self._ledger,
                self._reader,
                self._clock,
                self._ask_commit,
                build.first_settling_s(),
            )
            self._settling.configure(build.settle_sources(config), int(config.grid.settle_window))
            books = self._ledger.books
            self._feeds = Feeds(config, self._clock, books.signals, books.notes.get(SITE_NOTE, ""))
            known = {record.info.meter for record in books.devices.values()}
            claims = GpuClaims(lambda: self._snapshot, lambda: self._gpu_names())
            self._runs = build.run_registry(config, self._clock, known_runs(books), claims)
            hurried = self._runs.is_young if self._runs is not None else lambda: False
            meters = build.meters(config, self._clock, hurried)
            self._meters = [
                MeterThread(meter, self._clock, required=build.required_meters(config) | known)
                for meter in meters
            ]
            gpus = next((meter for meter in meters if isinstance(meter, NvmlMeter)), None)
            self._gpu_names: Callable[[], Sequence[GpuNames]] = gpus.gpu_names if gpus else tuple
            self._bindings = build.bindings(config, self._clock, gpus)
            self._turns = TickGrid(min(int(config.sampling.interval), NS_PER_S))
            self._asked_claims = threading.Event()
            self._claims = PollingThread("claims", self._ask_claims)
            remembered = remembered_runs(books)
            watch = build.job_watch(config, self._clock, remembered, self._bindings)
            self._newcomers = PollingThread(
                "jobs", lambda: watch.step(self._clock.now()) if watch.rest(REST_S) else 0.0
            )
            self._nvml = next((m for m in self._meters if m.name == "nvml"), None)
            if self._nvml is not None:
                self._nvml.stay_released(books.notes.get(RELEASE_NOTE, ""))
            load = NodeLoad(Path(config.path.procfs))
            self._sampler = Sampler(
                clock=self._clock,
                feeds=self._meters,
                grid=self._feeds.grid,
                site=self._feeds.site,
                ledger=self._ledger,
                node_load=load.busy_ppm,
                node_busy_ns=lambda: load.busy_ns,
                jobs=build.jobs(config, self._clock, remembered, self._bindings, self._runs, watch),
                idle_policy=config.jobs.idle_policy,
                cpu_idle_uw=build.cpu_idle_uw(config),
                embodied=embodied(config),
                released=self._nvml.released if self._nvml else Released,
                version=__version__,
                simulated=build.scenario_name(config),
            )
            self._desk = RunDesk(
                self._runs,
                self._clock,
                self._meters,
                self._sampler.receipt,
                self._ask_commit,
                self._sampler.read_at_ns,
            )
            self._exporters, page = build_exporters(
                config, self._clock, self._deliveries, self._reader.another()
            )
            self._http = HttpServer(
                self,
                page.pages,
                listen=config.http.listen,
                web_config=Path(config.http.web_config) if config.http.web_config else None,
                socket=build.socket_path(config),
                clock=self._clock,
                operators_group=config.http.operators_group,
                inherited=inherited_sockets(),
            )
            self._http.start()
        except BaseException:
            self._ledger.close()
            raise

    # ── ports.Daemon: called from HTTP threads ──────────────────────────────────────────────────

    def snapshot(self) -> Snapshot | None:
        """The latest snapshot; None before the first commit attempt."""
        return self._snapshot

    def begin_run(self, request: RunRequest) -> RunTicket:
        """Measure a process and its descendants from now on; see `RunDesk.begin`."""
        if self._snapshot is None:
            raise RunRefused("starting", "the daemon is starting; ask again")
        return self._desk.begin(request)

    def finish_run(
        self, run_id: str, uid: int | None, exit_code: int | None, *, at_once: bool = False
    ) -> RunResult | None:
        """The receipt of a command that has ended; see `RunDesk.finish`."""
        return self._desk.finish(run_id, uid, exit_code, at_once=at_once)

    def run_result(self, run_id: str, uid: int | None) -> RunResult:
        """What a command has cost so far; see `RunDesk.result`."""
        return self._desk.result(run_id, uid)

    def _ask_commit(self) -> None:
        self._commit_asked.set()
        self._wake.set()

    def release(self, duration_ns: int) -> str:
        """Close NVML for a while and commit; 0 takes it up again.

        Raises:
            MeterUnavailable: there is no NVML meter, or its driver call does not return.
        """
        if self._nvml is None:
            raise MeterUnavailable("disabled", "the NVML meter is switched off by meters.nvml")
        if not self._nvml.release(duration_ns, RELEASE_WAIT_S):
            raise MeterUnavailable(
                "hang",
                "a driver call has not returned, so NVML cannot be closed",
                "see dmesg for Xid errors; stopping the service ends the process all the same",
            )
        with self._committed:
            number = self._commits
            self._ask_commit()
            done = self._committed.wait_for(lambda: self._commits > number, RELEASE_WAIT_S)
            written = done and self._snapshot is not None and not self._snapshot.ledger.message
        return describe_release(duration_ns, written)

    # ── life ────────────────────────────────────────────────────────────────────────────────────

    def request_stop(self) -> None:
        """End soon; for any thread, but not for a signal handler."""
        self._stop.set()
        self._wake.set()

    def request_reload(self) -> None:
        """Read the settings again; for any thread, but not for a signal handler."""
        self._reload_asked.set()
        self._wake.set()

    def run(self) -> int:
        """Sample and commit until asked to stop, then write everything and close.

        Returns:
            The exit code: 0, or `RESTART_EXIT` where only a new process can go on.
        """
        try:
            self._begin()
            self._loop()
        finally:
            self._end()
        return self._exit_code

    def _begin(self) -> None:
        for meter in self._meters:
            meter.start()
        self._feeds.start()
        deadline = time.monotonic() + FIRST_TURN_S
        for meter in self._meters:
            meter.first_turn.wait(max(0.0, deadline - time.monotonic()))
        # Who holds what is asked for once the GPUs are known, and before the first books: what was
        # used while no daemon ran goes to those who held it on both sides.
        self._claims.start()
        self._asked_claims.wait(FIRST_CLAIMS_S)
        self._sampler.tick()
        self._newcomers.start()
        self._settling.start()
        self._exporters.start()
        self._commit()
        self._http.welcome()
        self._say_ready()
        self._say_what_is_measured()

    def _ask_claims(self) -> float:
        self._bindings.look()
        self._asked_claims.set()
        # At the instants at which the meters are read, which is before the books of that turn.
        now_ns = self._clock.now().monotonic_ns
        return seconds(self._turns.next_after(now_ns) - now_ns)

    def _loop(self) -> None:
        turns = self._turns
        commit_ns = int(self._config.sampling.commit_interval)
        due_ns = self._clock.now().monotonic_ns // commit_ns * commit_ns + commit_ns
        while not self._stop.is_set():
            now_ns = self._clock.now().monotonic_ns
            # The meters take their turn on the grid; the books follow a third of a turn later.
            at_ns = turns.next_after(now_ns - turns.interval_ns // 3) + turns.interval_ns // 3
            if self._wake.wait(seconds(at_ns - now_ns)):
                self._wake.clear()
            if self._reload_asked.is_set():
                self._reload_asked.clear()
                self._reconfigure()
            asked = self._commit_asked.is_set()  # for what the meters have brought by now
            self._commit_asked.clear()
            read_up_to_ns = self._desk.read_up_to_ns()
            now_ns = self._clock.now().monotonic_ns
            commits = asked or now_ns >= due_ns
            self._sampler.tick(may_wait=not commits)
            if commits:
                self._commit()
                if self._desk.close(read_up_to_ns):  # that commands have ended is written too
                    self._sampler.tick()
                    self._commit()
                    self._desk.answer()
                due_ns = now_ns // commit_ns * commit_ns + commit_ns
            self._notifier.alive()
            for meter in self._meters:
                if self._notifier.supervised and meter.wants_restart():
                    log.error(
                        "meter %s needs a new process; ending, to be started again", meter.name
                    )
                    self._exit_code = RESTART_EXIT
                    self._stop.set()

    def _commit(self) -> None:
        snapshot = replace(
            self._sampler.commit(),
            claim_faults=self._bindings.faults(),
            exporters=self._exporters.statuses(),
            web=self._http.web_status,
        )
        self._snapshot = snapshot
        self._exporters.take(snapshot)
        with self._committed:
            self._commits += 1
            self._committed.notify_all()

    def _end(self) -> None:
        self._notifier.stopping()
        self._feeds.stop()
        self._claims.stop()
        self._newcomers.stop()
        self._settling.stop()
        for meter in self._meters:
            meter.stop()
        deadline = time.monotonic() + LAST_TURN_S
        for meter in self._meters:
            if not meter.done.wait(max(0.0, deadline - time.monotonic())):
                log.warning("meter %s does not come to an end; leaving without it", meter.name)
        self._sampler.tick()
        self._commit()
        self._exporters.stop(LAST_PUSH_S)
        if self._deliveries.is_behind:  # what a receiver has acknowledged does not come again
            self._sampler.commit()
        self._http.stop(0.3)
        self._reader.close()
        self._ledger.close()
        log.info("the books are closed")

    def _say_ready(self) -> None:
        devices = self._sampler.devices_present
        self._notifier.ready(f"metering {devices} device{'' if devices == 1 else 's'}")

    def _say_what_is_measured(self) -> None:
        if self._snapshot is None:
            return
        path = self._http.socket_path
        usual = (build.socket_path(Config()), build.SYSTEM_SOCKET)
        option = "" if path is None or path in usual else f" --socket {path}"
        try:
            self._announce(banner(self._snapshot, self._http.url, option))
        except OSError as error:  # a full disk under a redirected output is no reason to end
            log.warning("what is measured could not be printed: %s", error)

    # ── reload ──────────────────────────────────────────────────────────────────────────────────

    def _reconfigure(self) -> None:
        if self._reload is None:
            log.warning("no configuration file was given, so there is nothing to read again")
            return
        self._notifier.reloading(self._clock.now().monotonic_ns)
        try:
            config = self._reload()
            feeds = self._feeds.heir(config)
            known = build.settle_sources(config)
        except WattledgerError as error:
            log.error("the configuration was not reloaded, the old one stays in force: %s", error)
        else:
            self._sampler.reconfigure(grid=feeds.grid, site=feeds.site, embodied=embodied(config))
            self._settling.configure(known, int(config.grid.settle_window))
            self._feeds.stop()
            self._feeds = feeds
            feeds.start()
            logging.getLogger().setLevel(config.log.level.upper())
            later = [
                name
                for name in ("sampling", "meters", "jobs", "path", "ledger", "http", "exporters")
                if getattr(config, name) != getattr(self._config, name)
            ]
            self._config = replace(self._config, site=config.site, grid=config.grid, log=config.log)
            if later:
                log.warning("reloaded; changes of %s need a restart", ", ".join(later))
            else:
                log.info("reloaded")
        self._say_ready()
