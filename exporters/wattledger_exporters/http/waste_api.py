"""The body of `/api/v1/waste`: who held GPUs and let them idle. Pure: no clock, no socket."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from wattledger import units
from wattledger.model.jobbooks import Waste, WasteRow
from wattledger.model.jobs import Held
from wattledger.units import NS_PER_MS
from wattledger_exporters.http.query import BadRequest, instant_ns, one_of
from wattledger_exporters.sums import cost_of, costs_of
from wattledger_exporters.when import iso

PARAMETERS = ("since", "until", "by")
BY = ("user", "account")
DEFAULT_SINCE = "7d"
_HOUR_S = 3600.0


class WasteQuery(NamedTuple):
    """What `/api/v1/waste` was asked for."""

    since_ns: int
    until_ns: int
    by: str


def waste_query(given: Mapping[str, str], now_ns: int) -> WasteQuery:
    """Check the parameters; without `since` the last seven days are meant.

    Raises:
        BadRequest: with a sentence.
    """
    by = one_of("by", given.get("by", "user"), BY)
    until_ns = instant_ns("until", given["until"], now_ns) if "until" in given else now_ns
    since_ns = instant_ns("since", given.get("since", DEFAULT_SINCE), now_ns)
    if since_ns > until_ns:
        raise BadRequest(f"since ({iso(since_ns)}) lies after until ({iso(until_ns)}).")
    return WasteQuery(since_ns, until_ns, by)


def waste(asked: WasteQuery, found: Waste, uid: int | None, simulated: str = "") -> dict[str, Any]:
    """The answer of `/api/v1/waste`.

    Args:
        asked: the query.
        found: what the ledger answers to it.
        uid: only this user's; None: everybody's.
        simulated: the scenario where the GPUs are, else empty.
    """
    whole = WasteRow("all", 0, Held(), 0, 0, 0)
    for row in found.rows:
        whole = whole.plus(row)
    return {
        "since": iso(asked.since_ns),
        "until": iso(asked.until_ns),
        "by": asked.by,
        "rows": [_row(row) for row in found.rows],
        "total": _row(whole),
        "idle": {
            "energy_kwh": units.kwh(found.unheld_uj),
            "cost": cost_of(found.unheld_sums),
            "costs": costs_of(found.unheld_sums, found.unheld_uj),
            "exact": {
                "energy_uj": str(found.unheld_uj),
                "facility_uj": str(found.unheld_facility_uj),
            },
        },
        "restricted_to_uid": uid,
        "simulated": simulated or None,
    }


def _row(row: WasteRow) -> dict[str, Any]:
    held = row.held
    return {
        "group": row.group,
        "runs": row.runs,
        "held_gpu_hours": _hours(held.held_ms),
        "held_idle_gpu_hours": _hours(held.idle_ms),
        "idle_time_share": held.idle_ms / held.held_ms if held.held_ms else None,
        "held_kwh": units.kwh(row.energy_uj),
        "held_idle_kwh": units.kwh(held.idle_uj),
        "idle_energy_share": held.idle_uj / row.energy_uj if row.energy_uj else None,
        "held_idle_cost": cost_of(row.idle_sums),
        "held_idle_costs": costs_of(row.idle_sums, held.idle_uj),
        "held_cost": cost_of(row.sums),
        "held_costs": costs_of(row.sums, row.energy_uj),
        "embodied_co2e_g": row.sums.embodied_g,
        "exact": {
            "held_ms": str(held.held_ms),
            "held_idle_ms": str(held.idle_ms),
            "held_idle_uj": str(held.idle_uj),
            "held_uj": str(row.energy_uj),
            "held_facility_uj": str(row.facility_uj),
            "held_idle_facility_uj": str(row.idle_facility_uj),
        },
    }


def _hours(ms: int) -> float:
    return units.seconds(ms * NS_PER_MS) / _HOUR_S
