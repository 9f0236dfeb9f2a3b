"""The schemas of what the API answers, as strict as the answers are; a test holds them together."""

from __future__ import annotations

from typing import Any

from wattledger.model import Basis, Kind, Quality
from wattledger.model.jobs import MANAGERS
from wattledger_exporters import report

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "number"}
WHOLE: Schema = {"type": "integer"}
TRUTH: Schema = {"type": "boolean"}
SHARE: Schema = {"type": "number", "minimum": 0, "maximum": 1}
INSTANT: Schema = {"type": "string", "format": "date-time"}
EXACT: Schema = {
    "type": "string",
    "pattern": "^[0-9]+$",
    "description": "an exact integer, since a JSON number is a float64 for most readers",
}


def ref(name: str) -> Schema:
    """One of `schemas()`."""
    return {"$ref": f"#/components/schemas/{name}"}


def maybe(schema: Schema) -> Schema:
    """That, or null."""
    if "$ref" in schema:
        return {"anyOf": [schema, {"type": "null"}]}
    return {**schema, "type": [schema["type"], "null"]}


def listing(items: Schema) -> Schema:
    """An array of these."""
    return {"type": "array", "items": items}


def thing(properties: dict[str, Schema]) -> Schema:
    """An object that has these properties, all of them and no others."""
    return {
        "type": "object",
        "required": list(properties),
        "properties": properties,
        "additionalProperties": False,
    }


def mapping(values: Schema) -> Schema:
    """An object whose names are not known before."""
    return {"type": "object", "additionalProperties": values}


def choice(*values: str) -> Schema:
    """One of these texts."""
    return {"type": "string", "enum": list(values)}


def schemas() -> dict[str, Schema]:
    """All of them by name."""
    error = thing({"error": TEXT, "hint": TEXT})
    return {
        "Error": {**error, "required": ["error"]},
        "Health": thing({"status": TEXT}),
        "Ready": thing({"status": TEXT, "books": maybe(INSTANT)}),
        "Message": thing({"message": TEXT}),
        "Cost": thing({"amount": NUMBER, "currency": TEXT}),
        **_totals(),
        **_jobs(),
        **_runs(),
        **_waste(),
        **_status(),
    }


def _totals() -> dict[str, Schema]:
    columns = {
        name: EXACT if name.endswith(("_uj", "_ug", "_ul")) else NUMBER for name in report.FIELDS
    }
    row = thing({**columns, "group": TEXT, "basis": TEXT})
    totals = thing(
        {
            "since": maybe(INSTANT),
            "until": maybe(INSTANT),
            "by": choice(*report.GROUPINGS),
            "books_complete_until": maybe(INSTANT),
            "epoch": maybe(TEXT),
            "rows": listing(ref("TotalsRow")),
            "total": ref("TotalsRow"),
        }
    )
    return {"TotalsRow": row, "Totals": totals}


def _jobs() -> dict[str, Schema]:
    kinds = [kind.value for kind in Kind]
    exact = [
        *(f"energy_uj_{kind}" for kind in kinds),
        *("energy_uj", "co2e_ug", "water_onsite_ul", "water_grid_ul"),
        *("held_ms", "held_idle_ms", "held_idle_uj"),
    ]
    amounts = thing(
        {
            "energy_kwh": thing(dict.fromkeys([*kinds, "total"], NUMBER)),
            "co2e_g": NUMBER,
            "co2e_g_by_basis": mapping(NUMBER),
            "water_l": thing(dict.fromkeys(["onsite", "grid", "total"], NUMBER)),
            "held_device_hours": NUMBER,
            "held_idle_device_hours": NUMBER,
            "held_idle_kwh": NUMBER,
            "exact": thing(dict.fromkeys(exact, EXACT)),
        }
    )
    common = {
        "manager": choice(*MANAGERS),
        "job_id": TEXT,
        "state": choice("running", "ended"),
        "start": INSTANT,
        "end": maybe(INSTANT),
        "duration_s": NUMBER,
        "uid": maybe(WHOLE),
        "labels": mapping(TEXT),
        "totals": ref("JobAmounts"),
    }
    now = {
        **NUMBER,
        "description": "the job's mean power over the last commit's window; null: none is known",
    }
    of_run = {"start_ns": EXACT, "devices": listing(ref("HeldDevice")), "power_w": maybe(now)}
    run = thing({**common, **of_run})
    grid = thing(
        {
            "zone": TEXT,
            "source": TEXT,
            "basis": choice(*(basis.value for basis in Basis)),
            "estimated": TRUTH,
            "energy_share": SHARE,
            "mean_intensity_g_per_kwh": maybe(NUMBER),
            "pue": NUMBER,
        }
    )
    moment = thing(
        {"start": INSTANT, "kind": choice(*kinds), "energy_kwh": NUMBER, "energy_uj": EXACT}
    )
    job = thing(
        {
            **common,
            "cost": maybe(ref("Cost")),
            "held_idle_cost": maybe(ref("Cost")),
            "mean_watts": maybe(NUMBER),
            "quality": ref("QualityShares"),
            "estimated_share": SHARE,
            "grid": listing(ref("GridPart")),
            "advice": listing(TEXT),
            "runs": listing(ref("JobRun")),
            "run_count": WHOLE,
            "timeline_grain_s": WHOLE,
            "timeline": listing(moment),
            "restricted_to_uid": maybe(WHOLE),
        }
    )
    jobs = thing(
        {
            "jobs": listing(ref("JobRun")),
            "next_cursor": maybe(TEXT),
            "restricted_to_uid": maybe(WHOLE),
        }
    )
    return {"JobAmounts": amounts, "JobRun": run, "GridPart": grid, "Jobs": jobs, "Job": job}


def _runs() -> dict[str, Schema]:
    job = thing({"manager": choice(*MANAGERS), "job_id": TEXT})
    begun = thing(
        {
            "id": TEXT,
            "start": INSTANT,
            "start_ns": EXACT,
            "step_of": maybe(ref("JobKey")),
            "gpus": listing(TEXT),
        }
    )
    amounts = _jobs()["JobAmounts"]["properties"]
    same = ("energy_kwh", "co2e_g", "water_l", "held_device_hours", "held_idle_device_hours")
    exact = {**amounts["exact"]["properties"], "start_ns": EXACT, "end_ns": EXACT}
    receipt = thing(
        {
            "name": TEXT,
            "manager": choice(*MANAGERS),
            "job_id": TEXT,
            "step_of": maybe(ref("JobKey")),
            "start": INSTANT,
            "end": maybe(INSTANT),
            "since": maybe(INSTANT),
            "duration_s": NUMBER,
            "exit_code": maybe(WHOLE),
            **{name: amounts[name] for name in (*same, "held_idle_kwh")},
            "cost": maybe(ref("Cost")),
            "mean_watts": NUMBER,
            "quality": ref("QualityShares"),
            "estimated_share": SHARE,
            "grid": listing(ref("GridPart")),
            "devices": listing(ref("HeldDevice")),
            "measured_by": choice("daemon", "direct"),
            "complete": TRUTH,
            "exact": thing(exact),
        }
    )
    quality = {
        "type": "object",
        "properties": {quality.value: SHARE for quality in Quality},
        "additionalProperties": False,
        "description": "shares of the energy by how it was measured",
    }
    return {
        "JobKey": job,
        "Run": begun,
        "Receipt": receipt,
        "QualityShares": quality,
        "HeldDevice": thing({"device": TEXT, "share": SHARE, "exact": TRUTH}),
    }


def _waste() -> dict[str, Schema]:
    exact = (
        "held_ms",
        "held_idle_ms",
        "held_idle_uj",
        "held_uj",
        "held_facility_uj",
        "held_idle_facility_uj",
    )
    row = thing(
        {
            "group": TEXT,
            "runs": WHOLE,
            "held_gpu_hours": NUMBER,
            "held_idle_gpu_hours": NUMBER,
            "idle_time_share": maybe(SHARE),
            "held_kwh": NUMBER,
            "held_idle_kwh": NUMBER,
            "idle_energy_share": maybe(SHARE),
            "held_idle_cost": maybe(ref("Cost")),
            "held_cost": maybe(ref("Cost")),
            "exact": thing(dict.fromkeys(exact, EXACT)),
        }
    )
    idle = thing(
        {
            "energy_kwh": NUMBER,
            "cost": maybe(ref("Cost")),
            "exact": thing(dict.fromkeys(("energy_uj", "facility_uj"), EXACT)),
        }
    )
    waste = thing(
        {
            "since": maybe(INSTANT),
            "until": maybe(INSTANT),
            "by": TEXT,
            "rows": listing(ref("WasteRow")),
            "total": ref("WasteRow"),
            "idle": idle,
            "restricted_to_uid": maybe(WHOLE),
        }
    )
    return {"WasteRow": row, "Waste": waste}


def _status() -> dict[str, Schema]:
    signal = {
        "intensity_g_per_kwh": NUMBER,
        "zone": TEXT,
        "source": TEXT,
        "basis": TEXT,
        "valid_from": maybe(INSTANT),
        "valid_to": maybe(INSTANT),
        "age_s": NUMBER,
        "fetched": maybe(INSTANT),
        "estimated": TRUTH,
    }
    device = {
        "device": TEXT,
        "kind": choice(*(kind.value for kind in Kind)),
        "model": maybe(TEXT),
        "meter": TEXT,
        "index": maybe(TEXT),
        "pci": maybe(TEXT),
        "present": TRUTH,
        "quality": maybe(TEXT),
        "power_w": maybe(NUMBER),
        "energy_kwh": NUMBER,
        "energy_uj": EXACT,
        "unobserved_s": NUMBER,
        "counter_resets": WHOLE,
        "counter_power_ratio": maybe(NUMBER),
    }
    meter = {
        "meter": TEXT,
        "up": TRUTH,
        "last_success": maybe(INSTANT),
        "errors": mapping(WHOLE),
        "missed_ticks": WHOLE,
        "message": maybe(TEXT),
        "hint": maybe(TEXT),
    }
    source = {
        "source": TEXT,
        "requests": mapping(WHOLE),
        "last_success": maybe(INSTANT),
        "last_signal": maybe(ref("GridSignal")),
        "message": maybe(TEXT),
        "hint": maybe(TEXT),
    }
    factor = thing({"value": NUMBER, "source": TEXT})
    price = thing({"value": NUMBER, "currency": TEXT})
    ledger = {
        "path": TEXT,
        "storage": choice("disk", "volatile"),
        "epoch": TEXT,
        "epoch_start": maybe(INSTANT),
        "commits": WHOLE,
        "commit_errors": WHOLE,
        "last_commit": maybe(INSTANT),
        "last_commit_seconds": maybe(NUMBER),
        "pending_entries": WHOLE,
        "size_bytes": WHOLE,
        "quarantined": maybe(TEXT),
        "message": maybe(TEXT),
        "hint": maybe(TEXT),
    }
    status = {
        "version": TEXT,
        "simulated": maybe(TEXT),
        "now": INSTANT,
        "started": maybe(INSTANT),
        "snapshot_taken": maybe(INSTANT),
        "books_complete_until": maybe(INSTANT),
        "released_until": maybe(INSTANT),
        "totals": ref("TotalsRow"),
        "devices": listing(thing(device)),
        "meters": listing(thing(meter)),
        "grid": thing({**signal, "level": WHOLE, "level_name": TEXT}),
        "grid_sources": listing(thing(source)),
        "site": thing(
            {
                **dict.fromkeys(("pue", "wue_l_per_kwh", "ewif_l_per_kwh"), factor),
                "price_per_kwh": {"anyOf": [price, {"type": "null"}]},
            }
        ),
        "claim_faults": listing(thing({"source": TEXT, "message": TEXT, "hint": maybe(TEXT)})),
        "ledger": thing(ledger),
    }
    return {"GridSignal": thing(signal), "Status": thing(status)}
