"""What schemas are written in."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "number"}
WHOLE: Schema = {"type": "integer"}
TRUTH: Schema = {"type": "boolean"}
SHARE: Schema = {"type": "number", "minimum": 0, "maximum": 1}
STRESSED: Schema = {
    "type": "number",
    "description": "litres world-eq: on-site water × site.water_stress_factor (AWARE)",
}
SIMULATED: Schema = {
    "type": ["string", "null"],
    "description": "the scenario where the GPUs are; null: they are real",
}
INSTANT: Schema = {"type": "string", "format": "date-time"}
EXACT: Schema = {
    "type": "string",
    "pattern": "^[0-9]+$",
    "description": "an exact integer, since a JSON number is a float64 for most readers",
}
COSTS: Schema = {
    "type": "array",
    "items": {"$ref": "#/components/schemas/CostShare"},
    "description": "one for each currency; energy_share is that of which a price was known",
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


def sums() -> dict[str, Schema]:
    """Money, market-based and embodied CO2e, of what was booked."""
    by_contracts = {**NUMBER, "description": "by the site's contracts, beside co2e_g"}
    making = {**NUMBER, "description": "of making the hardware held; never inside co2e_g"}
    return {
        "cost": maybe(ref("Cost")),
        "costs": COSTS,
        "market_co2e_g": maybe(by_contracts),
        "market_energy_share": maybe(SHARE),
        "embodied_co2e_g": maybe(making),
    }


def mapping(values: Schema) -> Schema:
    """An object whose names are not known before."""
    return {"type": "object", "additionalProperties": values}


def choice(*values: str) -> Schema:
    """One of these texts."""
    return {"type": "string", "enum": list(values)}
