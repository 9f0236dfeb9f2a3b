"""The schemas of what the API answers, as strict as the answers are; a test holds them together."""

from __future__ import annotations

from wattledger_exporters.http.schemas.bands import bands_schemas
from wattledger_exporters.http.schemas.books import books_schemas, totals_schemas
from wattledger_exporters.http.schemas.jobs import jobs_schemas, runs_schemas, waste_schemas
from wattledger_exporters.http.schemas.status import status_schemas
from wattledger_exporters.http.schemas.terms import (
    INSTANT,
    NUMBER,
    SHARE,
    TEXT,
    Schema,
    maybe,
    thing,
)


def schemas() -> dict[str, Schema]:
    """All of them by name."""
    error = thing({"error": TEXT, "hint": TEXT})
    return {
        "Error": {**error, "required": ["error"]},
        "Health": thing({"status": TEXT}),
        "Ready": thing({"status": TEXT, "books": maybe(INSTANT)}),
        "Message": thing({"message": TEXT}),
        "Cost": thing({"amount": NUMBER, "currency": TEXT}),
        "CostShare": thing({"amount": NUMBER, "currency": TEXT, "energy_share": SHARE}),
        **bands_schemas(),
        **totals_schemas(),
        **jobs_schemas(),
        **runs_schemas(),
        **waste_schemas(),
        **books_schemas(),
        **status_schemas(),
    }
