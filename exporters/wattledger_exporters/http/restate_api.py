"""Restating over the API: what an operator says of the site's past, and what was ever said.

For operators only: it changes what the reports of all say.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import partial
from typing import Any

from wattledger import units
from wattledger.model.restating import END_S, HOUR_S, Restatement
from wattledger.model.settle_report import RestateResult
from wattledger.ports import Daemon
from wattledger.units import NS_PER_S
from wattledger_exporters import report
from wattledger_exporters.http.query import BadRequest, instant_ns, parameters
from wattledger_exporters.http.response import Response, answer
from wattledger_exporters.http.worker import Worker
from wattledger_exporters.when import iso

RESTATE_PATH = "/api/v1/restate"
WAIT_S = 20.0
TEXT_CHARS = 500
FACTORS = {
    "pue": ("pue_ppm", 1, 10),
    "wue_l_per_kwh": ("wue_ul_per_kwh", 0, 1000),
    "ewif_l_per_kwh": ("ewif_ul_per_kwh", 0, 1000),
}
"""What can be restated: the field of `Restatement`, and its bounds; as in the settings."""
PARAMETERS = (*FACTORS, "since", "until", "author", "reason", "made_at_ns")
MADE_AGO_NS = 86_400 * NS_PER_S  # for so long somebody may ask again with the same `made_at_ns`
MADE_AHEAD_NS = 60 * NS_PER_S  # by another machine's clock
_TIMEOUT_S = 60.0
_COUNT = re.compile(r"[0-9]{1,19}")
_NUMBER = re.compile(r"-?[0-9]{1,32}(\.[0-9]{1,32})?([eE][+-]?[0-9]{1,3})?")


class RestateApi:
    """The handlers; who may ask is for the caller to see to."""

    def __init__(self, daemon: Daemon, wait_s: float = WAIT_S) -> None:
        """Args: daemon: whose books. wait_s: how long an answer may wait for the restating."""
        self._daemon = daemon
        self._wait_s = wait_s
        self._worker = Worker("wattledger-restate", waiting=4)

    def stop(self) -> None:
        """End the thread, without waiting for it."""
        self._worker.stop()

    async def restate(self, query: bytes, now_ns: int) -> Response:
        """`POST /api/v1/restate`."""
        made = restatement_of(parameters(query, PARAMETERS), now_ns)
        restate = partial(self._daemon.restate, made, self._wait_s)
        return answer(200, restate_json(await self._worker.run(restate, _TIMEOUT_S)))

    async def listed(self, query: bytes) -> Response:
        """`GET /api/v1/restate`."""
        parameters(query, ())
        found = await self._worker.run(self._daemon.restatements, _TIMEOUT_S)
        return answer(200, list_json(found))


def restatement_of(given: Mapping[str, str], now_ns: int) -> Restatement:
    """What was asked for.

    Args:
        given: by the names of `PARAMETERS`.
        now_ns: wall clock, when it is said, unless that is given. Who asks again and gives the
            same waits for the same restatement.

    Raises:
        BadRequest: with a sentence.
    """
    factors: dict[str, int] = {}
    for name, (field, least, most) in FACTORS.items():
        if name not in given:
            continue
        value = Decimal(given[name]) if _NUMBER.fullmatch(given[name]) else Decimal(-1)
        if not least <= value <= most:
            raise BadRequest(f"{name}={given[name][:64]!r} is not from {least} to {most}.")
        factors[field] = units.micro(value)
    if not factors:
        raise BadRequest(f"Say what is restated: {', '.join(FACTORS)}.")
    if "since" not in given:
        raise BadRequest("Say from when on it holds, with since.")
    from_s = _hour_s("since", given["since"], now_ns)
    to_s = _hour_s("until", given["until"], now_ns) if "until" in given else END_S
    if to_s <= from_s:
        raise BadRequest("until does not lie after since.")
    author, reason = (_text(name, given.get(name, "")) for name in ("author", "reason"))
    made_at_ns = _made_at_ns(given["made_at_ns"], now_ns) if "made_at_ns" in given else now_ns
    return Restatement(author, reason, made_at_ns, from_s, to_s, **factors)


def _made_at_ns(text: str, now_ns: int) -> int:
    made_at_ns = int(text) if _COUNT.fullmatch(text) else 0
    if not now_ns - MADE_AGO_NS <= made_at_ns <= now_ns + MADE_AHEAD_NS:
        raise BadRequest(
            f"made_at_ns={text[:64]!r} is no instant of the last day, in nanoseconds since 1970."
        )
    return made_at_ns


def _hour_s(name: str, text: str, now_ns: int) -> int:
    found_s, rest_ns = divmod(instant_ns(name, text, now_ns), NS_PER_S)
    if rest_ns or found_s % HOUR_S:
        raise BadRequest(
            f"{name}={text[:64]!r} is not on a full hour of UTC, which old books are kept by."
        )
    return found_s


def _text(name: str, text: str) -> str:
    """Who says it or why, in one line; what a ledger cannot keep is replaced."""
    if not text.strip():
        raise BadRequest(f"Say {'who says so' if name == 'author' else 'why'}, with {name}.")
    if len(text) > TEXT_CHARS:
        raise BadRequest(f"{name} is longer than {TEXT_CHARS} characters.")
    return " ".join(text.split()).encode("utf-8", "replace").decode().replace("\0", "\ufffd")


def restatement_json(one: Restatement) -> dict[str, Any]:
    """One restatement; a factor that it leaves alone is null, and so is the end that it lacks."""
    return {
        "author": one.author,
        "reason": one.reason,
        "made": iso(one.made_at_ns),
        "since": iso(one.from_s * NS_PER_S),
        "until": None if one.to_s == END_S else iso(one.to_s * NS_PER_S),
        **{
            name: None if (value := getattr(one, field)) is None else value / units.PPM
            for name, (field, _, _) in FACTORS.items()
        },
    }


def list_json(found: Sequence[Restatement]) -> dict[str, Any]:
    """The answer of `GET /api/v1/restate`."""
    return {"restatements": [restatement_json(one) for one in found]}


def restate_json(result: RestateResult) -> dict[str, Any]:
    """The answer of `POST /api/v1/restate`."""
    one, total = result.restatement, result.total
    return {
        "finished": result.finished,
        "message": result.message or None,
        "recorded": result.is_new,
        "restatement": None if one is None else restatement_json(one),
        "total": None if total is None else report.row_dict(total),
    }
