"""A relay of this program's own (`wattledger grid serve`): what other sources say, passed on.

    GET {url}/grid/v1/latest?zone=GB       the newest signals, and which sources are behind them
    GET {url}/grid/v1/history?zone=GB&source=neso&from=…&to=…
    GET {url}/grid/v1/forecast?zone=GB
    GET {url}/grid/v1/sources?zone=GB

The source `wattledger` is who was asked: it is in the status, and `grid_requests_total` counts it.
A signal, and with it the books, name who knows: `neso`, not the relay. So a node that changes from
a source to a relay of it, or back, goes on with the same words for the same thing, and what was
booked by the one is settled by the other.
"""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from wattledger.errors import GridError
from wattledger.grid.client import HttpClient
from wattledger.grid.outcome import Outcome, failure
from wattledger.grid.provider import DAY_NS, HOUR_NS, Provider, collect, coming, rows_of, token_of
from wattledger.grid.relay_reply import (
    PATH,
    Voice,
    check_zone,
    instant_text,
    is_zone,
    signals_of,
    voice_of,
    voices_of,
)
from wattledger.grid.secret import Secret
from wattledger.model import Basis, GridSignal

USER = "wattledger"
_BEFORE_THE_FIRST_NS = HOUR_NS // 4  # the cadence, until the relay has said its own
_SIGNALS = 1_000  # what a reply is asked to hold at the most; some 200 bytes each
_LONGEST_NS = 5 * DAY_NS
_PATIENCE_S = 5.0
_TRIES = 6
_VOICES = 8  # that are asked for their past: more than any zone has
_VISIT_S = 300.0  # of one settling
_MOST_ROWS = 1_500  # some are at the edges, and a file may tell more often than it is looked into
# What one voice fails at that way, the others would, too.
_GONE = frozenset(
    {
        Outcome.TIMEOUT,
        Outcome.CONNECT_ERROR,
        Outcome.TLS_ERROR,
        Outcome.BLOCKED,
        Outcome.NO_TOKEN,
        Outcome.HTTP_401,
    }
)
_NOT_THERE = (
    "list a source of this zone in the relay's settings, or another one here under [[grid.source]]"
)
_USER = re.compile(r"[A-Za-z0-9._@+-]{1,64}", re.ASCII)


class Wattledger(Provider):
    """The source `wattledger`; a `source.Relay`.

    `basis` is that which is asked for, else that of the relay's preferred source; `heard` is False
    until it has said which that is.

    Args:
        client: the way out.
        zone: as the relay's settings write it.
        url: where it listens.
        basis: None: whichever it has.
        user: its web configuration's; empty: `wattledger`.
        token_file: the user's password; None: none is asked for.
        name: the `source` label of requests.
        sleep: waits for seconds.
        monotonic: a clock, in seconds.

    Raises:
        ValueError: the url must not be asked or is missing, or the zone or user is none.
    """

    def __init__(
        self,
        client: HttpClient,
        *,
        zone: str,
        url: str,
        basis: Basis | None = None,
        user: str = "",
        token_file: Path | None = None,
        name: str = "wattledger",
        sleep: Callable[[float], object] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        if not is_zone(zone):
            raise ValueError(f"{zone!r} is not a name of a zone, such as GB")
        if user and not _USER.fullmatch(user):
            raise ValueError("user is not a name of letters, digits and . _ @ + -")
        super().__init__(
            client,
            url=url,
            default_url="",
            name=name,
            zone=zone,
            basis=basis or Basis.LIFECYCLE,
            cadence_ns=_BEFORE_THE_FIRST_NS,
        )
        self.heard = basis is not None
        self._wanted = basis
        self._user = user or USER
        self._token_file = token_file
        self._sleep = sleep
        self._monotonic = monotonic

    def may_give(self, source: str, zone: str, basis: Basis) -> bool:
        """Whether a signal so labelled may be of this relay; see `source.Relay`."""
        if zone != self.zone or source == "table" or basis is Basis.MARGINAL:
            return False
        return self._wanted in (None, basis)

    def latest(self, now_wall_ns: int) -> list[GridSignal]:
        """What the relay has of the source that is live. See `Source.latest`."""
        fields = check_zone(self._ask("latest"), self.zone)
        voice = voice_of(fields)
        if voice.basis is Basis.MARGINAL:
            raise failure(Outcome.BAD_VALUE, "a marginal intensity prices no books")
        self._check_basis(voice)
        voices = voices_of(fields)
        if (voice.source, voice.basis) not in {(one.source, one.basis) for one in voices}:
            raise failure(Outcome.BAD_VALUE, "the relay has no source of the name it answers with")
        signals = signals_of(fields, self.zone, voice, now_wall_ns)
        self.cadence_ns = voice.cadence_ns
        if self._wanted is None:
            first = next(one for one in voices if one.basis is not Basis.MARGINAL)
            self.basis, self.heard = first.basis, True
        return signals

    def forecast(self, now_wall_ns: int) -> list[GridSignal]:
        """What the first source behind it that forecasts gives. See `Outlook.forecast`."""
        fields = check_zone(self._ask("forecast"), self.zone)
        voice = voice_of(fields)
        self._check_basis(voice)
        return coming(signals_of(fields, self.zone, voice, now_wall_ns), now_wall_ns)

    def between(self, start_ns: int, end_ns: int, now_wall_ns: int) -> list[GridSignal]:
        """What the first source behind it that knows its past has. See `History.between`."""
        voices = self.voices(now_wall_ns)
        if not voices:
            raise failure(Outcome.NO_DATA, "no source behind the relay knows its past")
        return voices[0].between(start_ns, end_ns, now_wall_ns)

    def voices(self, now_wall_ns: int) -> list[RelayedHistory]:
        """The first few sources behind it that know their past; see `source.Relay`.

        They share one `Visit`: to be asked for, and forgotten, by each settling anew.
        """
        del now_wall_ns
        voices = voices_of(check_zone(self._ask("sources", patient=True), self.zone))
        known = [
            voice
            for voice in voices
            if voice.history and self.may_give(voice.source, self.zone, voice.basis)
        ]
        visit = Visit(self._monotonic)
        return [RelayedHistory(self, voice, visit) for voice in known[:_VOICES]]

    def history(
        self, voice: Voice, start_ns: int, end_ns: int, now_wall_ns: int, visit: Visit
    ) -> list[GridSignal]:
        """One request for the past of a source behind it; no data is a gap.

        Raises:
            GridError: as the client and the visit do; outcome `wrong_zone`, `bad_value` or
                `too_large`.
        """
        span = {"from": instant_text(start_ns), "to": instant_text(end_ns)}
        with visit:
            reply = self._ask("history", {"source": voice.source, **span}, patient=True)
        fields = check_zone(reply, self.zone)
        said = voice_of(fields)
        if (said.source, said.basis) != (voice.source, voice.basis):
            raise failure(Outcome.BAD_VALUE, "the relay answered with another source's past")
        if fields.get("signals") == []:
            return []
        if len(rows_of(fields, "signals")) > _MOST_ROWS:
            raise failure(Outcome.TOO_LARGE, "the relay answered with more than was asked for")
        found = signals_of(fields, self.zone, said, now_wall_ns)
        return [s for s in found if s.valid_from_ns < end_ns and s.valid_to_ns > start_ns]

    def _check_basis(self, voice: Voice) -> None:
        if self._wanted not in (None, voice.basis):
            raise failure(Outcome.BAD_VALUE, f"asked for basis {self._wanted}, answered on another")

    def _ask(self, path: str, more: Mapping[str, str] | None = None, patient: bool = False) -> Any:
        """A reply; a relay that is still asking is asked again, where nobody waits for the answer.

        Raises:
            GridError: as the client does.
        """
        query = {"zone": self.zone, **(more or {})}
        if self._wanted is not None and path in ("latest", "forecast"):
            query["basis"] = str(self._wanted)
        for left in range(_TRIES if patient else 1, 0, -1):
            try:
                return self._get(f"{PATH}/{path}", query, secret_headers=self._secrets())
            except GridError as error:
                if error.outcome == Outcome.HTTP_4XX:
                    text = f"{error.message}: it may not serve zone {self.zone}"
                    raise failure(Outcome.HTTP_4XX, text, hint=_NOT_THERE) from error
                wait_s = error.retry_after_s
                if left == 1 or wait_s is None or wait_s > _PATIENCE_S:
                    raise
                self._sleep(wait_s)
        raise AssertionError("the last try returns or raises")

    def _secrets(self) -> dict[str, Secret]:
        if self._token_file is None:
            return {}
        password = token_of(self._token_file).reveal()
        both = base64.b64encode(f"{self._user}:{password}".encode()).decode()
        return {"Authorization": Secret(f"Basic {both}")}


class Visit:
    """What the voices of a relay share for one settling: that it is gone, and how long it takes.

    To be entered for each request. Other things may take their time between two of them.

    Args:
        monotonic: a clock, in seconds.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._left_s = _VISIT_S
        self._begun_s = 0.0
        self._gone: GridError | None = None

    def __enter__(self) -> None:
        """Raises GridError: it is not asked any more."""
        if self._gone is None and self._left_s <= 0:
            text = f"it took {_VISIT_S:g} s of one settling; the rest is the next one's"
            self._gone = failure(Outcome.TIMEOUT, text)
        if self._gone is not None:
            raise self._gone
        self._begun_s = self._monotonic()

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        self._left_s -= self._monotonic() - self._begun_s
        if isinstance(error, GridError) and error.outcome in _GONE:
            self._gone = error


class RelayedHistory:
    """The past of one source behind a relay, under that source's own name; a `HistorySource`."""

    def __init__(self, relay: Wattledger, voice: Voice, visit: Visit) -> None:
        self.name = voice.source
        self.zone = relay.zone
        self.basis = voice.basis
        self.cadence_ns = voice.cadence_ns
        self.voice = voice
        self.visit = visit
        self._relay = relay
        self._longest_ns = min(_SIGNALS * voice.cadence_ns // HOUR_NS * HOUR_NS, _LONGEST_NS)

    def latest(self, now_wall_ns: int) -> list[GridSignal]:
        """What the relay has of now, if it is of this source. See `Source.latest`."""
        found = [s for s in self._relay.latest(now_wall_ns) if s.source == self.name]
        if not found:
            raise failure(Outcome.NO_DATA, f"the relay has nothing new of {self.name}")
        return found

    def between(self, start_ns: int, end_ns: int, now_wall_ns: int) -> list[GridSignal]:
        """What it has published for a span. See `History.between`."""
        return collect(
            start_ns,
            end_ns,
            self._longest_ns,
            lambda from_ns, to_ns: self._relay.history(
                self.voice, from_ns, to_ns, now_wall_ns, self.visit
            ),
        )
