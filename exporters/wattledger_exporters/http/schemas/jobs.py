"""Jobs, their runs, receipts and what was held for nothing."""

from __future__ import annotations

from wattledger.model import Basis, Kind, Quality
from wattledger.model.jobs import MANAGERS
from wattledger_exporters.http.schemas.terms import (
    COSTS,
    EXACT,
    INSTANT,
    NUMBER,
    SHARE,
    SIMULATED,
    STRESSED,
    TEXT,
    TRUTH,
    WHOLE,
    Schema,
    choice,
    listing,
    mapping,
    maybe,
    ref,
    sums,
    thing,
)


def jobs_schemas() -> dict[str, Schema]:
    """Jobs and their receipts."""
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
        "settled": maybe(ref("SettledAmounts")),
        **sums(),
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
            "uncertainty": maybe(ref("Uncertainty")),
            "water_stress_weighted_l": maybe(STRESSED),
            "held_idle_cost": maybe(ref("Cost")),
            "held_idle_costs": COSTS,
            "unmeasured_s": {
                **NUMBER,
                "description": "how much of duration_s was before the ledger began",
            },
            "mean_watts": {
                **maybe(NUMBER),
                "description": "over the time that was measured; null: there is none",
            },
            "quality": ref("QualityShares"),
            "estimated_share": SHARE,
            "grid": listing(ref("GridPart")),
            "advice": listing(TEXT),
            "runs": listing(ref("JobRun")),
            "run_count": WHOLE,
            "timeline_grain_s": WHOLE,
            "timeline": listing(moment),
            "restricted_to_uid": maybe(WHOLE),
            "simulated": SIMULATED,
        }
    )
    settled = thing(
        {
            **dict.fromkeys(("energy_kwh", "restated_kwh"), NUMBER),
            **dict.fromkeys(("co2e_g", "co2e_difference_g"), NUMBER),
            "co2e_g_by_basis": mapping(NUMBER),
            **dict.fromkeys(("water_grid_l", "water_onsite_l"), NUMBER),
            "exact": thing(
                dict.fromkeys(
                    ("energy_uj", "restated_uj", "co2e_ug", "water_grid_ul", "water_onsite_ul"),
                    EXACT,
                )
            ),
        }
    )
    jobs = thing(
        {
            "jobs": listing(ref("JobRun")),
            "next_cursor": maybe(TEXT),
            "restricted_to_uid": maybe(WHOLE),
            "simulated": SIMULATED,
        }
    )
    return {
        "JobAmounts": amounts,
        "SettledAmounts": settled,
        "JobRun": run,
        "GridPart": grid,
        "Jobs": jobs,
        "Job": job,
    }


def runs_schemas() -> dict[str, Schema]:
    """What `wattledger run` asks for and gets."""
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
    amounts = jobs_schemas()["JobAmounts"]["properties"]
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
            "uncertainty": maybe(ref("Uncertainty")),
            "water_stress_weighted_l": maybe(STRESSED),
            **sums(),
            "mean_watts": NUMBER,
            "quality": ref("QualityShares"),
            "estimated_share": SHARE,
            "grid": listing(ref("GridPart")),
            "devices": listing(ref("HeldDevice")),
            "measured_by": choice("daemon", "direct"),
            "simulated": SIMULATED,
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


def waste_schemas() -> dict[str, Schema]:
    """What was held for nothing."""
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
            "held_idle_costs": COSTS,
            "held_cost": maybe(ref("Cost")),
            "held_costs": COSTS,
            "embodied_co2e_g": sums()["embodied_co2e_g"],
            "exact": thing(dict.fromkeys(exact, EXACT)),
        }
    )
    idle = thing(
        {
            "energy_kwh": NUMBER,
            "cost": maybe(ref("Cost")),
            "costs": COSTS,
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
            "simulated": SIMULATED,
        }
    )
    return {"WasteRow": row, "Waste": waste}
