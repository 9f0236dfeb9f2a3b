"""WattTime: marginal intensities of grids all over the world, with an account. Never booked.

    GET https://api.watttime.org/login                   (HTTP Basic) → {"token": …}, for 30 min
    GET https://api.watttime.org/v3/historical?region=CAISO_NORTH&signal_type=co2_moer&start=…&end=…
    {"data":[{"point_time":"2022-07-15T00:00:00Z","value":870, …}],
     "meta":{"data_point_period_seconds":300,"region":"CAISO_NORTH","signal_type":"co2_moer",
             "units":"lbs_co2_per_mwh", …}}
    GET https://api.watttime.org/v3/forecast?region=…&signal_type=co2_moer&horizon_hours=24

Documented at https://docs.watttime.org; without a subscription CAISO_NORTH answers. A marginal
operating emissions rate (MOER) is what one kWh more would cause, CO2 only: it says when to use
energy, not what was emitted by using it. The percentile index of `/v3/signal-index` is refused by
its unit: a rank times kWh is nothing.
"""

from __future__ import annotations

import re
from base64 import b64encode
from pathlib import Path
from typing import Any

from wattledger.errors import GridError
from wattledger.grid.checks import as_object, instant_ns
from wattledger.grid.client import HttpClient
from wattledger.grid.outcome import Outcome, failure
from wattledger.grid.provider import (
    DAY_NS,
    HOUR_NS,
    MINUTE_NS,
    Provider,
    collect,
    coming,
    good_of,
    rows_of,
    token_of,
    utc,
)
from wattledger.grid.quantity import in_g_per_kwh
from wattledger.grid.secret import Secret
from wattledger.model import Basis, GridSignal
from wattledger.units import NS_PER_S

HOST = "api.watttime.org"
URL = f"https://{HOST}"
SIGNAL = "co2_moer"
UNITS = "lbs_co2_per_mwh"
_LONGEST_NS = 5 * DAY_NS  # 30 days are allowed; 5 of 5-minute rows stay below the client's bound
_TOKEN_NS = 25 * MINUTE_NS
_HORIZON_HOURS = 24
_PERIODS_S = range(60, 3601)
_ZONE = re.compile(r"[A-Z0-9]+(_[A-Z0-9]+)*", re.ASCII)


def is_zone(text: str) -> bool:
    """Whether a text is written as its regions are: `CAISO_NORTH`, `PJM_DC`, `FR`."""
    return len(text) <= 64 and _ZONE.fullmatch(text) is not None


class WattTime(Provider):
    """The source `watttime`; its signals are marginal.

    Args:
        client: the way out.
        zone: the region, as the provider writes it.
        user: the account's name.
        token_file: where the account's password lies; read at each login.
        url: the API's base; default the provider's own.
        name: the `source` label.

    Raises:
        ValueError: the url must not be asked, the zone is not one, or there is no user.
    """

    def __init__(
        self,
        client: HttpClient,
        *,
        zone: str,
        user: str,
        token_file: Path,
        url: str = "",
        name: str = "watttime",
    ) -> None:
        if not is_zone(zone):
            raise ValueError(f"{zone!r} is not a region of WattTime, such as CAISO_NORTH")
        if not user or not user.isascii() or not user.isprintable() or ":" in user:
            raise ValueError("watttime needs user, the account's name")
        super().__init__(
            client,
            url=url,
            default_url=URL,
            name=name,
            zone=zone,
            basis=Basis.MARGINAL,
            cadence_ns=5 * MINUTE_NS,
        )
        self._user = user
        self._token_file = token_file
        self._token: Secret | None = None
        self._token_ns = 0  # wall clock of the login

    def latest(self, now_wall_ns: int) -> list[GridSignal]:
        """The last two hours, for show: no books are priced with them. See `Source.latest`."""
        span = {"start": utc(now_wall_ns - 2 * HOUR_NS), "end": utc(now_wall_ns)}
        return self.parse(self._ask("historical", now_wall_ns, span), now_wall_ns, estimated=False)

    def between(self, start_ns: int, end_ns: int, now_wall_ns: int) -> list[GridSignal]:
        """What is published for a span. See `History.between`."""
        return collect(
            start_ns,
            end_ns,
            _LONGEST_NS,
            lambda from_ns, to_ns: self.parse(
                self._ask("historical", now_wall_ns, {"start": utc(from_ns), "end": utc(to_ns)}),
                now_wall_ns,
                estimated=False,
            ),
        )

    def forecast(self, now_wall_ns: int) -> list[GridSignal]:
        """The next 24 hours. See `Outlook.forecast`."""
        reply = self._ask("forecast", now_wall_ns, {"horizon_hours": _HORIZON_HOURS})
        return coming(self.parse(reply, now_wall_ns, estimated=True), now_wall_ns)

    def _ask(self, path: str, now_wall_ns: int, query: dict[str, Any]) -> Any:
        """One request with a token that is fresh; a token that was revoked is fetched anew."""
        query = {"region": self.zone, "signal_type": SIGNAL, **query}
        token, fresh = self._token, False
        if token is None or not 0 <= now_wall_ns - self._token_ns < _TOKEN_NS:
            token, fresh = self._login(now_wall_ns), True
        try:
            return self._get(f"/v3/{path}", query, secret_headers=_bearer(token))
        except GridError as error:
            if error.outcome != Outcome.HTTP_401:
                raise
            self._token = None
            if fresh:
                raise
        token = self._login(now_wall_ns)
        return self._get(f"/v3/{path}", query, secret_headers=_bearer(token))

    def _login(self, now_wall_ns: int) -> Secret:
        password = token_of(self._token_file).reveal()
        basic = b64encode(f"{self._user}:{password}".encode("ascii")).decode("ascii")
        reply = self._get("/login", secret_headers={"Authorization": Secret(f"Basic {basic}")})
        token = as_object(reply, "the reply to the login").get("token")
        if (
            not isinstance(token, str)
            or not 0 < len(token) <= 8192
            or not all("!" <= c <= "~" for c in token)
        ):
            raise failure(Outcome.BAD_VALUE, "the login gave no token")
        self._token, self._token_ns = Secret(token), now_wall_ns
        return self._token

    def parse(self, reply: Any, now_wall_ns: int, *, estimated: bool) -> list[GridSignal]:
        """A reply's signals.

        Raises:
            GridError: outcome `no_data`, `wrong_zone` or `bad_value`.
        """
        rows = rows_of(reply, "data")
        meta = as_object(reply.get("meta"), "meta")
        if meta.get("region") != self.zone:
            raise failure(Outcome.WRONG_ZONE, f"asked for {self.zone}, answered for another region")
        if meta.get("signal_type") != SIGNAL or meta.get("units") != UNITS:
            raise failure(
                Outcome.BAD_VALUE,
                f"only {SIGNAL} in {UNITS} is an intensity; the reply is of something else, such "
                "as a percentile",
            )
        period_s = meta.get("data_point_period_seconds")
        if not isinstance(period_s, int) or period_s not in _PERIODS_S:
            raise failure(Outcome.BAD_VALUE, "data_point_period_seconds is not a period")

        def row(value: Any) -> GridSignal:
            fields = as_object(value, "a row")
            start_ns = instant_ns(fields.get("point_time"), "point_time")
            imputed = fields.get("imputed_data_used", False)
            return self._signal(
                in_g_per_kwh(fields.get("value"), "lb/MWh"),
                start_ns,
                start_ns + period_s * NS_PER_S,
                estimated=estimated or imputed is not False,
                now_wall_ns=now_wall_ns,
            )

        return good_of(rows, row)


def _bearer(token: Secret) -> dict[str, Secret]:
    return {"Authorization": Secret(f"Bearer {token.reveal()}")}
