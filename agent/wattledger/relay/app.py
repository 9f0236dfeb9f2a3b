"""The routes of a relay.

    /grid/v1/latest?zone=GB[&basis=lifecycle]
    /grid/v1/forecast?zone=GB[&basis=…]
    /grid/v1/history?zone=GB&from=…&to=…[&source=neso][&basis=…]
    /grid/v1/sources?zone=GB
    /metrics /healthz

Answers carry a weak ETag over what they say; `age_s`, and the header Age, say how old it is.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from wattledger import __version__
from wattledger.errors import GridError
from wattledger.grid.relay_reply import PATH, Voice, signals_fields, voice_fields
from wattledger.model import Basis, FallbackLevel
from wattledger.ports import Clock
from wattledger.relay.past import DAY_NS, NotYet
from wattledger.relay.patience import fetched_by
from wattledger.relay.places import LONGEST_AGO_DAYS, Line, Place, Upstream
from wattledger.units import NS_PER_S
from wattledger_exporters.http.application import READ, Application, Scope, header
from wattledger_exporters.http.negotiate import TEXT_TYPE
from wattledger_exporters.http.query import BadRequest, instant_ns, one_of, parameters
from wattledger_exporters.http.response import JSON, Response, answer, refusal
from wattledger_exporters.http.worker import Busy, Worker
from wattledger_exporters.relay_page import Asked, Held, relay_page
from wattledger_exporters.web_config import LiveWebConfig, WebConfig

log = logging.getLogger(__name__)

LATEST, FORECAST = f"{PATH}/latest", f"{PATH}/forecast"
HISTORY, SOURCES = f"{PATH}/history", f"{PATH}/sources"
MOST_DAYS = 10  # of one answer
MOST_ROWS = 2_000  # of one answer
WAIT_S = 6.0  # a client's own patience is 10
_FLIGHT_S = 600.0
_FIRST_LOOK_S = 0.05
_WRITING = 4_096
_SOON_S = 2
_RETRY_S = 60
_NO_SIGNALS = b'"signals":[]'
_TOO_MANY = f"That may be more than {MOST_ROWS} signals; ask for a shorter span."
_NO_SOURCE = "No source of this zone and basis has given anything that can be passed on."


class RelayApp(Application):
    """The ASGI application over the zones of a relay.

    Args:
        places: by zone.
        clock: time.
        web: the web configuration, if there is one.
        wait_s: how long an answer may wait for a source.
    """

    def __init__(
        self,
        places: Mapping[str, Place],
        clock: Clock,
        web: LiveWebConfig | None,
        wait_s: float = WAIT_S,
    ) -> None:
        super().__init__(clock, web)
        self._places = places
        self._wait_s = wait_s
        self._pen = Worker("relay-pen", _WRITING)  # writes what takes long
        self._flights: dict[Hashable, asyncio.Task[None]] = {}
        self._answers: Counter[tuple[str, int]] = Counter()
        self.routes = {
            LATEST: (READ, self._get_latest),
            FORECAST: (READ, self._get_forecast),
            HISTORY: (READ, self._get_history),
            SOURCES: (READ, self._get_sources),
            "/metrics": (READ, self._get_metrics),
            "/healthz": (READ, self._get_health),
        }

    async def _respond_to(self, scope: Scope, web: WebConfig | None) -> Response:
        response = await super()._respond_to(scope, web)
        path = scope["path"] if scope["path"] in self.routes else "(other)"
        self._answers[path, response.status] += 1
        return response

    # ── the routes ──────────────────────────────────────────────────────────────────────────

    async def _get_latest(self, scope: Scope) -> Response:
        _given, place, basis = self._asked(scope, "zone", "basis")
        line = place.line(basis)
        if line is None:
            voices = ", ".join(f"{u.voice.source} ({u.voice.basis})" for u in place.upstreams)
            return refusal(404, f"What is new is passed on of this zone from {voices} only.")
        if basis is not None:
            await self._first(line)
        now_ns = self._clock.now().wall_ns
        behind = line.feed.behind(now_ns)
        chosen = line.feed.at(now_ns)
        if behind is None or basis not in (None, chosen.signal.basis):
            why = "; ".join(f"{s.source}: {s.message}" for s in line.feed.statuses() if s.message)
            rest_s = _RETRY_S if line.first.is_set() else _SOON_S
            return refusal(503, _NO_SOURCE, _retry(rest_s), hint=why or _resting(place))
        source = behind.source
        voice = Voice(source.name, source.basis, source.cadence_ns, False, False)
        signals = list(fetched_by(behind.signals, now_ns))
        fields = signals_fields(place.zone, voice, signals)
        fields["sources"] = _voices(place)
        fields["fresh"] = chosen.level == FallbackLevel.LIVE and not behind.failing
        return self._told(scope, fields, max(s.fetched_at_ns for s in signals))

    async def _get_forecast(self, scope: Scope) -> Response:
        _given, place, basis = self._asked(scope, "zone", "basis")
        until_s = self._loop_s() + self._wait_s
        problems: list[tuple[str, GridError]] = []
        rest_s = _RETRY_S
        for upstream in place.chosen(basis):
            ahead = upstream.ahead
            if ahead is None:
                continue
            if ahead.due:
                await self._flight(ahead, place, upstream, ahead.fetch, until_s)
            if signals := ahead.read():
                fields = signals_fields(place.zone, upstream.voice, signals)
                fields["fresh"] = ahead.problem is None
                return self._told(scope, fields, min(s.fetched_at_ns for s in signals))
            rest_s = _SOON_S if ahead.problem is None else ahead.rest_s
            if ahead.problem is not None:
                problems.append((upstream.voice.source, ahead.problem))
        return _failed("No source of this zone and basis forecasts.", problems, rest_s)

    async def _get_history(self, scope: Scope) -> Response:
        given, place, basis = self._asked(scope, "zone", "basis", "source", "from", "to")
        now_ns = self._clock.now().wall_ns
        start_ns, end_ns = _span(given, now_ns)
        upstream = next(
            (one for one in place.chosen(basis, given.get("source", "")) if one.history), None
        )
        if upstream is None or upstream.history is None:
            return refusal(404, "No such source of this zone knows its past.")
        history = upstream.history
        if (end_ns - start_ns) // upstream.voice.cadence_ns > MOST_ROWS:
            raise BadRequest(_TOO_MANY)
        keys = history.parts(start_ns, end_ns)
        until_s = self._loop_s() + self._wait_s
        if due := history.due(keys):
            work = partial(history.fetch, due)
            await self._flight((history, due), place, upstream, work, until_s)
        try:
            past = history.read(keys, start_ns, end_ns)
        except NotYet:
            rest_s = max(_SOON_S, history.rest_s(keys))
            return refusal(503, "The source is being asked; ask again.", _retry(rest_s))
        except GridError as error:
            sentence = "The source does not tell this part of its past."
            return _failed(sentence, [(upstream.voice.source, error)], history.rest_s(keys))
        if len(past.found) > MOST_ROWS:
            raise BadRequest(_TOO_MANY)
        fields = signals_fields(place.zone, upstream.voice, ())
        fields["fresh"] = not past.stale

        def write() -> Response:
            told = past.told()
            history.tidy()
            return self._told(scope, fields, past.fetched_ns or now_ns, told)

        return await self._pen.run(write, _FLIGHT_S)

    async def _get_sources(self, scope: Scope) -> Response:
        _given, place, _basis = self._asked(scope, "zone")
        return self._told(scope, {"zone": place.zone, "sources": _voices(place)}, None)

    async def _get_health(self, _scope: Scope) -> Response:
        return answer(200, {"status": "ok"})

    async def _get_metrics(self, _scope: Scope) -> Response:
        asked: list[Asked] = []
        held: list[Held] = []
        now_ns = self._clock.now().wall_ns
        for place in self._places.values():
            statuses = [status for feed in place.feeds() for status in feed.statuses()]
            for upstream in place.upstreams:
                latest: Counter[str] = Counter()
                for status in statuses:
                    if status.source == upstream.voice.source:
                        latest.update(status.outcomes)
                latest -= upstream.polite.spared  # nobody was asked
                who = (place.zone, upstream.voice.source, "latest")
                asked += [Asked(*who, *found) for found in sorted(latest.items())]
                for what, part in (("forecast", upstream.ahead), ("history", upstream.history)):
                    who = (place.zone, upstream.voice.source, what)
                    outcomes = dict(part.outcomes) if part is not None else {}
                    asked += [Asked(*who, *found) for found in sorted(outcomes.items())]
            choice = place.feed.at(now_ns)
            signal = choice.signal if choice.level != FallbackLevel.TABLE else None
            kept = sum(one.history.held for one in place.upstreams if one.history is not None)
            held.append(Held(place.zone, signal, choice.level, kept))
        web = self._web.status if self._web is not None else None
        page = relay_page(__version__, self._answers, asked, held, web)
        return Response(200, page, TEXT_TYPE)

    # ── shared by them ──────────────────────────────────────────────────────────────────────

    def _asked(self, scope: Scope, *allowed: str) -> tuple[Mapping[str, str], Place, Basis | None]:
        """The parameters, the zone and the basis of a request.

        Raises:
            BadRequest: they cannot be.
        """
        given = parameters(scope["query_string"], allowed)
        zone = given.get("zone", "")
        place = self._places.get(zone)
        if place is None:
            known = ", ".join(sorted(self._places))
            raise BadRequest(f"zone={zone[:64]!r} is not one of this relay's: {known}.")
        basis = given.get("basis")
        if basis is None:
            return given, place, None
        return given, place, Basis(one_of("basis", basis, [str(one) for one in Basis]))

    async def _first(self, line: Line) -> None:
        """Wait for a while until a feed has asked its sources."""
        until_s = self._loop_s() + self._wait_s
        while not line.first.is_set() and self._loop_s() < until_s:
            await asyncio.sleep(_FIRST_LOOK_S)

    def _loop_s(self) -> float:
        return asyncio.get_running_loop().time()

    async def _flight(
        self,
        key: Hashable,
        place: Place,
        upstream: Upstream,
        work: Callable[[], None],
        until_s: float,
    ) -> None:
        """Have a source asked, once for all who want the same; waits until then (loop's time)."""
        task = self._flights.get(key)

        def ask() -> None:
            try:
                work()
            finally:
                place.changed()

        if task is None:
            task = asyncio.get_running_loop().create_task(upstream.worker.run(ask, _FLIGHT_S))
            self._flights[key] = task

            def landed(done: asyncio.Task[None]) -> None:
                self._flights.pop(key, None)
                error = None if done.cancelled() else done.exception()
                if error is not None and not isinstance(error, Busy | TimeoutError):
                    log.error("asking %s failed", upstream.voice.source, exc_info=error)

            task.add_done_callback(landed)
        # A client that goes away, or waits no longer, does not end it for the others.
        await asyncio.wait([task], timeout=max(0.0, until_s - self._loop_s()))
        if task.done():
            task.result()

    def stop(self) -> None:
        """End the workers, without waiting for them."""
        super().stop()
        self._pen.stop()

    def _told(
        self,
        scope: Scope,
        fields: dict[str, Any],
        fetched_ns: int | None,
        rows: Sequence[bytes] = (),
    ) -> Response:
        """An answer with its mark; 304 to who has it already.

        Args:
            scope: the request.
            fields: what is said.
            fetched_ns: wall clock, when that was heard.
            rows: signals as JSON, where there are none among the fields.
        """
        raw = json.dumps(fields, separators=(",", ":")).encode()
        if rows:
            before, after = raw.split(_NO_SIGNALS, 1)
            raw = b'%s"signals":[%s]%s' % (before, b",".join(rows), after)
        mark = f'W/"{hashlib.sha256(raw).hexdigest()[:32]}"'
        headers = [("etag", mark), ("cache-control", "no-cache")]
        age = b""
        if fetched_ns is not None:
            age_s = max(0, self._clock.now().wall_ns - fetched_ns) // NS_PER_S
            age = b',"age_s":%d' % age_s
            headers.append(("age", str(age_s)))
        if _matches(header(scope, b"if-none-match").decode("latin-1"), mark):
            return Response(304, b"", JSON, tuple(headers))
        return Response(200, raw[:-1] + age + b"}\n", JSON, tuple(headers))


def _span(given: Mapping[str, str], now_ns: int) -> tuple[int, int]:
    """The span of the past that is asked for.

    Raises:
        BadRequest: it cannot be.
    """
    for name in ("from", "to"):
        if name not in given:
            raise BadRequest(f"The parameter {name!r} is missing.")
    start_ns = instant_ns("from", given["from"], now_ns)
    end_ns = instant_ns("to", given["to"], now_ns)
    if start_ns >= end_ns:
        raise BadRequest("from is not before to.")
    if end_ns - start_ns > MOST_DAYS * DAY_NS:
        raise BadRequest(f"from and to are more than {MOST_DAYS} days apart.")
    if start_ns < now_ns - LONGEST_AGO_DAYS * DAY_NS:
        raise BadRequest(f"from is more than {LONGEST_AGO_DAYS} days ago.")
    return start_ns, end_ns


def _matches(condition: str, mark: str) -> bool:
    """Whether If-None-Match names a weak mark (RFC 9110, section 13.1.2)."""
    bare = mark.removeprefix("W/")
    return any(one.strip().removeprefix("W/") in (bare, "*") for one in condition.split(","))


def _voices(place: Place) -> list[dict[str, Any]]:
    return [voice_fields(upstream.voice) for upstream in place.upstreams]


def _resting(place: Place) -> str:
    """Why no source is asked just now."""
    problems = [(one.voice.source, one.manners.holds()) for one in place.upstreams]
    return "; ".join(f"{name}: {hold.message}" for name, holds in problems for hold in holds)


def _retry(seconds: int) -> tuple[str, str]:
    return ("retry-after", str(seconds))


def _failed(sentence: str, problems: Sequence[tuple[str, GridError]], rest_s: int) -> Response:
    """An answer that names what the sources failed at."""
    if not problems:
        return refusal(404, sentence) if rest_s != _SOON_S else refusal(503, sentence, _retry(2))
    return refusal(503, sentence, _retry(rest_s), hint=_words(problems))


def _words(problems: Iterable[tuple[str, GridError]]) -> str:
    return "; ".join(f"{name}: {error.message} [{error.outcome}]" for name, error in problems)
