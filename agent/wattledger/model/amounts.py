"""The quantities of the books."""

from __future__ import annotations

from typing import NamedTuple


class Amounts(NamedTuple):
    """The quantities of an entry or a total, all exact integers."""

    energy_uj: int = 0
    co2e_ug: int = 0
    water_onsite_ul: int = 0
    water_grid_ul: int = 0

    def plus(self, other: Amounts) -> Amounts:
        """The sum, quantity by quantity."""
        return Amounts(
            self.energy_uj + other.energy_uj,
            self.co2e_ug + other.co2e_ug,
            self.water_onsite_ul + other.water_onsite_ul,
            self.water_grid_ul + other.water_grid_ul,
        )
