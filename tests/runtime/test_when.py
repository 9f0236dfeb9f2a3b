"""`wattledger when` against a provider that plays forecasts."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import grid_bodies as bodies
import grid_server as play
from documents import chosen, commands, fits
from grid_feeds import T0
from grid_server import GridServer, Request
from relays import Upstream, relayed
from wattledger.alternatives.sources import sources_of
from wattledger.alternatives.when_command import when_command
from wattledger.cli import _parser, main
from wattledger.config import Config, load_config
from wattledger.config.grid_settings import GridSettings, GridSource
from wattledger.errors import ConfigError, WattledgerError

NS = 10**9
NOW_S = 1_516_449_600 + 600  # 2018-01-20T12:10Z


def neso(levels: list[int], first_s: int = 1_516_449_600) -> dict[str, Any]:
    """`/intensity/{from}/fw48h`: half hours."""

    def at(number: int) -> str:
        when = datetime.fromtimestamp(first_s + 1800 * number, UTC)
        return when.strftime("%Y-%m-%dT%H:%MZ")

    rows = [
        {"from": at(n), "to": at(n + 1), "intensity": {"forecast": level, "actual": None}}
        for n, level in enumerate(levels)
    ]
    return {"data": rows}


DAY = [200] * 20 + [80, 60, 60, 100] + [300] * 72  # cleanest: 22:00 to 24:00


def settings(tmp_path: Path, *sources: str, zone: str = "GB") -> str:
    path = tmp_path / "when.toml"
    tables = "".join(f"[[grid.source]]\n{source}\n" for source in sources)
    path.write_text(f'[site]\nzone = "{zone}"\npue = 1.25\n{tables}')
    return str(path)


def source(kind: str, server: GridServer, more: str = "") -> str:
    return f'kind = "{kind}"\nurl = "{server.url}"\n{more}'


def ask(config: str, *arguments: str, now_s: int = NOW_S) -> int:
    options = _parser().parse_args(["when", "--config", config, *arguments])
    return when_command(options, load_config(options.config), lambda: now_s * NS)


def found(
    capsys: pytest.CaptureFixture[str], config: str, *arguments: str, now_s: int = NOW_S
) -> dict[str, Any]:
    assert ask(config, *arguments, "--json", now_s=now_s) == 0
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


def test_the_cleanest_window(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with GridServer(play.reply(body=neso(DAY))) as server:
        config = settings(tmp_path, source("neso", server))
        answer = found(capsys, config, "--hours", "2", "--power", "1000")
        assert server.requests[0].target == "/intensity/2018-01-20T12:10Z/fw48h"
        assert ask(config, "--hours", "2", "--power", "1000") == 0
        table = capsys.readouterr().out

    cleanest, now = answer["cleanest"], answer["now"]
    assert (cleanest["start"], cleanest["end"]) == ("2018-01-20T22:00:00Z", "2018-01-21T00:00:00Z")
    assert cleanest["intensity_g_per_kwh"] == 75 and cleanest["starts_in_s"] == 35_400
    assert (now["start"], now["intensity_g_per_kwh"]) == ("2018-01-20T12:10:00Z", 200)
    # 2 kWh of IT energy × PUE 1.25 × 75 g/kWh
    assert (cleanest["co2e_ug"], now["co2e_ug"]) == ("187500000", "500000000")
    assert answer["difference_percent"] == -62.5
    told = ("neso", "GB", "generation", False, 0, 1800)
    keys = ("source", "zone", "basis", "marginal", "age_s", "period_s")
    assert tuple(answer[name] for name in keys) == told
    assert answer["forecast_until"] == "2018-01-22T12:00:00Z" and answer["whole_time_known"]
    assert answer["skipped"] == []
    assert "-62.5 %" in table and "Start in 9h50m, at 2018-01-20T22:00:00Z." in table
    assert "Forecast of neso for GB (generation)" in table and "2 kWh" in table.replace(".000", "")


def test_a_window_need_not_begin_with_a_period(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """45 minutes around the cleanest half hour take the cheaper neighbour."""
    with GridServer(play.reply(body=neso([500, 500, 90, 50, 400, 500]))) as server:
        config = settings(tmp_path, source("neso", server))
        answer = found(capsys, config, "--hours", "0.75", "--within", "2h")
    assert answer["cleanest"]["start"] == "2018-01-20T13:15:00Z"
    assert answer["cleanest"]["end"] == "2018-01-20T14:00:00Z"
    assert answer["cleanest"]["intensity_g_per_kwh"] == pytest.approx((90 * 15 + 50 * 30) / 45)


def test_within_is_where_it_ends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with GridServer(play.reply(body=neso(DAY))) as server:
        config = settings(tmp_path, source("neso", server))
        answer = found(capsys, config, "--hours", "2", "--within", "10h")
        assert answer["cleanest"]["end"] == "2018-01-20T22:10:00Z"
        assert ask(config, "--hours", "2", "--within", "5h") == 0
    assert "Start now: nothing ahead is cleaner." in capsys.readouterr().out


def test_a_forecast_that_ends_early_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with GridServer(play.reply(body=neso([300, 200, 100, 90]))) as server:
        config = settings(tmp_path, source("neso", server))
        answer = found(capsys, config, "--hours", "1")
        assert not answer["whole_time_known"]
        assert answer["cleanest"]["end"] == answer["forecast_until"] == "2018-01-20T14:00:00Z"
        assert ask(config, "--hours", "1") == 0
        assert "ends before the time asked for" in capsys.readouterr().out
        with pytest.raises(WattledgerError, match="covers no 4h within 1d") as caught:
            ask(config, "--hours", "4")
    assert "up to 2018-01-20T14:00:00Z" in caught.value.message and caught.value.hint


def marginal(connection: Any, request: Request, stop: Any) -> None:
    body: Any = bodies.watttime(1000, 1000, 400, 400, 400)
    if request.target == "/login":
        body = {"token": "canary.token"}
    play.reply(body=body)(connection, request, stop)


def test_marginal_signals_are_for_this_and_say_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    password = tmp_path / "password"
    password.write_text("canary\n")
    password.chmod(0o600)
    more = f'zone = "CAISO_NORTH"\nuser = "site"\ntoken_file = "{password}"'
    with GridServer(marginal) as server, GridServer(play.reply(503)) as broken:
        config = settings(
            tmp_path, source("neso", broken), source("watttime", server, more), zone="GB"
        )
        options = ("--hours", "0.25", "--within", "1h")
        at = 1_657_843_200  # 2022-07-15T00:00Z
        assert ask(config, *options, "--json", now_s=at) == 0
        answer = json.loads(capsys.readouterr().out)
        assert ask(config, *options, "--source", "watttime", now_s=at) == 0
        table = capsys.readouterr().out
    assert (answer["source"], answer["zone"]) == ("watttime", "CAISO_NORTH")
    assert answer["basis"] == "marginal" and answer["marginal"]
    assert answer["cleanest"]["start"] == "2022-07-15T00:10:00Z"
    assert answer["cleanest"]["intensity_g_per_kwh"] == pytest.approx(181.436948)
    # The other source's basis is another: it was skipped as a whole, and why is told.
    (skipped,) = answer["skipped"]
    assert skipped["source"] == "neso" and "503" in skipped["message"]
    assert "MARGINAL" in table and "neso" not in table and "canary" not in table


def test_another_zone_asks_the_same_api(tmp_path: Path) -> None:
    with GridServer(play.reply(body=neso(DAY))) as server:
        config = settings(tmp_path, source("neso", server))
        with pytest.raises(WattledgerError, match="asked for GB-13") as caught:
            ask(config, "--hours", "1", "--zone", "GB-13")
        assert server.requests[0].target.endswith("/fw48h/regionid/13")
    assert caught.value.hint


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (play.reply(401), "401"),
        (play.reply(429), "429"),
        (play.reply(body={}), "no data"),
        (play.reply(body=b"{"), "not JSON"),
        (play.reset(), "no connection"),
        (play.reply(body=neso([-1, -1])), "plausible"),
        (play.reply(body=neso([10], first_s=1_500_000_000 // 1800 * 1800)), "past"),
        (play.reply(302, headers={"Location": "http://127.0.0.1/"}), "302"),
    ],
)
def test_a_source_that_gives_none(script: Any, said: str, tmp_path: Path) -> None:
    with GridServer(script) as server:
        config = settings(tmp_path, source("neso", server))
        with pytest.raises(WattledgerError, match="no forecast for GB: neso") as caught:
            ask(config, "--hours", "1")
    assert said in caught.value.message and caught.value.hint


def test_the_command_at_this_moment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As people call it, with the machine's own clock: it has half a day to the clean hours."""
    first_s = int(time.time()) // 1800 * 1800
    levels = [200] * 24 + [20] * 8 + [200] * 60
    with GridServer(play.reply(body=neso(levels, first_s))) as server:
        config = settings(tmp_path, source("neso", server))
        assert main(["when", "--hours", "4", "--within", "24h", "--config", config, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    start = datetime.fromisoformat(answer["cleanest"]["start"]).timestamp()
    assert start == first_s + 24 * 1800
    assert answer["cleanest"]["intensity_g_per_kwh"] == 20
    assert answer["age_s"] <= 60


def test_no_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bare = settings(tmp_path, zone="WORLD")
    assert main(["when", "--hours", "1", "--config", bare]) == 1
    said = capsys.readouterr().err
    assert "no live source of WORLD" in said and "--zone GB" in said
    # Of France's own, which has none, and of the other, that cannot be had here, both are told.
    path = Path(bare)
    path.write_text(path.read_text() + '[grid]\nproxy = "http://127.0.0.1:9"\n')
    assert main(["when", "--hours", "1", "--zone", "FR", "--config", bare]) == 1
    said = capsys.readouterr().err
    assert "rte: publishes no forecast; energy_charts: " in said and "refused" in said


LISTED = '[[grid.source]]\nkind = "{}"\nzone = "{}"\n{}'
RELAY = LISTED.format("wattledger", "GB", 'url = "http://127.0.0.1:9"\n')


@pytest.mark.parametrize(
    ("site", "listed", "zone", "names"),
    [
        ("FR", "", "", ["rte", "energy_charts"]),
        ("WORLD", "", "FR", ["rte", "energy_charts"]),
        ("FR", LISTED.format("rte", "FR", ""), "", ["rte", "energy_charts"]),
        ("DE", "", "", ["energy_charts"]),
        ("GB", "", "", ["neso"]),
        ("ES", "", "", ["energy_charts"]),  # not one of those that the books use unasked
        ("FR", "[grid]\nsource = []\n", "", []),  # whoever wants none is given none
        ("FR", "[grid]\nsource = []\n", "GB", ["neso"]),
        ("WORLD", "", "", []),
        ("GB", RELAY, "", ["wattledger", "neso"]),
        ("GB", RELAY, "FR", ["wattledger", "rte", "energy_charts"]),
    ],
)
def test_whoever_can_forecast_is_asked(
    site: str, listed: str, zone: str, names: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "c.toml"
    path.write_text(f'[site]\nzone = "{site}"\n{listed}')
    found = sources_of(load_config(path), zone, "", "--source", ahead=True)
    assert [source.name for source in found] == names
    assert {source.zone for source in found} <= {zone or site}
    kept = sources_of(load_config(path), zone, "", "--source")
    assert [source.name for source in kept] == names[: len(kept)]


def test_a_fault_is_of_the_source_as_the_user_counts_them() -> None:
    """A zone of one's own choice puts the sources listed for it first."""
    listed = tuple(GridSource(kind=kind, zone=zone) for kind, zone in
                   (("neso", "GB"), ("rte", "XX"), ("neso", "FR")))  # fmt: skip
    config = Config(grid=GridSettings(source=listed))
    with pytest.raises(ConfigError) as caught:
        sources_of(config, "FR", "", "--source")
    assert [path for path, _ in caught.value.faults] == ["grid.source[2].zone"]


def test_a_forecast_with_a_gap_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Half hours 4 to 9 of 48 are missing: the time asked for is not known, though its end is."""
    body = neso(DAY)
    del body["data"][4:10]
    with GridServer(play.reply(body=body)) as server:
        config = settings(tmp_path, source("neso", server))
        answer = found(capsys, config, "--hours", "1", "--within", "24h")
        assert not answer["whole_time_known"] and not answer["ends_early"]
        assert (answer["gaps_s"], answer["known_hours"]) == (3 * 3600, 21)
        assert ask(config, "--hours", "1", "--within", "24h") == 0
        table = capsys.readouterr().out
        assert "It has gaps of 3h: no window that touches one was looked at." in table
        assert "ends before" not in table
        whole = found(capsys, config, "--hours", "1", "--within", "1h30m")
        assert whole["whole_time_known"] and whole["gaps_s"] == 0


def test_a_relay_is_asked_for_another_zone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It may have it; where it has not, it says so and the next is asked."""
    with relayed(Upstream()) as served:  # knows GB
        config = settings(tmp_path, f'kind = "wattledger"\nurl = "{served.relay.url}"', zone="FR")
        now_s = T0 // NS
        answer = found(capsys, config, "--hours", "1", "--zone", "GB", now_s=now_s)
        assert (answer["source"], answer["zone"]) == ("first", "GB")
        with pytest.raises(WattledgerError) as caught:
            ask(config, "--hours", "1", "--zone", "XX", "--source", "wattledger", now_s=now_s)
        assert "status 400: it may not serve zone XX" in caught.value.message
        assert "relay's settings" in caught.value.hint


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--hours", "0"], "--hours"),
        (["--hours", "-4"], "--hours"),
        (["--hours", "nan"], "--hours"),
        (["--hours", "1e999999"], "--hours"),
        (["--hours", "four"], "'four'"),
        (["--hours", "400"], "--hours"),
        (["--hours", "4", "--within", "3h"], "shorter than the 4 h"),
        (["--hours", "4", "--within", "soon"], "1h30m"),
        (["--hours", "4", "--within", "15d"], "14d"),
        (["--hours", "4", "--power", "0"], "--power"),
        (["--hours", "4", "--power", "inf"], "--power"),
        (["--hours", "4", "--source", "nothing"], "known are neso"),
        (["--hours", "4", "--source", "watttime"], "[[grid.source]]"),
        (["--hours", "4", "--source", "csv"], "[[grid.source]]"),
        (["--hours", "4", "--source", "rte"], "does not serve 'WORLD'"),
    ],
)
def test_options_that_cannot_be(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["when", *arguments, "--config", settings(tmp_path, zone="WORLD")]) == 2
    assert said in capsys.readouterr().err


def test_all_faults_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        ask(settings(tmp_path), "--hours", "x", "--within", "y", "--power", "z")
    assert [path for path, _ in caught.value.faults] == ["--hours", "--within", "--power"]


def test_it_stands_alone() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "wattledger.cli", "when", "--hours", "2"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and "no live source" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_the_document_shows_is_what_it_prints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    (block,) = chosen("console forecast")
    (command,) = commands(block)
    with GridServer(play.reply(body=neso(DAY))) as server:
        words = command.typed.partition("#")[0].split()
        assert words[:2] == ["wattledger", "when"]
        assert ask(settings(tmp_path, source("neso", server)), *words[2:]) == 0
    printed = capsys.readouterr().out
    assert fits(command.shown, printed) == ""
    # Here the times and the figures are given, so they are the same as well.
    assert [line.split() for line in command.shown] == [
        line.split() for line in printed.splitlines() if line.strip()
    ]
