"""Money, market-based CO2e and embodied CO2e: sums that stand beside the books' amounts.

They are kept as exact products and divided when they are shown, so that they never fall and no
rounding accumulates, whatever the prices were and however often they changed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from wattledger.model.measuring import Kind
from wattledger.units import PPM, UG_PER_G, UJ_PER_KWH

NODE_NOTE = "sums"
"""Under which name the ledger keeps those of the node, by kind of device."""
FG_PER_UG = 1_000_000_000


class Factors(Protocol):
    """What of a price they are made with; `Price` is such."""

    @property
    def pue_ppm(self) -> int:
        """Facility energy over IT energy."""
        ...

    @property
    def market_ug_per_kwh(self) -> int | None:
        """By the site's contracts; None: it has none."""
        ...

    @property
    def cost_u_per_kwh(self) -> int | None:
        """Millionths of the currency; None: no price is known."""
        ...

    @property
    def currency(self) -> str:
        """Of the cost."""
        ...


class Weighed(NamedTuple):
    """Energy × PUE × a factor, and of how much energy that factor was known.

    Attributes:
        product: µJ × PPM × (millionths or µg per kWh of facility energy).
        energy_uj: of IT energy.
    """

    product: int = 0
    energy_uj: int = 0

    def plus(self, other: Weighed) -> Weighed:
        """The sum."""
        return Weighed(self.product + other.product, self.energy_uj + other.energy_uj)

    @property
    def amount(self) -> float:
        """In currency units or grams; correctly rounded, hence monotone."""
        return self.product / (UJ_PER_KWH * PPM * PPM)


_NO_COSTS: Mapping[str, Weighed] = MappingProxyType({})


class Sums(NamedTuple):
    """What something cost and emitted besides the books' amounts.

    Attributes:
        costs: currency → what its energy cost; different currencies are never added up.
        market: CO2e by the site's contracts, beside the location-based one of the books.
        embodied_fg: of the making of the hardware, in 10⁻¹⁵ g; 0: nothing is known of it.
    """

    costs: Mapping[str, Weighed] = _NO_COSTS
    market: Weighed = Weighed()
    embodied_fg: int = 0

    def plus(self, other: Sums) -> Sums:
        """The sum, currency by currency."""
        costs = self.costs
        if other.costs:
            costs = dict(costs)
            for currency, cost in other.costs.items():
                costs[currency] = costs.get(currency, Weighed()).plus(cost)
        embodied_fg = self.embodied_fg + other.embodied_fg
        return Sums(costs, self.market.plus(other.market), embodied_fg)

    @property
    def embodied_g(self) -> float | None:
        """Grams; None: nothing is known of it."""
        if not self.embodied_fg:
            return None
        return self.embodied_fg / (FG_PER_UG * UG_PER_G)

    @property
    def embodied_ug(self) -> int | None:
        """Whole µg; None: nothing is known of it."""
        return self.embodied_fg // FG_PER_UG if self.embodied_fg else None


NO_SUMS = Sums()


def sums_of(energies: Iterable[tuple[Factors, int]]) -> Sums:
    """The sums of energies at their prices.

    Formulas (GHG Protocol Scope 2 Guidance, 2015, chapter 6, for the market-based method):

        cost        = E × PUE × price per kWh
        market CO2e = E × PUE × the contracts' intensity

    Args:
        energies: (what priced it, µJ of IT energy).
    """
    costs: dict[str, Weighed] = {}
    market = Weighed()
    for factors, energy_uj in energies:
        if not energy_uj:
            continue
        cost_u, market_ug = factors.cost_u_per_kwh, factors.market_ug_per_kwh
        if cost_u is not None:
            cost = Weighed(energy_uj * factors.pue_ppm * cost_u, energy_uj)
            costs[factors.currency] = costs.get(factors.currency, Weighed()).plus(cost)
        if market_ug is not None:
            market = market.plus(Weighed(energy_uj * factors.pue_ppm * market_ug, energy_uj))
    return Sums(costs, market)


def total(parts: Iterable[Sums]) -> Sums:
    """The sum of sums."""
    whole = NO_SUMS
    for part in parts:
        whole = whole.plus(part)
    return whole


# ── as text, with integers as decimal strings ───────────────────────────────────────────────────


def to_plain(sums: Sums) -> dict[str, Any]:
    """As JSON holds it."""
    return {
        "costs": {name: list(map(str, cost)) for name, cost in sorted(sums.costs.items())},
        "market": list(map(str, sums.market)),
        "embodied_fg": str(sums.embodied_fg),
    }


def of_plain(plain: Any) -> Sums:
    """What `to_plain` wrote.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: it did not write that.
    """
    costs = {str(name): Weighed(*map(int, cost)) for name, cost in plain["costs"].items()}
    return Sums(costs, Weighed(*map(int, plain["market"])), int(plain["embodied_fg"]))


def to_text(sums: Sums) -> str:
    """As text for the ledger."""
    return json.dumps(to_plain(sums), separators=(",", ":"))


def of_text(text: str) -> Sums:
    """What `to_text` wrote.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: it did not write that.
    """
    return of_plain(json.loads(text))


def read_node(notes: Mapping[str, str]) -> dict[Kind, Sums]:
    """The node's sums by kind of device, of the ledger's notes; none where they cannot be read."""
    note = notes.get(NODE_NOTE, "")
    try:
        plain = json.loads(note) if note else {}
        return {Kind(kind): of_plain(sums) for kind, sums in plain.items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        return {}


def write_node(sums: Mapping[Kind, Sums]) -> str:
    """The node's sums as text for the ledger; empty: there are none."""
    plain = {kind.value: to_plain(one) for kind, one in sorted(sums.items()) if one != NO_SUMS}
    return json.dumps(plain, separators=(",", ":")) if plain else ""
