"""A relay that is started again: it asks no sooner, and has not forgotten what it was told."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from fakes import FakeClock
from grid_feeds import T0
from relays import Upstream, relayed
from wattledger.config import parse_config
from wattledger.errors import ListenError
from wattledger.grid.outcome import Outcome
from wattledger.relay.command import Relay
from wattledger.relay.memory import FILE, Memory, memory_path
from wattledger.relay.places import Place, places_of
from wattledger.units import NS_PER_S

LATEST, FORECAST = "/grid/v1/latest?zone=GB", "/grid/v1/forecast?zone=GB"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / FILE


def restart(clock: FakeClock, boot_id: str | None, seconds: float) -> None:
    if boot_id is None:
        clock.advance(seconds)
    else:
        clock.reboot(f"{boot_id} at {clock.wall_ns}", seconds)


@pytest.mark.parametrize("boot_id", [None, "boot-2"])
def test_a_restart_asks_no_sooner_and_keeps_the_last_good(path: Path, boot_id: str | None) -> None:
    clock, upstream = FakeClock(), Upstream()
    with relayed(upstream, clock=clock, memory=Memory(path, clock)) as served:
        before = served.json(LATEST)
    for _ in range(3):
        restart(clock, boot_id, 25)  # the next period is asked for 90 s after its start
        with relayed(upstream, clock=clock, memory=Memory(path, clock)) as served:
            told = served.json(LATEST)
            assert told["signals"] == before["signals"] and told["fresh"]
    assert upstream.asked_at == [T0]
    clock.advance(1800)
    with relayed(upstream, clock=clock, memory=Memory(path, clock)):
        assert len(upstream.asked_at) == 2


@pytest.mark.parametrize("boot_id", [None, "boot-2"])
@pytest.mark.parametrize("known", [True, False])
def test_a_pause_that_was_asked_for_outlives_the_relay(
    path: Path, boot_id: str | None, known: bool
) -> None:
    clock, upstream = FakeClock(), Upstream()
    if known:
        with relayed(upstream, clock=clock, memory=Memory(path, clock)):
            clock.advance(2 * 1800)
    asked = len(upstream.asked_at)
    upstream.error, upstream.retry_after_s = Outcome.HTTP_429, 3600.0
    for mark in ("", "", "other settings"):
        with relayed(upstream, clock=clock, memory=Memory(path, clock), mark=mark) as served:
            assert served.get(LATEST).status == (200 if known else 503)
            if not known:
                assert "out" in json.loads(served.get(LATEST).body)["hint"]
            assert served.get(FORECAST).status == 503
        restart(clock, boot_id, 600)
    assert (len(upstream.asked_at), upstream.forecasts) == (asked + 1, 0)
    restart(clock, boot_id, 3600 - 3 * 600 + 60)
    with relayed(upstream, clock=clock, memory=Memory(path, clock)):
        assert len(upstream.asked_at) == asked + 2


def test_a_token_that_was_mended_is_tried_at_once(path: Path) -> None:
    clock, upstream = FakeClock(), Upstream()
    upstream.error = Outcome.HTTP_401
    for mark, asked in (("a", 1), ("a", 1), ("b", 2)):
        with relayed(upstream, clock=clock, memory=Memory(path, clock), mark=mark) as served:
            assert served.get(FORECAST).status == 503 and upstream.forecasts == 0
        assert len(upstream.asked_at) == asked
        clock.advance(5)


def test_the_mark_of_a_source_follows_its_settings_and_its_token(tmp_path: Path) -> None:
    token = tmp_path / "token"

    def mark(secret: str, zone: str = "DE") -> str:
        token.write_text(secret)
        text = f'kind = "electricity_maps"\nzone = "{zone}"\ntoken_file = "{token}"\n'
        [place] = places_of(parse_config("[[grid.source]]\n" + text), FakeClock()).values()
        return place.upstreams[0].mark

    assert mark("one") == mark("one") != mark("two")
    assert mark("one") != mark("one", "FR")
    assert "one" not in mark("one")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"version":1}', '{"version":1,"boot_id":"x","sources":[{}]}', "null"]
)
def test_a_file_that_is_broken_costs_a_request_and_no_more(
    path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    path.write_text(text)
    clock, upstream = FakeClock(), Upstream()
    with relayed(upstream, clock=clock, memory=Memory(path, clock)) as served:
        assert served.json(LATEST)["fresh"]
    assert len(upstream.asked_at) == 1 and len(caplog.messages) >= 1
    assert Memory(path, clock).kept, "and is whole again"


def test_what_is_kept_cannot_hold_a_source_off_for_more_than_a_day(path: Path) -> None:
    clock, upstream = FakeClock(), Upstream()
    with relayed(upstream, clock=clock, memory=Memory(path, clock)):
        pass
    told = json.loads(path.read_text())
    assert path.stat().st_mode & 0o777 == 0o600
    told["sources"][0]["due_ns"] = 2**62
    path.write_text(json.dumps(told))
    [kept] = Memory(path, clock).kept.values()
    assert kept.due_ns - clock.boottime_ns == 86_400 * NS_PER_S


def test_a_place_that_takes_nothing_does_not_stop_the_relay(tmp_path: Path) -> None:
    clock, upstream = FakeClock(), Upstream()
    memory = Memory(tmp_path / "missing" / FILE, clock)
    with relayed(upstream, clock=clock, memory=memory) as served:
        assert served.json(LATEST)["fresh"]


def test_who_cannot_listen_asks_nobody(path: Path) -> None:
    clock, upstream = FakeClock(), Upstream()
    place = Place("GB", [upstream], clock, max_age_ns=10**13)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        relay = Relay({"GB": place}, clock, listen=f"127.0.0.1:{port}")
        with pytest.raises(ListenError):
            relay.start(0.5)
    assert upstream.asked_at == []


def test_systemd_says_where(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    assert memory_path() is None
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))
    assert memory_path() == tmp_path / "state" / FILE
    monkeypatch.setenv("RUNTIME_DIRECTORY", f"{tmp_path / 'run'}:/other")
    assert memory_path() == tmp_path / "run" / FILE
