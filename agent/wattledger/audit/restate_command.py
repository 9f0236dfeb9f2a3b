"""`wattledger restate`: by the running daemon, or under its ledger's lock while it is stopped."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from wattledger import build
from wattledger.audit.here import books_here
from wattledger.config import Config
from wattledger.errors import ConfigError, DaemonUnreachable
from wattledger.ledger import open_reader_offline
from wattledger.model.restating import Restatement
from wattledger.model.settle_report import RestateResult
from wattledger.remote import Remote
from wattledger.restater import record, restate, restated_total
from wattledger_exporters.http.query import BadRequest
from wattledger_exporters.http.restate_api import (
    FACTORS,
    PARAMETERS,
    RESTATE_PATH,
    list_json,
    restate_json,
    restatement_of,
)
from wattledger_exporters.wording import CO2E, WATER, printable, signed

FAILED_EXIT = 1
_NAMES = {"pue": "PUE", "wue_l_per_kwh": "WUE", "ewif_l_per_kwh": "EWIF"}
_UNITS = {"pue": "", "wue_l_per_kwh": " L/kWh", "ewif_l_per_kwh": " L/kWh"}


def restate_command(
    options: argparse.Namespace, config: Callable[[], Config], remote: Remote
) -> int:
    """Restates, or lists what was, and prints what came of it.

    Returns:
        The exit code: 1 where it failed.

    Raises:
        ConfigError: an option that is missing or cannot be.
        LedgerError: no daemon runs, and its ledger cannot be opened either.
    """
    if options.list:
        answer, said = _list(config, remote), listed
    else:
        answer, said = _restate(options, config, remote), lines
    text = json.dumps(answer, indent=2) if options.json else "\n".join(map(printable, said(answer)))
    sys.stdout.write(text + "\n")
    return FAILED_EXIT if answer.get("message") else 0


def _list(config: Callable[[], Config], remote: Remote) -> Mapping[str, Any]:
    answer: Mapping[str, Any]
    try:
        answer = remote.request(RESTATE_PATH)
    except DaemonUnreachable:
        reader = open_reader_offline(build.ledger_path(config()))
        try:
            answer = list_json(reader.restatements())
        finally:
            reader.close()
    return answer


def _restate(
    options: argparse.Namespace, config: Callable[[], Config], remote: Remote
) -> Mapping[str, Any]:
    texts = {name: getattr(options, name, None) for name in PARAMETERS}
    asked = {name: text for name, text in texts.items() if text is not None}
    now_ns = time.time_ns()
    asked["made_at_ns"] = str(now_ns)  # who asks again waits for this one, not for another's
    try:
        made = restatement_of(asked, now_ns)
    except BadRequest as error:
        raise ConfigError([("restate", str(error))]) from error
    recorded = False
    try:
        while True:
            answer = remote.request(RESTATE_PATH, asked, method="POST")
            recorded = recorded or answer["recorded"]
            if answer["finished"]:
                return {**answer, "recorded": recorded}
    except DaemonUnreachable:
        return restate_json(_restate_here(config(), made))


def _restate_here(config: Config, made: Restatement) -> RestateResult:
    with books_here(config) as here:
        new = record([made], here.ledger.books.restatements, here.take)
        restate(here.reader, here.clock.now().wall_ns, here.take)
        return RestateResult(True, made, bool(new), restated_total(here.reader, made))


def lines(answer: Mapping[str, Any]) -> list[str]:
    """What came of it, for people.

    Args:
        answer: of `POST /api/v1/restate`, finished.
    """
    if answer["message"] is not None:
        return [f"Not restated: {answer['message']}."]
    total, one = answer["total"], answer["restatement"]
    energy, restated = float(total["energy_kwh"]), float(total["restated_kwh"])
    found = [
        f"{_said(one)}: {'recorded' if answer['recorded'] else 'in force already, nothing new'}.",
        f"{energy:,.6f} kWh of that time, of which {restated:,.6f} kWh are restated.",
    ]
    for name, booked, final, unit, units in (
        ("CO2e", "co2e_g", "co2e_settled_g", "g", CO2E),
        ("Water on site", "water_onsite_l", "water_onsite_settled_l", "L", WATER),
        ("Water of the grid", "water_grid_l", "water_grid_settled_l", "L", WATER),
    ):
        was, now = float(total[booked]), float(total[final])
        label = f" ({total['basis_settled']})" if unit == "g" and total["basis_settled"] else ""
        found.append(
            f"{name}: booked {was:,.3f} {unit}, final {now:,.3f} {unit}{label}, "
            f"{signed(now - was, units)}."
        )
    return found


def listed(answer: Mapping[str, Any]) -> list[str]:
    """Every restatement, for people.

    Args:
        answer: of `GET /api/v1/restate`.
    """
    return [
        f"{one['made']}  {_said(one)}, by {one['author']}: {one['reason']}"
        for one in answer["restatements"]
    ] or ["Nothing was ever restated."]


def _said(one: Mapping[str, Any]) -> str:
    factors = [
        f"{_NAMES[name]} {one[name]:g}{_UNITS[name]}" for name in FACTORS if one[name] is not None
    ]
    return f"{', '.join(factors)} from {one['since']} to {one['until'] or 'now on'}"
