"""A fake daemon behind the real HTTP server, and a client of plain sockets."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
from collections.abc import Callable, Iterator
from http.client import HTTPResponse
from pathlib import Path
from typing import Any, NamedTuple

import snapshots
from fakes import FakeClock
from ledgers import PRICE
from wattledger.errors import RunRefused
from wattledger.model import Kind, Quality, Snapshot, TotalsRow
from wattledger.model.jobbooks import (
    JobDetail,
    JobMoment,
    JobPart,
    JobQuery,
    JobRow,
    RunBook,
    Waste,
    WasteRow,
    sum_of,
)
from wattledger.model.jobs import Held, JobRun, job_payee
from wattledger.model.pricing import GridPart, Price
from wattledger.model.receipts import Receipt
from wattledger.model.restating import Restatement
from wattledger.model.running import RunRequest, RunResult, RunTicket
from wattledger.model.settle_report import RestateResult, SettleReport, SettleResult, Verified
from wattledger.model.settling import NONE_SETTLED, SettledBy
from wattledger.model.sums import sums_of
from wattledger.units import NS_PER_S
from wattledger_exporters.http import HttpServer, PageStore
from wattledger_exporters.prometheus import Page, Renderer


class FakeDaemon:
    """A `ports.Daemon` that remembers what it was asked."""

    def __init__(self, snapshot: Snapshot | None = None) -> None:
        self.state = snapshot
        self.rows = snapshots.rows()
        self.asked: list[tuple[int, int, str]] = []
        self.released: list[int] = []
        self.settled: list[int | None] = []
        self.restated: list[Restatement] = []
        self.settled_of_jobs: SettledBy = NONE_SETTLED
        self.cost_u_per_kwh: int | None = None
        self.currency = ""
        self.uids: list[int | None] = []
        self.queries: list[JobQuery] = []
        self.books: list[RunBook] = list(snapshots.job_books().runs.values())
        self.begun: list[RunRequest] = []
        self.finish_after = 3
        self.finish_asked = 0
        self.on_begin: Callable[[], None] = lambda: None
        self.on_totals: Callable[[], None] = lambda: None
        self.on_release: Callable[[], None] = lambda: None

    def snapshot(self) -> Snapshot | None:
        return self.state

    def totals(
        self, since_ns: int, until_ns: int, by: str, uid: int | None = None
    ) -> list[TotalsRow]:
        self.asked.append((since_ns, until_ns, by))
        self.uids.append(uid)
        self.on_totals()
        return self.rows

    def jobs(self, asked: JobQuery) -> list[JobRow]:
        self.queries.append(asked)
        return [
            JobRow(book, (book.run.payee.start_ns, number))
            for number, book in enumerate(self.books)
            if asked.uid in (None, book.run.uid)
        ][: asked.limit]

    def job(self, manager: str, job_id: str, uid: int | None = None) -> JobDetail | None:
        runs = tuple(
            book
            for book in self.books
            if book.run.key == (manager, job_id) and uid in (None, book.run.uid)
        )
        if not runs:
            return None
        total = sum_of(book.cells for book in runs)
        parts = {
            JobPart(Quality.METERED, GridPart("GB", "neso", basis, False, 1_200_000)): cell
            for (_, basis), cell in total.items()
        }
        return JobDetail(
            runs,
            len(runs),
            runs[-1].run.payee.start_ns,
            7200 * NS_PER_S,
            total,
            parts,
            (JobMoment(1_800_000_000, Kind.GPU, 5),),
            300,
            {part.grid: cell.amounts.energy_uj * 200_000_000 for part, cell in parts.items()},
            self.settled_of_jobs,
            sums_of((self._price, cell.amounts.energy_uj) for cell in parts.values()),
            sums_of((self._price, cell.held.idle_uj) for cell in parts.values()),
        )

    @property
    def _price(self) -> Price:
        return PRICE._replace(
            pue_ppm=1_200_000, cost_u_per_kwh=self.cost_u_per_kwh, currency=self.currency
        )

    def waste(self, since_ns: int, until_ns: int, by: str, uid: int | None = None) -> Waste:
        self.asked.append((since_ns, until_ns, by))
        self.uids.append(uid)
        rows = [
            WasteRow(
                book.run.labels[by],
                1,
                Held(7_200_000, 1_800_000, 250 * (number + 1)),
                1000 * (number + 1),
                1200 * (number + 1),
                300 * (number + 1),
                sums_of([(self._price, 1000 * (number + 1))]),
                sums_of([(self._price, 250 * (number + 1))]),
            )
            for number, book in enumerate(self.books)
            if uid in (None, book.run.uid)
        ]
        sums = sums_of([(self._price, 4_000)])
        return Waste(tuple(reversed(rows)), 4_000, 4_800, sums)

    def begin_run(self, request: RunRequest) -> RunTicket:
        self.on_begin()
        self.begun.append(request)
        return RunTicket(job_payee("run", f"{len(self.begun):x}", 1_800_000_000 * NS_PER_S))

    def finish_run(
        self, run_id: str, uid: int | None, exit_code: int | None, *, at_once: bool = False
    ) -> RunResult | None:
        self.finish_asked += 1
        if self.finish_asked < self.finish_after and not at_once:
            return None
        return RunResult(self.run_result(run_id, uid).receipt, exit_code, not at_once)

    def run_result(self, run_id: str, uid: int | None) -> RunResult:
        if not 0 < int(run_id, 16) <= len(self.begun):
            raise RunRefused("unknown", f"there is no run {run_id} of yours")
        request = self.begun[int(run_id, 16) - 1]
        if uid not in (None, request.uid):
            raise RunRefused("unknown", f"there is no run {run_id} of yours")
        payee = job_payee("run", run_id, 1_800_000_000 * NS_PER_S)
        run = JobRun(payee, request.uid, {"name": request.name})
        return RunResult(Receipt(run, since_ns=payee.start_ns))

    def settle(self, days: int | None, wait_s: float) -> SettleResult:
        self.settled.append(days)
        report = SettleReport(0, 1, self.rows[0], 3, 4, 5, ("neso",), (("rte", "it is out"),))
        return SettleResult(True, report)

    def restate(self, made: Restatement, wait_s: float) -> RestateResult:
        self.restated.append(made)
        return RestateResult(True, made, len(self.restated) == 1, self.rows[0])

    def restatements(self) -> tuple[Restatement, ...]:
        return tuple(self.restated)

    def verify(self) -> Verified:
        return Verified(("1 is not 2",), 517_483)

    def audit(
        self, since_ns: int, until_ns: int, after: tuple[int | str, ...] | None, most: int
    ) -> tuple[list[dict[str, Any]], tuple[int | str, ...] | None]:
        self.asked.append((since_ns, until_ns, str(after)))
        if after not in (None, (1, "metered")):
            raise ValueError(after)
        return [{"record": "price", "id": 1}], (1, "metered") if after is None else None

    def release(self, duration_ns: int) -> str:
        self.released.append(duration_ns)
        self.on_release()
        return "The GPUs are released."


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client(NamedTuple):
    """Where to connect, and how."""

    family: int
    address: Any
    context: ssl.SSLContext | None = None

    def connect(self, timeout: float = 10.0) -> socket.socket:
        plain = socket.socket(self.family, socket.SOCK_STREAM)
        plain.settimeout(timeout)
        try:
            plain.connect(self.address)
            if self.context is None:
                return plain
            return self.context.wrap_socket(plain, server_hostname="localhost")
        except BaseException:
            plain.close()
            raise

    def send(self, raw: bytes, method: str = "GET") -> Answer:
        """Send these very bytes, read one answer."""
        with self.connect() as sock:
            sock.sendall(raw)
            return read_answer(sock, method)

    def request(self, target: str, method: str = "GET", **headers: str) -> Answer:
        lines = [f"{method} {target} HTTP/1.1", "Host: localhost", "Connection: close"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        return self.send("\r\n".join([*lines, "", ""]).encode("latin-1"), method)


def read_answer(sock: socket.socket, method: str = "GET") -> Answer:
    with HTTPResponse(sock, method=method) as response:
        response.begin()
        body = response.read()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, body)


def page_of(snapshot: Snapshot, clock: FakeClock) -> Page:
    return Renderer().render(snapshot, clock.now().monotonic_ns, process=False)


class Served(NamedTuple):
    server: HttpServer
    daemon: FakeDaemon
    pages: PageStore
    clock: FakeClock
    tcp: Client
    unix: Client | None


@contextlib.contextmanager
def serving(
    socket_path: Path | None = None,
    *,
    ready: bool = True,
    tls: ssl.SSLContext | None = None,
    daemon: FakeDaemon | None = None,
    **more: Any,
) -> Iterator[Served]:
    """The server on a free port of loopback, over a daemon of its own or this one."""
    clock = FakeClock()
    snapshot = snapshots.snapshot()
    daemon = daemon or FakeDaemon(snapshot if ready else None)
    pages = PageStore(clock, 5 * NS_PER_S)
    if ready:
        pages.publish(page_of(snapshot, clock))
    server = HttpServer(daemon, pages, clock, listen="127.0.0.1:0", socket=socket_path, **more)
    server.start()
    try:
        host, port = server.address.rsplit(":", 1)
        tcp = Client(socket.AF_INET, (host, int(port)), tls)
        unix = Client(socket.AF_UNIX, str(socket_path)) if socket_path else None
        yield Served(server, daemon, pages, clock, tcp, unix)
    finally:
        server.stop(1.0)
