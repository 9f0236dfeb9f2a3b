"""Money, market-based and embodied CO2e as plain data and in words: beside the amounts. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wattledger.model.sums import Sums
from wattledger_exporters.bands import beside
from wattledger_exporters.wording import CO2E, co2e, number, percent, printable

Row = tuple[str, str, str]
NO_BAND = "no band"  # nobody published how far prices and contracts are off


def costs_of(sums: Sums, energy_uj: int) -> list[dict[str, Any]]:
    """What it cost in each currency, and for which share of the energy a price was known."""
    return [
        {
            "amount": cost.amount,
            "currency": currency,
            "energy_share": cost.energy_uj / energy_uj if energy_uj else 0.0,
        }
        for currency, cost in sorted(sums.costs.items())
    ]


def cost_of(sums: Sums) -> dict[str, Any] | None:
    """What it cost; None where no price was known, or where prices were of several currencies."""
    if len(sums.costs) != 1:
        return None
    ((currency, cost),) = sums.costs.items()
    return {"amount": cost.amount, "currency": currency}


def market_of(sums: Sums, energy_uj: int) -> tuple[float | None, float | None]:
    """Grams by the site's contracts, and of which share of the energy; None: there were none."""
    market = sums.market
    if not market.energy_uj:
        return None, None
    return market.amount, market.energy_uj / energy_uj if energy_uj else 0.0


SUM_NAMES = ("cost", "costs", "market_co2e_g", "market_energy_share", "embodied_co2e_g")


def told_sums(sums: Sums, energy_uj: int) -> dict[str, Any]:
    """All of them, as receipts carry them.

    Args:
        sums: as they were booked.
        energy_uj: of which they are.

    Returns:
        `cost` of the only currency, `costs` of each; `market_co2e_g` with the share of the energy
        that contracts priced; `embodied_co2e_g`. None is what is not known.
    """
    market_g, market_share = market_of(sums, energy_uj)
    return {
        "cost": cost_of(sums),
        "costs": costs_of(sums, energy_uj),
        "market_co2e_g": market_g,
        "market_energy_share": market_share,
        "embodied_co2e_g": sums.embodied_g,
    }


# ── for people ──────────────────────────────────────────────────────────────────────────────────


def money(costs: Sequence[Mapping[str, Any]]) -> str:
    """Costs in words: `1.234 EUR`; several currencies side by side, never added."""
    return " + ".join(
        f"{number(cost['amount'])} {printable(cost['currency'])}".rstrip() for cost in costs
    )


def idle_costs(answer: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What was held for nothing cost, of a job's answer or a row of waste, by currency."""
    costs = answer.get("held_idle_costs")
    if costs is None:  # of a daemon that knew one price only
        costs = [answer["held_idle_cost"]] if answer["held_idle_cost"] is not None else []
    return list(costs)


def sum_rows(receipt: Mapping[str, Any]) -> list[Row]:
    """The lines of a receipt that tell of them: (label, value, why)."""
    found: list[Row] = []
    costs = receipt.get("costs")
    if costs is None:  # of a daemon that knew one price only
        costs = [receipt["cost"]] if receipt["cost"] is not None else []
    if costs:
        share = sum(cost.get("energy_share", 1.0) for cost in costs)
        found.append(("cost", money(costs), _said(_of_share(share), NO_BAND)))
    market_g = receipt.get("market_co2e_g")
    if market_g is not None:
        part = _of_share(receipt["market_energy_share"])
        how = "CO2e by the site's contracts"
        found.append(("market", co2e(market_g), _said(f"{how}, {part}" if part else how, NO_BAND)))
    embodied_g = receipt.get("embodied_co2e_g")
    if embodied_g is not None:
        sure = receipt.get("uncertainty")
        said = beside(co2e(embodied_g), sure, "embodied_co2e_g", embodied_g, CO2E)
        found.append(("embodied", said, "of making the hardware; not in CO2e"))
    return found


def _said(*parts: str) -> str:
    return "; ".join(part for part in parts if part)


def _of_share(share: float) -> str:
    """Said only where it is a part: energy booked before anything was known of it."""
    return "" if share > 1 - 1e-12 else f"of {percent(share)} of the energy"
