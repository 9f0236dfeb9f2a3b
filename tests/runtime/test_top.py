"""`wattledger top`: what the node draws, by device and by job."""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import snapshots
from asking import ALICE, BOB, Asker
from serving import serving
from wattledger.cli import main
from wattledger.errors import DaemonUnreachable
from wattledger.remote import Refused, Remote
from wattledger.top.screen import MOST_JOBS, drawn, first_look, look_again
from wattledger.top.view import view


class Asked(Remote):
    """The API over a fake daemon, asked by a user; `down` while nobody answers."""

    def __init__(self, uid: int = 0) -> None:
        super().__init__([])
        self.asker = Asker()
        self.uid = uid
        self.down = False
        self.paths: list[str] = []

    def request(
        self,
        path: str,
        query: Mapping[str, str] | None = None,
        method: str = "GET",
        timeout_s: float | None = None,
    ) -> Any:
        self.paths.append(path)
        if self.down:
            raise DaemonUnreachable("no running daemon found", "start it")
        more = "&".join(f"{name}={value}" for name, value in (query or {}).items())
        status, answer = self.asker.ask(f"{path}?{more}" if more else path, self.uid)
        if status >= 400:
            raise Refused(status, answer["error"])
        return answer

    def commit(self) -> None:
        state = self.asker.daemon.state
        assert state is not None
        books = replace(state.books, commits=state.books.commits + 1)
        self.asker.daemon.state = replace(state, books=books)


def seen_by(uid: int) -> dict[str, Any]:
    seen = first_look(Asked(uid))
    return view(seen.status, seen.jobs)


def text(shown: Mapping[str, Any], lines: int | None = None, width: int = 160) -> str:
    out = io.StringIO()
    Console(file=out, width=width, highlight=False).print(drawn(shown, lines))
    return out.getvalue()


def test_power_by_kind_is_that_of_the_devices_which_are_there() -> None:
    shown = seen_by(0)
    watts = {"gpu": 0.0, "cpu": 0.0, "dram": 0.0, "other": 0.0}
    for device in shown["devices"]:
        watts[device["kind"]] += device["power_w"]
    assert shown["power_w"] == {**watts, "total": pytest.approx(sum(watts.values()))}
    kinds = [device["kind"] for device in shown["devices"]]
    assert kinds == ["gpu"] * 3 + ["cpu"] * 2 + ["dram"] * 2 + ["other"]
    assert snapshots.GPU.format(3) not in [device["device"] for device in shown["devices"]], "gone"
    grams = shown["power_w"]["total"] / 1000 * 1.56 * 400.5
    assert shown["co2e_g_per_h"] == pytest.approx(grams)


def test_who_holds_a_device_and_what_jobs_draw() -> None:
    shown = seen_by(0)
    held = {device["device"]: device["held_by"] for device in shown["devices"]}
    assert held[snapshots.GPU.format(0)] == [{"job": "slurm/4711", "share": 0.5, "exact": False}]
    assert held["cpu0"] == []
    assert [job["job_id"] for job in shown["jobs"]] == ["4711", "4713", "4712"]
    first = shown["jobs"][0]
    assert (first["power_w"], first["user"]) == (350.0, "user1001")
    assert first["held_idle_share"] == 0.25
    said = text(shown)
    assert "slurm/4711 about 50%" in said and "350.0" in said
    assert "CO2e" in said and "400.5 g/kWh, neso GB (lifecycle), PUE 1.56" in said


def test_a_user_sees_what_they_may() -> None:
    shown = seen_by(BOB)
    assert [job["job_id"] for job in shown["jobs"]] == ["4712"]
    assert shown["restricted_to_uid"] == BOB
    said = text(shown)
    assert "4711" not in said and f"Jobs of uid {BOB} only." in said
    assert not any(d["held_by"] for d in shown["devices"] if d["device"] == snapshots.GPU.format(0))
    assert f"No job of uid {ALICE + 9} runs." in text(seen_by(ALICE + 9))


def test_what_is_not_known_is_not_0() -> None:
    asked = Asked()
    state = asked.asker.daemon.state
    assert state is not None
    asked.asker.daemon.state = replace(state, power_uw={}, job_power_uw={})
    seen = first_look(asked)
    shown = view(seen.status, seen.jobs)
    assert shown["power_w"] == {"total": None} and shown["co2e_g_per_h"] is None
    assert shown["jobs"][0]["power_w"] is None
    assert "power  not known" in text(shown)


def test_jobs_are_asked_for_with_a_commit_only() -> None:
    asked = Asked()
    seen = first_look(asked)
    assert look_again(asked, seen) is seen
    assert asked.paths.count("/api/v1/jobs") == 1
    asked.commit()
    later = look_again(asked, seen)
    assert later is not seen and asked.paths.count("/api/v1/jobs") == 2
    assert asked.asker.daemon.queries[-1].state == "running"


def test_a_daemon_that_stops_and_comes_back() -> None:
    asked = Asked()
    seen = first_look(asked)
    asked.down = True
    gone = look_again(asked, seen)
    assert "does not answer" in gone.trouble and gone.jobs is seen.jobs
    assert look_again(asked, gone) is gone, "said once"
    out = io.StringIO()
    Console(file=out, width=160).print(drawn(view(gone.status, gone.jobs), 30, gone.trouble))
    assert "does not answer" in out.getvalue() and "4711" in out.getvalue()
    asked.down = False
    assert look_again(asked, gone).trouble == ""


@pytest.mark.parametrize("lines", [1, 5, 24, 60])
def test_it_fits_the_terminal(lines: int) -> None:
    """However many devices and jobs there are, and whatever they are called."""
    shown = seen_by(0)
    shown["devices"] = [{**shown["devices"][0], "device": f"GPU-{n}"} for n in range(64)]
    name = "\x1b[2J\n" + "x" * 1000
    shown["jobs"] = [{**shown["jobs"][0], "job_id": f"{n}{name}"} for n in range(300)]
    said = text(shown, lines, width=80)
    assert len(said.splitlines()) <= max(lines, 15)
    assert "\x1b" not in said and "more devices" in said and "more; `wattledger jobs" in said
    if lines >= 24:
        assert "0\\x1b" in said, "at least one job"


def test_more_jobs_than_are_asked_for() -> None:
    asked = Asked()
    (one, *_) = asked.asker.daemon.books
    payee = one.run.payee
    asked.asker.daemon.books = [
        replace(one, run=replace(one.run, payee=payee._replace(job_id=str(n))))
        for n in range(MOST_JOBS + 1)
    ]
    seen = first_look(asked)
    shown = view(seen.status, seen.jobs)
    assert len(shown["jobs"]) == MOST_JOBS and shown["more_jobs"]
    assert f"those {MOST_JOBS:,} that used most; there are more" in text(shown)


def test_a_jobless_node_over_a_real_socket(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "s.sock"
    with serving(path) as served:
        assert main(["top", "--once", "--socket", str(path)]) == 0
        assert "wattledger top" in capsys.readouterr().out
        served.daemon.books.clear()
        assert main(["top", "--socket", str(path)]) == 0, "into a pipe: once"
        said = capsys.readouterr().out
        assert "No job runs." in said and "H100" not in said and "cpu0" in said
        assert main(["top", "--json", "--socket", str(path)]) == 0
        answer = json.loads(capsys.readouterr().out)
        assert answer["jobs"] == [] and answer["power_w"]["total"] > 0
    assert main(["top", "--once", "--socket", str(path)]) == 1
    assert "no running daemon" in capsys.readouterr().err


def test_a_simulation_says_so() -> None:
    shown = copy.deepcopy(seen_by(0))
    shown |= {"simulated": "eight-h100", "released_until": "2027-01-15T08:15:00Z"}
    assert "SIMULATED (eight-h100), GPUs released until 2027-01-15T08:15:00Z" in text(shown)
