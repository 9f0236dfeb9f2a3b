"""`--from` against an API that is broken or hostile, or that hangs up: never a traceback."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

import grid_server as play
from grid_server import GridServer, Request
from prometheus_fake import FakeApi
from wattledger.cli import main
from wattledger.errors import WattledgerError
from wattledger.fleet.door import MAX_BYTES, Door, endpoint
from wattledger.fleet.reply import parsed

NOW_S = 1_700_000_500
AT_S = 1_700_000_000
JOB = {"manager": "slurm", "job_id": "1", "instance": "n:1"}
COMMANDS = (["jobs"], ["jobs", "--json"], ["job", "1"], ["job", "1", "--line"], ["waste"])
Answer = Callable[[str, str], Any]
OWN = {
    "energy": {"kind": "gpu"},
    "co2e": {"basis": "lifecycle"},
    "water": {"origin": "grid"},
    "job_info": {"user": "ann"},
    "payee": {"kind": "gpu", "payee": "idle"},
    "ledger_info": {"epoch": "a"},
}


def answer(query: str, path: str) -> Any:
    """As an API does that holds one job on one node, roughly."""
    if query == "time()":
        return {"resultType": "scalar", "result": [NOW_S, str(NOW_S)]}
    own = next((labels for name, labels in OWN.items() if name in query), {})
    labels = {"instance": "n:1", **own} if "ledger_info" in query else {**JOB, **own}
    if path.endswith("query_range") or (query.startswith("wattledger_") and query.endswith("]")):
        return {"resultType": "matrix", "result": [{"metric": labels, "values": [[AT_S, "1"]]}]}
    value = str(AT_S) if "timestamp(" in query else "2"
    return {"resultType": "vector", "result": [{"metric": labels, "value": [AT_S, value]}]}


def served(answered: Answer) -> play.Script:
    def play_it(connection: socket.socket, request: Request, stop: threading.Event) -> None:
        parts = urlsplit(request.target)
        data = answered(dict(parse_qsl(parts.query))["query"], parts.path)
        body = json.dumps({"status": "success", "data": data}).encode()
        connection.sendall(play.message(200, body, {"Connection": "close"}))

    return play_it


def told(
    capsys: pytest.CaptureFixture[str], answered: Answer, command: list[str]
) -> tuple[int, str, str]:
    with GridServer(served(answered)) as server:
        code = main([*command, "--from", server.url])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_the_rough_api_is_understood(
    capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    code, out, err = told(capsys, answer, command)
    assert (code, err) == (0, "") and out


def with_time(at_s: float) -> Answer:
    """Every sample of a matrix and of a vector is of that time."""

    def answered(query: str, path: str) -> Any:
        data = answer(query, path)
        for row in data["result"] if query != "time()" else ():
            row["values" if "values" in row else "value"] = (
                [[at_s, "1"]] if "values" in row else [at_s, row["value"][1]]
            )
        return data

    return answered


def with_value(value: str, where: str = "") -> Answer:
    """Every value of a vector is that, where a question has `where` in it."""

    def answered(query: str, path: str) -> Any:
        data = answer(query, path)
        if data["resultType"] == "vector" and where in query:
            data["result"][0]["value"][1] = value
        return data

    return answered


def two_times(query: str, path: str) -> Any:
    if query != "time()":
        return answer(query, path)
    row = {"metric": {}, "value": [NOW_S, str(NOW_S)]}
    return {"resultType": "vector", "result": [row, row]}


BAD = {
    "two times": two_times,
    "a time beyond all": with_time(1e300),
    "a time of 400 digits": with_time(10**400),
    "a time before all": with_time(-1.0),
    "a value beyond all": with_value("1e308"),
    "a timestamp beyond all": with_value("1e20", "timestamp("),
}


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("bad", BAD)
def test_what_cannot_be_ends_in_a_sentence(
    capsys: pytest.CaptureFixture[str], bad: str, command: list[str]
) -> None:
    code, out, err = told(capsys, BAD[bad], command)
    if "timestamp" in bad and command[0] != "jobs":
        assert code == 0, "only the list asks for it"
        return
    assert code == 1 and out == ""
    assert err.startswith("wattledger: the reply is not that of a Prometheus API: ")


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("value", ["9e23", "1e-300", "0", "-0.0"])
def test_what_is_only_strange_is_told(
    capsys: pytest.CaptureFixture[str], value: str, command: list[str]
) -> None:
    code, out, _ = told(capsys, with_value(value, "_total"), command)
    assert code == 0 and out


@pytest.mark.parametrize(
    ("metric", "label", "value"),
    [("energy", "kind", "nic"), ("co2e", "basis", ""), ("co2e", "basis", "moon"),
     ("water", "origin", "sea")],
)  # fmt: skip
def test_a_label_of_another_version_is_named_and_not_counted(
    capsys: pytest.CaptureFixture[str], metric: str, label: str, value: str
) -> None:
    def answered(query: str, path: str) -> Any:
        data = answer(query, path)
        if metric in query and data["resultType"] == "vector":
            known = data["result"][0]
            strange = {**known["metric"], label: value}
            data["result"].append({"metric": strange, "value": [AT_S, "5"]})
        return data

    code, out, _ = told(capsys, answered, ["job", "1", "--json"])
    assert code == 0
    found = json.loads(out)
    (node,) = found["nodes"]
    assert found["totals"] == node["totals"] and node["share"] == 1
    assert found["totals"]["energy_kwh"]["total"] == 2 and found["totals"]["co2e_g"] == 2
    assert any(f'{label}="{value}"' in text for text in found["missing"])
    code, out, _ = told(capsys, answered, ["jobs", "--json"])
    listed = json.loads(out)
    assert any(f'{label}="{value}"' in text for text in listed["missing"])
    assert told(capsys, answered, ["job", "1"])[0] == 0


def test_co2e_of_no_known_basis_is_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    def answered(query: str, path: str) -> Any:
        data = answer(query, path)
        if "co2e" in query:
            data["result"][0]["metric"]["basis"] = "moon"
        return data

    code, out, _ = told(capsys, answered, ["job", "1"])
    assert code == 0 and "CO2e      unknown" in out


@pytest.mark.parametrize(
    "bulk", [b"{}," * 500_000, b"[]," * 2_100_000, b"1," * 4_100_000, b"[" * 2_100_000]
)
def test_what_would_not_fit_into_memory_is_not_read(bulk: bytes) -> None:
    with pytest.raises(WattledgerError, match="far more parts"):
        parsed(b'{"status": "success", "data": [' + bulk + b"0]}")


def test_as_many_samples_as_a_reply_may_bring_are_read() -> None:
    row = {"metric": {"instance": "n"}, "values": [[AT_S + 15 * n, "1234567"] for n in range(1000)]}
    data = {"resultType": "matrix", "result": [row] * 1400}
    body = json.dumps({"status": "success", "data": data}, separators=(",", ":")).encode()
    assert 0.9 * MAX_BYTES < len(body) < MAX_BYTES
    assert len(parsed(body)["data"]["result"]) == 1400


# ── connections ─────────────────────────────────────────────────────────────────────────────────


class Keeping(ThreadingHTTPServer):
    """Keeps connections, and closes each after so many answers without a word before."""

    def __init__(self, answers: int) -> None:
        self.api = FakeApi(NOW_S)
        self.connections = self.asked = 0

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            server: Keeping

            def setup(self) -> None:
                self.server.connections += 1
                self.left = answers
                super().setup()

            def do_GET(self) -> None:
                if not self.left:  # the question came, and the connection goes
                    self.close_connection = True
                    return
                self.left -= 1
                self.server.asked += 1
                body = self.server.api.reply(self.path)
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                del args

        super().__init__(("127.0.0.1", 0), Handler)

    def __enter__(self) -> Keeping:
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *args: object) -> None:
        self.shutdown()
        self.server_close()


@pytest.mark.parametrize(("answers", "connections"), [(100, 1), (2, 3)])
def test_one_connection_serves_all_questions_as_long_as_it_is_kept(
    answers: int, connections: int
) -> None:
    with Keeping(answers) as server:
        with closing(Door(endpoint(f"http://127.0.0.1:{server.server_address[1]}"))) as door:
            for _ in range(5):
                door.query("time()")
        assert (server.connections, server.asked) == (connections, 5)


def test_an_api_that_only_hangs_up_is_asked_no_more_than_twice(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Keeping(1) as server:
        url = f"http://127.0.0.1:{server.server_address[1]}"
        with closing(Door(endpoint(url))) as door:
            door.query("time()")
            door.query("time()")
        assert server.connections == 2
    with GridServer(play.raw(b"")) as silent:
        assert main(["jobs", "--from", silent.url]) == 1
    assert "does not speak HTTP" in capsys.readouterr().err
    assert len(silent.requests) == 1
