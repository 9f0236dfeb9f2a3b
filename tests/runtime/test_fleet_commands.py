"""`jobs --from` and `job --from` against a server on loopback: good replies, partial, hostile."""

from __future__ import annotations

import csv
import io
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import grid_server as play
from grid_server import GridServer, Request, Script
from prometheus_fake import FakeApi
from wattledger.cli import main
from wattledger.errors import ConfigError, WattledgerError
from wattledger.fleet.door import Door, endpoint

NOW_S = 1_800_000_000
CANARY = "canary-5d1e"


def served(api: FakeApi, **beside: Any) -> Script:
    """Answers as the API does, with more fields beside `data`."""

    def play_it(connection: socket.socket, request: Request, stop: threading.Event) -> None:
        body = {**json.loads(api.reply(request.target)), **beside}
        connection.sendall(play.message(200, json.dumps(body).encode()))

    return play_it


@pytest.fixture
def api() -> FakeApi:
    """Three jobs on two nodes; one runs."""
    made = FakeApi(NOW_S)
    pages = [NOW_S - 3600 + 15 * n for n in range(241)]
    jobs = {
        "1": ("ann", "train-a", 0, 100, (1.0, 0.5)),
        "2": ("bob", "train-b", 50, 150, (3.0,)),
        '3"x': ("ann", "eval", 120, 241, (0.25, 0.25)),
    }
    for number in (0, 1):
        target = {"instance": f"gpu{number}:19400", "job": "wattledger"}
        info = {**target, "epoch": f"e{number}", "storage": "disk"}
        made.write("ledger_info", info, [(t, 1.0) for t in pages])
        for job_id, (user, name, begin, end, kwh) in jobs.items():
            if number >= len(kwh):
                continue
            job = {**target, "manager": "slurm", "job_id": job_id}
            lingers = pages[begin : end + 60]
            drew = [(t, 300.0) for t in pages[begin:end]]
            made.write("job_power_watts", job, drew)
            if end < len(pages):
                made.write("job_power_watts", job, [(pages[end], float("nan"))])
            final = kwh[number]
            points = [(t, final * min(1.0, (n + 1) / (end - begin))) for n, t in enumerate(lingers)]
            made.write("job_energy_kwh_total", {**job, "kind": "gpu"}, points)
            made.write("job_co2e_grams_total", {**job, "basis": "lifecycle"}, points)
            for origin in ("onsite", "grid"):
                made.write("job_water_liters_total", {**job, "origin": origin}, points)
            made.write("job_held_seconds_total", job, [(t, 7200.0) for t, _ in points])
            made.write("job_held_idle_seconds_total", job, [(t, 1800.0) for t, _ in points])
            made.write("job_held_idle_joules_total", job, [(t, 9e4 * final) for t, _ in points])
            labels = {**job, "user": user, "name": name}
            made.write("job_info", labels, [(t, 1.0) for t in lingers])
    return made


@pytest.fixture
def server(api: FakeApi) -> Iterator[GridServer]:
    with GridServer(served(api)) as one:
        yield one


def ask(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    assert main(arguments) == code
    out, err = capsys.readouterr()
    if code:
        assert "Traceback" not in err and CANARY not in err + out
        return err
    return out


def listed(capsys: pytest.CaptureFixture[str], server: GridServer, *more: str) -> list[str]:
    text = ask(capsys, "jobs", "--from", server.url, "--since", "2h", "--json", *more)
    return [row["job_id"] for row in json.loads(text)["jobs"]]


def test_the_receipt_for_people(server: GridServer, capsys: pytest.CaptureFixture[str]) -> None:
    text = ask(capsys, "job", "1", "--from", server.url, "--since", "2h", "--nodes", "gpu1,gpu7")
    lines = text.splitlines()
    assert lines[0] == "slurm/1  train-a"
    assert "ann, 2 nodes" in lines[1]
    assert "1.500 kWh" in text and "lifecycle" in text
    assert "25% of 4 h GPU time" in text
    assert "gpu0:19400" in text and "67%" in text
    assert "MISSING: gpu7: nothing of this job was scraped from it" in text
    assert "gpu1: nothing" not in text
    flat = " ".join(text.split())
    assert "Not in the metrics: cost, uncertainty" in flat
    assert "`wattledger job slurm/1` tells them" in flat
    assert all(len(line) <= 80 for line in lines)


def test_lists_sort_filter_and_page(
    server: GridServer, api: FakeApi, capsys: pytest.CaptureFixture[str]
) -> None:
    assert listed(capsys, server) == ['3"x', "2", "1"]
    assert listed(capsys, server, "--sort", "energy") == ["2", "1", '3"x']
    assert listed(capsys, server, "--sort", "held_idle", "--reverse") == ['3"x', "1", "2"]
    assert listed(capsys, server, "--user", "ann", "--state", "ended") == ["1"]
    assert listed(capsys, server, "--state", "running") == ['3"x']
    assert listed(capsys, server, "--name", "train-*", "--manager", "slurm") == ["2", "1"]
    assert listed(capsys, server, "--manager", "pod") == []
    assert listed(capsys, server, "--until", str(NOW_S - 3600 + 15 * 60)) == ["2", "1"]
    asked = ("jobs", "--from", server.url, "--since", "2h", "--json", "--limit", "2")
    first = json.loads(ask(capsys, *asked))
    api.now_s += 100  # another page is of the same span
    rest = json.loads(ask(capsys, *asked, "--cursor", first["next_cursor"]))
    assert [row["job_id"] for row in (*first["jobs"], *rest["jobs"])] == ['3"x', "2", "1"]
    assert rest["next_cursor"] is None
    assert listed(capsys, server, "--limit", "1", "--all") == ['3"x', "2", "1"]


def test_rows_are_sums_over_nodes_in_every_form(
    server: GridServer, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ("jobs", "--from", server.url, "--since", "2h")
    rows = list(csv.DictReader(io.StringIO(ask(capsys, *base, "--csv"))))
    by_id = {row["job_id"]: row for row in rows}
    assert float(by_id["1"]["energy_kwh"]) == 1.5 and by_id["1"]["cost"] == ""
    assert float(by_id["1"]["held_device_hours"]) == 4
    assert by_id["2"]["user"] == "bob" and by_id["2"]["state"] == "ended"
    assert by_id["1"]["start"] == "2027-01-15T07:00:00Z"
    assert float(by_id["1"]["duration_s"]) == 99 * 15
    table = ask(capsys, *base)
    assert 'slurm/3"x' in table and "running" in table
    assert "Start and duration are as scraped: a job may be older" in table


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--account", "physics"), "no job in this span shows its account"),
        (("--user", "1001"), "by name, not by uid"),
        (("--cursor", "x"), "--cursor"),
        (("--since", "2030-01-01"), "--since"),
        (("--since", "yesterday"), "24h"),
        (("--match", "a b=c"), "LABEL=VALUE"),
        (("--tenant", "a b"), "--tenant"),
        (("--deadline", "0s"), "--deadline"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_a_sentence(
    server: GridServer,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    said: str,
) -> None:
    options = ("--from", server.url, *(() if "--since" in arguments else ("--since", "2h")))
    with_code = 1 if said.startswith(("no job", "by name")) else 2
    assert said in ask(capsys, "jobs", *options, *arguments, code=with_code)


def test_no_such_job(server: GridServer, capsys: pytest.CaptureFixture[str]) -> None:
    err = ask(capsys, "job", "99", "--from", server.url, "--since", "2h", code=1)
    assert "no job '99' was scraped since 2h" in err
    assert "goes with --from" in ask(capsys, "job", "1", "--tenant", "a", code=2)
    assert "goes with --from" in ask(capsys, "jobs", "--match", "a=b", code=2)


def test_a_job_id_is_quoted_and_matches_nothing_else(
    server: GridServer, api: FakeApi, capsys: pytest.CaptureFixture[str]
) -> None:
    told = json.loads(ask(capsys, "job", '3"x', "--from", server.url, "--since", "2h", "--json"))
    assert told["state"] == "running" and told["totals"]["energy_kwh"]["total"] == 0.5
    for wild in (".*", '1"} or {a="b', "1|2"):
        err = ask(capsys, "job", wild, "--from", server.url, "--since", "2h", code=1)
        assert "no job" in err


def test_waste_is_what_was_held_in_the_span(
    server: GridServer, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ("waste", "--from", server.url)
    told = json.loads(ask(capsys, *base, "--since", "2h", "--json"))
    rows = {row["group"]: row for row in told["rows"]}
    assert list(rows) == ["bob", "ann"], "the most energy first"
    assert rows["ann"]["held_gpu_hours"] == 8 and rows["ann"]["idle_time_share"] == 0.25
    assert rows["bob"]["held_kwh"] == 3 and rows["bob"]["held_idle_kwh"] == 3 * 9e4 / 3.6e6
    assert told["total"]["held_idle_gpu_hours"] == 2.5
    assert told["idle"] is None
    # Since it began, job 2 moved by what its counter did; those of the others had ended or not.
    late = json.loads(ask(capsys, *base, "--since", str(NOW_S - 3600 + 15 * 99), "--json"))
    rows = {row["group"]: row for row in late["rows"]}
    assert rows["bob"]["held_kwh"] == pytest.approx(1.5)
    assert rows["ann"]["held_kwh"] == pytest.approx(0.5)
    table = ask(capsys, *base, "--since", "2h")
    assert "bob" in table and "is not known; in no line above" in table
    assert "no job in this span shows its account" in ask(
        capsys, *base, "--since", "2h", "--by", "account", code=1
    )


# ── how it asks ─────────────────────────────────────────────────────────────────────────────────


def test_path_tenant_and_passwords(
    server: GridServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    token, pair = tmp_path / "token", tmp_path / "pair"
    for file, text in ((token, CANARY), (pair, f"ann:{CANARY}")):
        file.write_text(text)
        file.chmod(0o600)
    base = ("jobs", "--from", f"{server.url}/prometheus/", "--since", "2h", "--tenant", "lab-1")
    ask(capsys, *base, "--token-file", str(token))
    assert {request.target.partition("?")[0] for request in server.requests} == {
        "/prometheus/api/v1/query",
        "/prometheus/api/v1/query_range",
    }
    for request in server.requests:
        assert request.method == "GET"
        assert request.headers["x-scope-orgid"] == "lab-1"
        assert request.headers["authorization"] == f"Bearer {CANARY}"
        assert request.headers["accept-encoding"] == "identity"
        assert CANARY not in request.target
    server.requests.clear()
    ask(capsys, *base, "--basic-auth-file", str(pair))
    assert server.requests[0].headers["authorization"].startswith("Basic YW5uOmNhbmFye")
    assert "exclude" in ask(
        capsys, *base, "--basic-auth-file", str(pair), "--token-file", str(token), code=2
    )
    token.chmod(0o644)
    assert "chmod 600" in ask(capsys, *base, "--token-file", str(token), code=2)


def test_a_password_never_goes_over_plain_http_to_another_machine(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(CANARY)
    token.chmod(0o600)
    with pytest.raises(ConfigError, match="https") as caught:
        endpoint("http://prometheus:9090", token_file=token)
    assert CANARY not in str(caught.value)
    assert endpoint("https://prometheus:9090", token_file=token).where.scheme == "https"
    assert endpoint("http://prometheus").where[:3] == ("http", "prometheus", 80)
    for bad in (
        "prometheus:9090",
        "http://a:b@c",
        "http://a/?x=1",
        "ftp://a",
        "http://a b",
        "http:",
    ):
        with pytest.raises(ConfigError, match="--from"):
            endpoint(bad)


def test_redirects_are_not_followed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    token = tmp_path / "token"
    token.write_text(CANARY)
    token.chmod(0o600)
    with (
        GridServer(play.reply(body={})) as other,
        GridServer(play.reply(302, headers={"Location": f"{other.url}/x"})) as server,
    ):
        arguments = ("jobs", "--from", server.url, "--token-file", str(token))
        assert "redirects are never followed" in ask(capsys, *arguments, code=1)
        assert other.requests == []


# ── partial and hostile replies ─────────────────────────────────────────────────────────────────


def test_a_partial_answer_says_so_in_every_form(
    api: FakeApi, capsys: pytest.CaptureFixture[str]
) -> None:
    thanos = served(api, warnings=["store gpu-b: connection\x1b[31m refused", "x" * 900])
    with GridServer(thanos) as server:
        base = ("--from", server.url, "--since", "2h")
        told = json.loads(ask(capsys, "job", "1", *base, "--json"))
        assert told["partial"] is True and len(told["warnings"]) == 2
        assert "\x1b" not in "".join(told["warnings"]) and len(told["warnings"][1]) < 400
        text = ask(capsys, "job", "1", *base)
        assert "MISSING: the API answered in part: store gpu-b" in " ".join(text.split())
        assert "answered in part: store gpu-b" in ask(capsys, "jobs", *base)
        assert main(["jobs", *base, "--csv"]) == 0
        assert "answered in part: store gpu-b" in capsys.readouterr().err
    with GridServer(served(api, isPartial=True)) as server:
        text = ask(capsys, "jobs", "--from", server.url, "--since", "2h")
        assert "isPartial" in text
    with GridServer(served(api, isPartial=False, warnings=[], infos=["a counter?"])) as server:
        told = json.loads(ask(capsys, "jobs", "--from", server.url, "--since", "2h", "--json"))
        assert told["partial"] is False


def scalar(text: str) -> dict[str, Any]:
    return {"status": "success", "data": {"resultType": "scalar", "result": [0, text]}}


def refusal(status: int, error: str) -> Script:
    body = {"status": "error", "errorType": "execution", "error": error}
    return play.reply(status, body=body)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (refusal(422, "query processing would load too many samples"), "too many samples"),
        (refusal(503, "TSDB not ready"), "try again"),
        (refusal(400, "invalid parameter"), "invalid parameter"),
        (refusal(429, "too many outstanding requests"), "limit"),
        (refusal(401, "no org id"), "--tenant"),
        (refusal(404, "x" * 100_000), "path of the API"),
        (play.reply(500, body=b"\xff\xfe"), "status 500"),
        (play.reply(200, body={"status": "error", "error": "query timed out"}), "timed out"),
        (play.reply(200, body=b"<html>"), "not JSON"),
        (play.reply(200, body=[]), "no JSON object"),
        (play.reply(200, body={"status": "success", "data": {"resultType": "matrix"}}), "scalar"),
        (play.reply(200, body=scalar("NaN")), "not a number"),
        (play.reply(200, body=scalar("1e300")), "not a number"),
        (play.reply(200, body=scalar("2e10")), "its time"),
    ],
)
def test_refusals_and_rubbish_end_in_a_sentence(
    script: Script, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with GridServer(script) as server:
        err = ask(capsys, "jobs", "--from", server.url, code=1)
    assert said in err
    assert len(err) < 1500


@pytest.mark.parametrize(
    "row",
    [
        {"metric": {"epoch": 7}, "value": [0, "1"]},
        {"metric": {}, "value": [0, "-1"]},
        {"metric": {}, "value": [0, "+Inf"]},
        {"metric": {}, "value": [0, 1]},
        {"metric": {}, "value": [None, "1"]},
        {"metric": {}, "value": "1"},
        {"value": [0, "1"]},
        "series",
    ],
)
def test_series_that_are_none_are_refused(row: Any, capsys: pytest.CaptureFixture[str]) -> None:
    now = scalar(str(NOW_S))
    bad = {"status": "success", "data": {"resultType": "vector", "result": [row]}}
    with GridServer(play.in_turn(play.reply(body=now), play.reply(body=bad))) as server:
        err = ask(capsys, "jobs", "--from", server.url, code=1)
    assert "not that of a Prometheus API" in err


def test_the_deadline_is_of_all_questions_together() -> None:
    clock = iter([0.0, 1.0, 5.0])
    now = scalar("1")
    with GridServer(play.reply(body=now)) as server:
        where = endpoint(server.url)
        with closing(Door(where, deadline_s=4.0, monotonic=lambda: next(clock))) as door:
            door.query("time()")
            with pytest.raises(WattledgerError, match="within 4 s"):
                door.query("time()")
    assert len(server.requests) == 1


def test_slow_and_endless_replies_end() -> None:
    with (
        GridServer(play.drip_body()) as server,
        closing(Door(endpoint(server.url), deadline_s=0.4)) as door,
        pytest.raises(WattledgerError, match="in full within"),
    ):
        door.query("time()")
    with GridServer(play.reply(body=b" " * 100_000)) as server:
        with (
            closing(Door(endpoint(server.url), max_bytes=50_000)) as door,
            pytest.raises(WattledgerError, match="more than 50000 bytes") as caught,
        ):
            door.query("time()")
        assert "--since" in caught.value.hint
