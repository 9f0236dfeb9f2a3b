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
from wattledger.relay.places import Place, Upstream
from wattledger.units import NS_PER_S
from wattledger_exporters.http.application import READ, Application, Scope, header
from wattledger_exporters.http.negotiate import TEXT_TYPE
from wattledger_exporters.http.query import BadRequest, instant_ns, one_of, parameters
from wattledger_exporters.http.response import JSON, Response, answer, refusal
from wattledger_exporters.http.worker import Busy
from wattledger_exporters.relay_page import Asked, Held, relay_page
from wattledger_exporters.web_config import LiveWebConfig, WebConfig

log = logging.getLogger(__name__)

LATEST, FORECAST = f"{PATH}/latest", f"{PATH}/forecast"
HISTORY, SOURCES = f"{PATH}/history", f"{PATH}/sources"
MOST_DAYS = 10  # of one answer
LONGEST_AGO_DAYS = 62  # what is older no node settles
_WAIT_S = 6.0  # a client's own patience is 10
_FLIGHT_S = 600.0
_SOON_S = 2
_RETRY_S = 60
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
        wait_s: float = _WAIT_S,
    ) -> None:
        super().__init__(clock, web)
        self._places = places
        self._wait_s = wait_s
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
        given, place, basis = self._asked(scope, "zone", "basis")
        del given
        now_ns = self._clock.now().wall_ns
        behind = place.feed.behind(now_ns)
        chosen = place.feed.at(now_ns)
        if behind is None or basis not in (None, chosen.signal.basis):
            why = "; ".join(f"{s.source}: {s.message}" for s in place.feed.statuses() if s.message)
            return refusal(503, _NO_SOURCE, _retry(_RETRY_S), hint=why)
        source = behind.source
        voice = Voice(source.name, source.basis, source.cadence_ns, False, False)
        fields = signals_fields(place.zone, voice, behind.signals)
        fields["sources"] = _voices(place)
        fields["fresh"] = chosen.level == FallbackLevel.LIVE and not behind.failing
        return self._told(scope, fields, max(s.fetched_at_ns for s in behind.signals))

    async def _get_forecast(self, scope: Scope) -> Response:
        given, place, basis = self._asked(scope, "zone", "basis")
        del given
        problems: list[tuple[str, GridError]] = []
        rest_s = _RETRY_S
        for upstream in place.chosen(basis):
            ahead = upstream.ahead
            if ahead is None:
                continue
            if ahead.due:
                await self._flight(ahead, upstream, ahead.fetch)
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
        keys = history.parts(start_ns, end_ns)
        if due := history.due(keys):
            await self._flight((history, due), upstream, partial(history.fetch, due))
        try:
            past = history.read(keys, start_ns, end_ns)
        except NotYet:
            rest_s = max(_SOON_S, history.rest_s(keys))
            return refusal(503, "The source is being asked; ask again.", _retry(rest_s))
        except GridError as error:
            sentence = "The source does not tell this part of its past."
            return _failed(sentence, [(upstream.voice.source, error)], history.rest_s(keys))
        fields = signals_fields(place.zone, upstream.voice, past.signals)
        fields["fresh"] = not past.stale
        return self._told(scope, fields, past.fetched_ns or now_ns)

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
            for status in place.feed.statuses():
                who = (place.zone, status.source, "latest")
                asked += [Asked(*who, *found) for found in sorted(status.outcomes.items())]
            for upstream in place.upstreams:
                for what, part in (("forecast", upstream.ahead), ("history", upstream.history)):
                    who = (place.zone, upstream.voice.source, what)
                    outcomes = dict(part.outcomes) if part is not None else {}
                    asked += [Asked(*who, *found) for found in sorted(outcomes.items())]
            choice = place.feed.at(now_ns)
            signal = choice.signal if choice.level != FallbackLevel.TABLE else None
            kept = sum(one.history.held for one in place.upstreams if one.history is not None)
            held.append(Held(place.zone, signal, choice.level, kept))
        return Response(200, relay_page(__version__, self._answers, asked, held), TEXT_TYPE)

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

    async def _flight(self, key: Hashable, upstream: Upstream, work: Callable[[], None]) -> None:
        """Have a source asked, once for all who want the same; waits for a while."""
        task = self._flights.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(upstream.worker.run(work, _FLIGHT_S))
            self._flights[key] = task

            def landed(done: asyncio.Task[None]) -> None:
                self._flights.pop(key, None)
                error = None if done.cancelled() else done.exception()
                if error is not None and not isinstance(error, Busy | TimeoutError):
                    log.error("asking %s failed", upstream.voice.source, exc_info=error)

            task.add_done_callback(landed)
        # A client that goes away, or waits no longer, does not end it for the others.
        await asyncio.wait([task], timeout=self._wait_s)
        if task.done():
            task.result()

    def _told(self, scope: Scope, fields: dict[str, Any], fetched_ns: int | None) -> Response:
        """An answer with its mark; 304 to who has it already."""
        raw = json.dumps(fields, separators=(",", ":")).encode()
        mark = f'W/"{hashlib.sha256(raw).hexdigest()[:32]}"'
        headers = [("etag", mark), ("cache-control", "no-cache")]
        if fetched_ns is not None:
            age_s = max(0, self._clock.now().wall_ns - fetched_ns) // NS_PER_S
            fields["age_s"] = age_s
            headers.append(("age", str(age_s)))
        if _matches(header(scope, b"if-none-match").decode("latin-1"), mark):
            return Response(304, b"", JSON, tuple(headers))
        body = json.dumps(fields, separators=(",", ":")).encode() + b"\n"
        return Response(200, body, JSON, tuple(headers))


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


def _retry(seconds: int) -> tuple[str, str]:
    return ("retry-after", str(seconds))


def _failed(sentence: str, problems: Sequence[tuple[str, GridError]], rest_s: int) -> Response:
    """An answer that names what the sources failed at."""
    if not problems:
        return refusal(404, sentence) if rest_s != _SOON_S else refusal(503, sentence, _retry(2))
    return refusal(503, sentence, _retry(rest_s), hint=_words(problems))


def _words(problems: Iterable[tuple[str, GridError]]) -> str:
    return "; ".join(f"{name}: {error.message} [{error.outcome}]" for name, error in problems)
