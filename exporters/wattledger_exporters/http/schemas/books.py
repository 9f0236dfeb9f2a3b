"""Totals, settlement and the audit."""

from __future__ import annotations

from wattledger_exporters import report
from wattledger_exporters.http.schemas.terms import (
    EXACT,
    INSTANT,
    NUMBER,
    SIMULATED,
    STRESSED,
    TEXT,
    TRUTH,
    WHOLE,
    Schema,
    choice,
    listing,
    maybe,
    ref,
    thing,
)

_TEXTS = ("group", "basis", "basis_settled", "currency", "costs")


def totals_schemas() -> dict[str, Schema]:
    """Sums of a span."""
    columns = {
        name: EXACT if name.endswith(("_uj", "_ug", "_ul")) else NUMBER for name in report.FIELDS
    }
    columns |= {name: maybe(columns[name]) for name in report.MAY_LACK}
    row = thing({**columns, **dict.fromkeys(_TEXTS, TEXT)})
    totals = thing(
        {
            "since": maybe(INSTANT),
            "until": maybe(INSTANT),
            "by": choice(*report.GROUPINGS),
            "books_complete_until": maybe(INSTANT),
            "epoch": maybe(TEXT),
            "rows": listing(ref("TotalsRow")),
            "total": ref("TotalsRow"),
            "water_stress_weighted_l": maybe(STRESSED),
            "uncertainty": maybe(ref("Uncertainty")),
            "simulated": SIMULATED,
        }
    )
    return {"TotalsRow": row, "Totals": totals}


def books_schemas() -> dict[str, Schema]:
    """Settlement, verification and the audit."""
    settled = thing(
        {
            "since": maybe(INSTANT),
            "until": maybe(INSTANT),
            "changed_slots": WHOLE,
            "unpublished_kwh": NUMBER,
            "other_basis_kwh": NUMBER,
            "total": ref("TotalsRow"),
            "sources": listing(TEXT),
            "problems": listing(thing({"source": TEXT, "message": TEXT})),
        }
    )
    restatement = thing(
        {
            **dict.fromkeys(("author", "reason"), TEXT),
            **dict.fromkeys(("made", "since", "until"), maybe(INSTANT)),
            **dict.fromkeys(("pue", "wue_l_per_kwh", "ewif_l_per_kwh"), maybe(NUMBER)),
        }
    )
    restating = thing(
        {
            "finished": TRUTH,
            "message": maybe(TEXT),
            "recorded": TRUTH,
            "restatement": maybe(ref("Restatement")),
            "total": maybe(ref("TotalsRow")),
        }
    )
    record = {
        "type": "object",
        "required": ["record"],
        "properties": {
            "record": choice(
                "entry", "settlement", "history", "restatement", "price", "books", "row"
            )
        },
        "description": "exact integers are decimal texts",
    }
    return {
        "SettleReport": settled,
        "Settling": thing(
            {"finished": TRUTH, "message": maybe(TEXT), "report": maybe(ref("SettleReport"))}
        ),
        "Restatement": restatement,
        "Restatements": thing({"restatements": listing(ref("Restatement"))}),
        "Restating": restating,
        "Verification": thing({"balanced": TRUTH, "count": WHOLE, "differences": listing(TEXT)}),
        "Audit": thing({"records": listing(record), "next_cursor": maybe(TEXT)}),
    }
