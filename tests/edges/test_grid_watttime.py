"""WattTime: logging in, marginal rates in pounds, and that the books never see them."""

from __future__ import annotations

import contextlib
import logging
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

import grid_bodies as bodies
import grid_server as play
from fakes import FakeClock
from grid_server import GridServer, Request
from wattledger import build
from wattledger.config import parse_config
from wattledger.errors import ConfigError, GridError
from wattledger.grid import SourceConfig, build_sources
from wattledger.grid.client import HttpClient
from wattledger.grid.source import History, Outlook
from wattledger.grid.watttime import WattTime
from wattledger.model import Basis, FallbackLevel

T0 = 1_657_843_200 * 10**9  # 2022-07-15T00:00Z
MINUTE = 60 * 10**9
PASSWORD, TOKEN = "canary-pass-word", "canary.token.1"


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.write_text(PASSWORD + "\n")
    path.chmod(0o600)
    return path


class Account:
    """Answers logins with one token after another, and data to the token that is in force."""

    def __init__(self, body: Any) -> None:
        self.body = body
        self.logins = 0
        self.revoked = False  # the token in force is refused once more

    def __call__(self, connection: Any, request: Request, stop: Any) -> None:
        sent = request.headers.get("authorization", "")
        if request.target == "/login":
            self.logins += 1
            good = sent == "Basic " + b64encode(f"site:{PASSWORD}".encode()).decode()
            answer = play.reply(200 if good else 401, {"token": f"canary.token.{self.logins}"})
        elif sent != f"Bearer canary.token.{self.logins}" or self.revoked:
            self.revoked = False
            answer = play.reply(401)
        else:
            answer = play.reply(body=self.body)
        answer(connection, request, stop)


@pytest.fixture
def account() -> Account:
    return Account(bodies.watttime(870, 900.5))


@pytest.fixture
def server(account: Account) -> Iterator[GridServer]:
    with GridServer(account) as server:
        yield server


def source(server: GridServer | None, password_file: Path = Path("/nonexistent")) -> WattTime:
    return WattTime(
        HttpClient(),
        zone="CAISO_NORTH",
        user="site",
        token_file=password_file,
        url=server.url if server else "",
    )


def test_pounds_per_mwh_become_grams_per_kwh_and_are_marked_marginal(
    server: GridServer, password_file: Path
) -> None:
    [first, second] = source(server, password_file).latest(T0 + 10 * MINUTE)
    assert first.intensity_ug_per_kwh == 394_625_362  # 870 × 0.45359237 = 394.6253619
    assert second.intensity_ug_per_kwh == 408_459_929  # 900.5 × 0.45359237 = 408.459929185
    assert {first.basis, second.basis} == {Basis.MARGINAL}
    assert (first.zone, first.source) == ("CAISO_NORTH", "watttime")
    assert (first.valid_from_ns, first.valid_to_ns) == (T0, T0 + 5 * MINUTE)
    query = parse_qs(urlsplit(server.requests[1].target).query)
    assert (query["region"], query["signal_type"]) == (["CAISO_NORTH"], ["co2_moer"])
    assert (query["start"], query["end"]) == (["2022-07-14T22:10:00Z"], ["2022-07-15T00:10:00Z"])


def test_one_login_serves_for_its_time_and_is_renewed(
    server: GridServer, account: Account, password_file: Path
) -> None:
    asked = source(server, password_file)
    for minutes in (0, 10, 24):
        asked.latest(T0 + minutes * MINUTE)
    assert account.logins == 1
    asked.latest(T0 + 26 * MINUTE)
    assert account.logins == 2
    asked.latest(T0)  # the wall clock was set back: nobody knows how old the token is
    assert account.logins == 3


def test_a_token_that_was_revoked_is_renewed_once(
    server: GridServer, account: Account, password_file: Path
) -> None:
    asked = source(server, password_file)
    asked.latest(T0)
    account.revoked = True
    assert asked.latest(T0 + MINUTE)
    assert account.logins == 2


def test_a_refusal_of_a_fresh_token_is_no_reason_to_log_in_again(
    server: GridServer, account: Account, password_file: Path
) -> None:
    account.revoked = True
    with pytest.raises(GridError) as caught:
        source(server, password_file).latest(T0)
    assert caught.value.outcome == "http_401"
    assert account.logins == 1


def test_a_wrong_password_is_said_and_shown_nowhere(
    server: GridServer, account: Account, password_file: Path
) -> None:
    password_file.write_text("canary-wrong\n")
    with pytest.raises(GridError) as caught:
        source(server, password_file).latest(T0)
    assert caught.value.outcome == "http_401"
    assert "canary" not in f"{caught.value} {caught.value.__cause__!r} {caught.value.args}"
    assert [request.target for request in server.requests] == ["/login"]


def test_without_its_password_nothing_is_asked(server: GridServer) -> None:
    with pytest.raises(GridError) as caught:
        source(server).latest(T0)
    assert caught.value.outcome == "no_token"
    assert server.requests == []


@pytest.mark.parametrize("body", [{}, {"token": None}, {"token": ""}, {"token": "a\r\nX: y"}, []])
def test_a_login_without_a_token(password_file: Path, body: Any) -> None:
    with GridServer(play.reply(body=body)) as server, pytest.raises(GridError) as caught:
        source(server, password_file).latest(T0)
    assert caught.value.outcome == "bad_value"


def test_a_login_that_leads_elsewhere_is_not_followed(password_file: Path) -> None:
    with GridServer(play.reply(body={})) as other:
        script = play.reply(302, headers={"Location": f"{other.url}/login"})
        with GridServer(script) as server, pytest.raises(GridError) as caught:
            source(server, password_file).latest(T0)
        assert caught.value.outcome == "redirect"
        assert other.requests == []


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        (bodies.watttime(37.1, units="percentile"), "bad_value"),
        (bodies.watttime(870, units="kg"), "bad_value"),
        (bodies.watttime(870, units=None), "bad_value"),
        (bodies.watttime(870, signal_type="health_damage"), "bad_value"),
        (bodies.watttime(870, region="PJM_DC"), "wrong_zone"),
        (bodies.watttime(870, region=None), "wrong_zone"),
        (bodies.watttime(870, data_point_period_seconds=0), "bad_value"),
        (bodies.watttime(870, data_point_period_seconds="300"), "bad_value"),
        (bodies.watttime(870, data_point_period_seconds=10**9), "bad_value"),
        (bodies.watttime(-1), "bad_value"),
        (bodies.watttime(1e308), "bad_value"),
        (bodies.watttime(10**400), "bad_value"),
        (bodies.watttime("870"), "bad_value"),
        (bodies.watttime(None), "bad_value"),
        (bodies.watttime(True), "bad_value"),
        ({"data": [], "meta": {}}, "no_data"),
        ({"data": [{}]}, "bad_value"),
        ({}, "no_data"),
        ([], "bad_value"),
    ],
)
def test_what_is_no_marginal_rate(body: Any, outcome: str) -> None:
    with pytest.raises(GridError) as caught:
        source(None).parse(body, T0, estimated=False)
    assert caught.value.outcome == outcome


def test_the_percentile_index_is_named_when_it_is_refused() -> None:
    with pytest.raises(GridError, match="percentile"):
        source(None).parse(bodies.watttime(37.1, units="percentile"), T0, estimated=False)


def test_past_and_forecast(server: GridServer, password_file: Path) -> None:
    asked = source(server, password_file)
    assert isinstance(asked, History) and isinstance(asked, Outlook)
    past = asked.between(T0, T0 + 6 * 1440 * MINUTE, T0 + 10**16)
    assert [signal.valid_from_ns for signal in past] == [T0, T0 + 5 * MINUTE]
    assert not any(signal.estimated for signal in past)
    spans = [parse_qs(urlsplit(r.target).query) for r in server.requests[1:]]
    assert [(q["start"][0], q["end"][0]) for q in spans] == [
        ("2022-07-15T00:00:00Z", "2022-07-20T00:00:00Z"),
        ("2022-07-20T00:00:00Z", "2022-07-21T00:00:00Z"),
    ]
    ahead = asked.forecast(T0 + 6 * MINUTE)
    assert [signal.valid_from_ns for signal in ahead] == [T0 + 5 * MINUTE]
    assert ahead[0].estimated and ahead[0].basis is Basis.MARGINAL
    query = parse_qs(urlsplit(server.requests[-1].target).query)
    assert urlsplit(server.requests[-1].target).path == "/v3/forecast"
    assert query["horizon_hours"] == ["24"]


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)
_keys = st.sampled_from(["data", "meta", "point_time", "value", "units", "imputed_data_used"])


@given(st.dictionaries(_keys, _json), st.dictionaries(_keys, _json), _json)
def test_no_reply_raises_anything_but_ours(
    changes: dict[str, Any], row: dict[str, Any], other: Any
) -> None:
    body = bodies.watttime(870)
    body["data"][0] |= row
    for reply in (other, body | changes, body):
        with contextlib.suppress(GridError):
            for signal in source(None).parse(reply, T0, estimated=False):
                assert 0 <= signal.intensity_ug_per_kwh <= 2_000_000_000


# ── the configuration and the books ─────────────────────────────────────────────────────────────

CONFIG = """
    [site]
    zone = "US"
    [[grid.source]]
    kind = "watttime"
    zone = "CAISO_NORTH"
    user = "site"
    token_file = "/run/credentials/watttime"
"""


def test_the_books_are_priced_by_the_table_and_it_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="wattledger.grid")
    clock = FakeClock()
    grid = build.grid_feed(parse_config(CONFIG), clock, ())
    grid.poll_once()
    choice = grid.at(clock.wall_ns)
    assert (choice.level, choice.signal.basis) == (FallbackLevel.TABLE, Basis.LIFECYCLE)
    [status] = grid.statuses()
    assert (status.source, status.outcomes) == ("watttime", {})
    assert "marginal" in status.message
    assert "marginal" in caplog.text


def test_a_marginal_source_alone_does_not_serve_the_zone_of_the_site() -> None:
    with pytest.raises(ConfigError, match="ISO 3166"):
        parse_config(CONFIG.replace('"US"', '"XK"').replace('"CAISO_NORTH"', '"XK"'))


def test_what_it_needs_is_named() -> None:
    configs = [
        SourceConfig("watttime", "CAISO_NORTH", token_file=Path("t")),
        SourceConfig("watttime", "CAISO_NORTH", token_file=Path("t"), user="a:b"),
        SourceConfig("watttime", "CAISO_NORTH", user="site"),
        SourceConfig("watttime", "caiso", token_file=Path("t"), user="site"),
        SourceConfig("watttime", "FR", token_file=Path("t"), user="s", basis=Basis.DIRECT),
    ]
    with pytest.raises(ConfigError) as caught:
        build_sources(configs, HttpClient())
    said = [text for _, text in caught.value.faults]
    assert ["user" in said[0], "user" in said[1], "token_file" in said[2]] == [True] * 3
    assert "regions" in said[3] and "emission factors" in said[4]
