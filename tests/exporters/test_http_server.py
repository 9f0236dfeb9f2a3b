"""The server over real sockets of loopback: endpoints, formats, errors, the page."""

from __future__ import annotations

import gzip
import re
import threading
from dataclasses import replace
from datetime import datetime
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import snapshots
from fakes import FakeClock, table_choice
from serving import FakeDaemon, Served, page_of, read_answer, serving
from wattledger.errors import LedgerError
from wattledger.model.jobs import JobKey, job_payee
from wattledger.units import NS_PER_S
from wattledger_exporters import report
from wattledger_exporters.http import PageStore, openapi
from wattledger_exporters.http.app import App
from wattledger_exporters.status_page import html_page

# ── /metrics ──────────────────────────────────────────────────────────────────────────────────────


def test_metrics_are_the_rendered_bytes(served: Served) -> None:
    page = page_of(snapshots.snapshot(), served.clock)
    answer = served.tcp.request("/metrics")
    assert (answer.status, answer.body) == (200, page.text)
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["vary"] == "Accept, Accept-Encoding"
    assert "server" not in answer.headers


def test_openmetrics_and_gzip_where_asked_for(served: Served) -> None:
    page = page_of(snapshots.snapshot(), served.clock)
    accept = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"
    answer = served.tcp.request("/metrics", Accept=accept, Accept_Encoding="gzip")
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert gzip.decompress(answer.body) == page.openmetrics
    assert served.tcp.request("/metrics", Accept=accept).body == page.openmetrics
    assert gzip.decompress(served.tcp.request("/metrics", Accept_Encoding="gzip").body) == page.text


def test_an_odd_version_is_no_error(served: Served) -> None:
    answer = served.tcp.request("/metrics", Accept="application/openmetrics-text;version=abc")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain")


def test_a_thousand_scrapes_see_the_page_of_the_last_commit_only(served: Served) -> None:
    bodies = set()
    with served.tcp.connect() as sock:
        for _ in range(1000):
            sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            bodies.add(read_answer(sock).body)
    assert len(bodies) == 1


def test_the_page_goes_stale() -> None:
    with serving() as it:
        it.clock.advance(59)
        assert it.tcp.request("/metrics").status == 200
        it.clock.advance(2)
        answer = it.tcp.request("/metrics")
        assert answer.status == 503
        assert "1m1s old" in answer.json["error"]
        assert it.tcp.request("/readyz").status == 503
        assert it.tcp.request("/healthz").status == 200
        hung = it.tcp.request("/livez")
        assert (hung.status, hung.json["error"]) == (503, answer.json["error"])
        it.pages.publish(page_of(snapshots.snapshot(), it.clock))
        assert it.tcp.request("/metrics").status == 200


def test_staleness_follows_the_commit_interval() -> None:
    assert PageStore(FakeClock(), 5 * NS_PER_S).stale_after_ns == 60 * NS_PER_S
    assert PageStore(FakeClock(), 60 * NS_PER_S).stale_after_ns == 180 * NS_PER_S


# ── health ────────────────────────────────────────────────────────────────────────────────────────


def test_before_the_first_commit() -> None:
    with serving(ready=False) as it:
        assert it.tcp.request("/healthz").status == 200
        assert it.tcp.request("/-/healthy").status == 200
        assert it.tcp.request("/livez").status == 200
        for path in ("/readyz", "/-/ready", "/metrics", "/api/v1/status"):
            answer = it.tcp.request(path)
            assert (answer.status, answer.headers["retry-after"]) == (503, "5"), path
            assert answer.json["error"]
        assert "starting" in it.tcp.request("/").body.decode()
        assert it.tcp.request("/api/v1/openapi.json").status == 200


def test_ready_says_why_not() -> None:
    with serving() as it:
        assert it.tcp.request("/readyz").status == 200
        snapshot = snapshots.snapshot()
        ledger = replace(
            snapshot.ledger, last_commit_ns=0, message="The disk is full.", hint="make room"
        )
        it.daemon.state = replace(snapshot, ledger=ledger)
        assert it.tcp.request("/livez").status == 200  # a restart makes no room on a disk
        answer = it.tcp.request("/readyz")
        assert (answer.status, answer.json) == (
            503,
            {"error": "The disk is full.", "hint": "make room"},
        )


# ── the API ───────────────────────────────────────────────────────────────────────────────────────


def test_status_tells_meters_grid_and_provenance(served: Served) -> None:
    status = served.tcp.request("/api/v1/status").json
    down = next(meter for meter in status["meters"] if meter["meter"] == "hwmon")
    assert (down["up"], down["last_success"]) == (False, None)
    assert "CAP_DAC_READ_SEARCH" in down["hint"]
    assert status["grid"] == {
        "intensity_g_per_kwh": 400.5,
        "zone": "GB",
        "source": "neso",
        "basis": "lifecycle",
        "valid_from": "2027-01-15T06:00:00Z",
        "valid_to": "2027-01-15T06:30:00Z",
        "age_s": 7200,
        "fetched": "2027-01-15T06:03:20Z",
        "estimated": True,
        "level": 1,
        "level_name": "last good signal",
    }
    assert status["site"]["pue"] == {"value": 1.56, "source": "default"}
    gone = next(d for d in status["devices"] if d["device"] == snapshots.GPU.format(3))
    assert (gone["present"], gone["power_w"]) == (False, None)
    exact = sum(int(device["energy_uj"]) for device in status["devices"])
    assert status["totals"]["energy_uj"] == str(exact)


def test_totals(served: Served) -> None:
    answer = served.tcp.request("/api/v1/totals?since=24h&until=2027-01-15T07:00:00Z&by=kind").json
    now_ns = served.clock.now().wall_ns
    assert served.daemon.asked[-1] == (now_ns - 86_400 * NS_PER_S, now_ns - 3600 * NS_PER_S, "kind")
    assert answer["since"] == "2027-01-14T08:00:00Z"
    assert [row["group"] for row in answer["rows"]] == ["cpu", "gpu"]
    assert answer["rows"][0]["energy_uj"] == "9007199254740993"
    assert answer["total"]["energy_uj"] == str(9_007_199_254_740_993 + 3_600_000_000_000)
    assert answer["epoch"] == snapshots.snapshot().books.epoch


@pytest.mark.parametrize(
    "query",
    ["by=moon", "since=yesterday", "since=1h&until=2h", "sinse=1", "by=all&by=all", "until=%ff",
     "since=2027-01-15T08:00:00", "by=hour&since=0", "since=999999999999", "until=253402300800",
     "until=9999-12-31T23:59:59-23:59", "since=0001-01-01T00:00:00%2b23:59"],
)  # fmt: skip
def test_a_bad_query_is_told_what_is_wrong(served: Served, query: str) -> None:
    asked = len(served.daemon.asked)
    answer = served.tcp.request(f"/api/v1/totals?{query}")
    assert answer.status == 400
    assert answer.headers["content-type"] == "application/json"
    assert len(answer.json["error"]) > 20
    assert len(served.daemon.asked) == asked


def test_the_last_instant_that_can_be_asked_for(served: Served) -> None:
    for until in ("253402300799.999999999", "9999-12-31T23:59:59Z"):
        answer = served.tcp.request(f"/api/v1/totals?until={until}")
        assert (answer.status, answer.json["until"]) == (200, "9999-12-31T23:59:59Z")
    error = served.tcp.request("/api/v1/totals?until=999999999999").json["error"]
    assert "lies after the year 9999" in error


_OFFSETS = st.sampled_from(["", "Z", "%2b00:00", "-23:59", "%2b23:59", "%2b23:59:59.999999"])
_TEXTS = st.one_of(
    st.integers(0, 10**12 - 1).map(str),
    st.decimals(0, 10**12 - 1, places=9).map(lambda number: f"{number:f}"),
    st.tuples(st.integers(0, 10**9), st.sampled_from(["ms", "s", "m", "h", "d", "d1h", "w"])).map(
        lambda parts: f"{parts[0]}{parts[1]}"
    ),
    st.tuples(st.datetimes() | st.just(datetime.max) | st.just(datetime.min), _OFFSETS).map(
        lambda parts: parts[0].isoformat() + parts[1]
    ),
    st.dates().map(str),
    st.text(st.characters(codec="utf-8"), max_size=12).map(quote),
    st.sampled_from(["%ff", "%00", "9999-W53-5T00:00Z", "+1", "-0", "NaN"]),
)


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # the log of all examples
)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "since": _TEXTS,
            "until": _TEXTS,
            "by": st.sampled_from(["all", "hour", "day", "device", "kind"]) | _TEXTS,
        },
    )
)
def test_no_query_is_a_fault_of_the_daemon(
    served: Served, caplog: pytest.LogCaptureFixture, query: dict[str, str]
) -> None:
    joined = "&".join(f"{name}={text}" for name, text in query.items())
    answer = served.tcp.request(f"/api/v1/totals?{joined}")
    assert answer.status in (200, 400)
    if answer.status == 400:
        assert len(answer.json["error"]) > 20
    assert "Traceback" not in caplog.text


def test_a_slow_query_delays_no_scrape_and_too_many_are_turned_away() -> None:
    release = threading.Event()
    with serving() as it:
        it.daemon.on_totals = lambda: release.wait(20) and None
        socks = [it.tcp.connect() for _ in range(8)]
        try:
            for sock in socks:
                sock.sendall(b"GET /api/v1/totals HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            # One runs, four wait, three are told to come back; the scrape is not among them.
            refused = [read_answer(sock) for sock in socks[5:]]
            assert {answer.status for answer in refused} == {503}
            assert it.tcp.request("/metrics").status == 200
            release.set()
            assert [read_answer(sock).status for sock in socks[:5]] == [200] * 5
        finally:
            release.set()
            for sock in socks:
                sock.close()


def test_the_daemons_own_errors_are_told_and_its_faults_are_not() -> None:
    def locked() -> None:
        raise LedgerError("The ledger is damaged.", "see the log")

    def bug() -> None:
        raise ZeroDivisionError("secret detail")

    with serving() as it:
        it.daemon.on_totals = locked
        answer = it.tcp.request("/api/v1/totals")
        assert (answer.status, answer.json["hint"]) == (503, "see the log")
        it.daemon.on_totals = bug
        answer = it.tcp.request("/api/v1/totals")
        assert answer.status == 500
        assert b"secret" not in answer.body
        assert b"Traceback" not in answer.body
        assert it.tcp.request("/metrics").status == 200


def test_every_route_is_documented_and_nothing_else(served: Served) -> None:
    document = served.tcp.request("/api/v1/openapi.json").json
    app = App(FakeDaemon(), served.pages, served.clock, None)
    assert document == openapi.document("0.1.0")
    assert document["paths"].keys() == app.routes.keys()
    for path, operations in document["paths"].items():
        assert set(operations) == {"post"} if path.endswith("release") else {"get"}


def test_documented_schemas_fit_the_answers(served: Served) -> None:
    schema = openapi.document("")["components"]["schemas"]
    totals = served.tcp.request("/api/v1/totals").json
    assert totals.keys() == schema["Totals"]["properties"].keys()
    assert totals["rows"][0].keys() == schema["TotalsRow"]["properties"].keys()
    for name, column in schema["TotalsRow"]["properties"].items():
        kinds = {"string": str, "number": (int, float), "null": type(None)}
        types = column["type"] if isinstance(column["type"], list) else [column["type"]]
        # A row of totals lacks nothing; those since the epoch lack the facility's energy.
        assert isinstance(totals["rows"][0][name], kinds[types[0]])
        assert ("null" in types) == (name in report.MAY_LACK)
        if "pattern" in column:
            assert re.fullmatch(column["pattern"], totals["rows"][0][name])


# ── the page for people ───────────────────────────────────────────────────────────────────────────


def test_status_page(served: Served) -> None:
    answer = served.tcp.request("/")
    html = answer.body.decode()
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "<script" not in html
    for part in ("NVIDIA H100", "neso, zone GB, lifecycle, last good signal", "estimated", "down"):
        assert part in html
    assert not re.search(r"\$\w", html)


def page_of_jobs(count: int) -> str:
    """The page of a node on which so many jobs run; the higher the number, the more it draws."""
    node = snapshots.with_jobs()
    jobs = node.books.jobs
    (one, *_) = jobs.runs.values()
    payees = [one.run.payee._replace(job_id=str(n)) for n in range(count)]
    runs = {payee: replace(one, run=replace(one.run, payee=payee)) for payee in payees}
    ended = replace(one, run=replace(one.run, payee=job_payee("slurm", "old", 5), end_ns=6))
    runs[ended.run.payee] = ended
    power_uw = {JobKey("slurm", payee.job_id): int(payee.job_id) * 10**6 for payee in payees}
    books = replace(node.books, jobs=replace(jobs, runs=runs, past={}, unlisted=frozenset()))
    return html_page(replace(node, books=books, job_power_uw=power_uw), node.at_ns)


def test_the_page_shows_what_the_metrics_do_of_the_jobs_that_draw_most() -> None:
    html = page_of_jobs(12)
    figure = r'<td class="n">(.*?)</td>'
    rows = re.findall(rf"<td>slurm/(\w+)</td>{figure}{figure}", html)
    assert [row[0] for row in rows] == [str(n) for n in range(11, 1, -1)]
    assert rows[0] == ("11", "11", "1.100")  # 1 kWh of GPUs, 0.1 of CPUs
    assert "12 jobs run now; these 10 draw most." in html
    for private in ("user1001", "physics", "of mine", "old"):
        assert private not in html.partition("<h2>Jobs</h2>")[2].partition("<h2>Devices</h2>")[0]
    assert "1 job runs now." in page_of_jobs(1)
    assert "No job runs now." in page_of_jobs(0)


def test_the_page_names_the_country_table_once() -> None:
    grid = table_choice()
    html = html_page(snapshots.snapshot(grid=grid), snapshots.NOW_NS)
    assert "<td>country table, zone WORLD, lifecycle, estimated</td>" in html


def test_nothing_from_outside_becomes_markup() -> None:
    evil = '"><script>alert(1)</script>\ud800'
    info = replace(snapshots.devices()[0], name=evil, model=evil)
    snapshot = snapshots.snapshot([info])
    meters = tuple(replace(m, message=evil, errors={evil: 1}) for m in snapshot.meters)
    signal = replace(snapshot.grid.signal, zone=evil, source=evil)
    sources = tuple(replace(s, source=evil, message=evil) for s in snapshot.sources)
    jobs = snapshots.job_books()
    (one, *_) = jobs.runs.values()
    payee = job_payee("unit", evil, 1)
    runs = {payee: replace(one, run=replace(one.run, payee=payee))}
    snapshot = replace(snapshot, books=replace(snapshot.books, jobs=replace(jobs, runs=runs)))
    with serving() as it:
        it.daemon.state = replace(
            snapshot,
            meters=meters,
            grid=replace(snapshot.grid, signal=signal),
            sources=sources,
            simulated=evil,
            version=evil,
            ledger=replace(snapshot.ledger, message=evil, path=evil, quarantined=evil),
        )
        html = it.tcp.request("/").body.decode()
        assert "<script" not in html
        assert html.count("&lt;script&gt;") > 9
        assert it.tcp.request("/api/v1/status").status == 200
