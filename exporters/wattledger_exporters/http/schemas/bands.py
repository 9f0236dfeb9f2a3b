"""How sure totals are."""

from __future__ import annotations

from wattledger.model.uncertainty import TERM_NAMES
from wattledger_exporters.http.schemas.terms import (
    NUMBER,
    SHARE,
    TEXT,
    Schema,
    choice,
    listing,
    maybe,
    ref,
    thing,
)


def bands_schemas() -> dict[str, Schema]:
    """Bands and the terms that they are made of."""
    term = thing(
        {
            "name": choice(*TERM_NAMES),
            "of": TEXT,
            "share": {**SHARE, "description": "of the amount, that the term applies to"},
            "low": SHARE,
            "high": {"type": "number", "minimum": 1},
            "why": TEXT,
        }
    )
    band = thing({"low": NUMBER, "high": NUMBER, "terms": listing(ref("UncertaintyTerm"))})
    band["description"] = (
        "The least and the most that the amount may be, in its unit: its product with "
        "exp(-+sqrt(sum over names of (sum of share * ln(factor))^2)). Judged from published "
        "ranges, no confidence interval."
    )
    quantities = ("energy_kwh", "co2e_g", "co2e_settled_g", "water_l", "embodied_co2e_g")
    whole = thing({**dict.fromkeys(quantities, maybe(ref("Band"))), "note": TEXT})
    return {"UncertaintyTerm": term, "Band": band, "Uncertainty": whole}
