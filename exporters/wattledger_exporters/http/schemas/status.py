"""`/api/v1/status`."""

from __future__ import annotations

from wattledger.model import Kind
from wattledger_exporters.http.schemas.terms import (
    EXACT,
    INSTANT,
    NUMBER,
    TEXT,
    TRUTH,
    WHOLE,
    Schema,
    choice,
    listing,
    mapping,
    maybe,
    ref,
    thing,
)


def status_schemas() -> dict[str, Schema]:
    """`/api/v1/status`."""
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
        "basis_fallbacks": WHOLE,
        "message": maybe(TEXT),
        "hint": maybe(TEXT),
    }
    of_site = ("source", "requests", "last_success", "message", "hint")
    site_source = {name: source[name] for name in of_site}
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
    exporter = {
        "exporter": TEXT,
        "up": TRUTH,
        "last_success": maybe(INSTANT),
        "errors": mapping(WHOLE),
        "message": maybe(TEXT),
        "hint": maybe(TEXT),
        "runs_delivered": maybe(WHOLE),
        "runs_waiting": maybe(WHOLE),
        "runs_refused": maybe(WHOLE),
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
        "exporters": listing(thing(exporter)),
        "web": {
            "anyOf": [
                thing(
                    {
                        "certificate_until": maybe(INSTANT),
                        "message": maybe(TEXT),
                        "concerns": listing(thing({"message": TEXT, "hint": TEXT})),
                    }
                ),
                {"type": "null"},
            ]
        },
        "grid": thing({**signal, "level": WHOLE, "level_name": TEXT}),
        "grid_sources": listing(thing(source)),
        "site_sources": listing(thing(site_source)),
        "site": thing(
            {
                **dict.fromkeys(("pue", "wue_l_per_kwh", "ewif_l_per_kwh"), factor),
                "water_stress_factor": maybe(NUMBER),
                "price_per_kwh": {"anyOf": [price, {"type": "null"}]},
                "market_g_per_kwh": maybe(NUMBER),
            }
        ),
        "embodied": thing(
            {
                "gpus_g_per_h": maybe(NUMBER),
                "gpus_source": maybe(TEXT),
                "host_g_per_h": maybe(NUMBER),
                "host_source": maybe(TEXT),
                "unknown_models": listing(TEXT),
            }
        ),
        "claim_faults": listing(thing({"source": TEXT, "message": TEXT, "hint": maybe(TEXT)})),
        "ledger": thing(ledger),
    }
    return {"GridSignal": thing(signal), "Status": thing(status)}
