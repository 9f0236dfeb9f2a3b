"""`wattledger settle`: by the running daemon, or under its ledger's lock while it is stopped."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

from wattledger import build
from wattledger.audit.here import books_here
from wattledger.config import Config
from wattledger.errors import ConfigError, DaemonUnreachable
from wattledger.model.settle_report import SettleResult
from wattledger.remote import Remote
from wattledger.restater import restate
from wattledger.settle_desk import SWITCHED_OFF
from wattledger.settler import DAY_NS, Settler
from wattledger.units import format_duration
from wattledger_exporters.http.settle_api import SETTLE_PATH, settle_json
from wattledger_exporters.wording import CO2E, percent, printable, signed

FAILED_EXIT = 1


def settle_command(
    options: argparse.Namespace, config: Callable[[], Config], remote: Remote
) -> int:
    """Settles and prints what came of it.

    Returns:
        The exit code: 1 where a source could not be asked, or it failed as a whole.

    Raises:
        ConfigError: more days than the window.
        LedgerError: no daemon runs, and its ledger cannot be opened either.
    """
    settings = config()
    window_ns = int(settings.grid.settle_window)
    if options.days is not None and not 0 < options.days * DAY_NS <= window_ns:
        text = f"is not from 1 to grid.settle_window ({format_duration(window_ns)})"
        raise ConfigError([("--days", text)])
    query = {} if options.days is None else {"days": str(options.days)}
    answer: Mapping[str, Any] = {"finished": False}
    try:
        while not answer["finished"]:
            answer = remote.request(SETTLE_PATH, query, method="POST")
    except DaemonUnreachable:
        wanted_ns = window_ns if options.days is None else options.days * DAY_NS
        answer = settle_json(_settle_here(settings, wanted_ns))
    text = (
        json.dumps(answer, indent=2) if options.json else "\n".join(map(printable, lines(answer)))
    )
    sys.stdout.write(text + "\n")
    failed = answer["message"] is not None or answer["report"]["problems"]
    return FAILED_EXIT if failed else 0


def _settle_here(config: Config, window_ns: int) -> SettleResult:
    if not window_ns:
        return SettleResult(True, message=SWITCHED_OFF)
    sources = build.settle_sources(config)
    with books_here(config) as here:
        restate(here.reader, here.clock.now().wall_ns, here.take)
        settler = Settler(sources, here.reader, here.clock, here.take)
        return SettleResult(True, settler.settle(window_ns))


def lines(answer: Mapping[str, Any]) -> list[str]:
    """What came of it, for people.

    Args:
        answer: of `POST /api/v1/settle`.
    """
    if answer["message"] is not None:
        return [f"Not settled: {answer['message']}."]
    report = answer["report"]
    total = report["total"]
    energy, settled = float(total["energy_kwh"]), float(total["settled_kwh"])
    booked_g, settled_g = float(total["co2e_g"]), float(total["co2e_settled_g"])
    share = percent(settled / energy) if energy else "nothing"
    span = f"From {report['since']} to {report['until']}: {energy:,.6f} kWh"
    old, new = [f" ({total[name]})" if total[name] else "" for name in ("basis", "basis_settled")]
    change = signed(settled_g - booked_g, CO2E)
    found = [
        f"{span}, of which {share} is settled; {report['changed_slots']} prices of slots changed.",
        f"CO2e: booked {booked_g:,.3f} g{old}, settled {settled_g:,.3f} g{new}: {change}.",
    ]
    if report["unpublished_kwh"]:
        found.append(f"{report['unpublished_kwh']:,.6f} kWh: no source has published its price.")
    if report["other_basis_kwh"]:
        found.append(
            f"{report['other_basis_kwh']:,.6f} kWh: its source priced it, and publishes it on "
            "another basis by now, which is no correction of what was booked."
        )
    if not report["sources"] and energy > settled:
        found.append("No source with a history is configured that priced it.")
    found += [f"{problem['source']}: {problem['message']}" for problem in report["problems"]]
    return found
