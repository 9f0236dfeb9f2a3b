"""What a site's contracts make of the carbon intensity: the market-based method."""

from __future__ import annotations

from typing import NamedTuple

from wattledger.units import PPM


class Contract(NamedTuple):
    """A contract for a part of the site's energy: a PPA, a tariff, certificates.

    Attributes:
        name: for people.
        share_ppm: of the facility's energy.
        ug_per_kwh: its intensity.
        since_ns: from when on it holds, wall clock.
        until_ns: exclusive.
    """

    name: str
    share_ppm: int
    ug_per_kwh: int
    since_ns: int = 0
    until_ns: int = 2**62


class Market(NamedTuple):
    """The contracts, and what prices the energy that they leave.

    GHG Protocol Scope 2 Guidance (2015), table 6.3: contractual instruments first, then the
    residual mix, and the location-based intensity where there is none.

    Attributes:
        contracts: the shares of those that hold at a time sum to 1 at most, but for rounding.
        residual_ug_per_kwh: of the rest; None: the location-based intensity of its time.
    """

    contracts: tuple[Contract, ...] = ()
    residual_ug_per_kwh: int | None = None

    def at(self, wall_ns: int) -> Market:
        """With the contracts that hold at an instant."""
        if all(one.since_ns <= wall_ns < one.until_ns for one in self.contracts):
            return self
        holding = (one for one in self.contracts if one.since_ns <= wall_ns < one.until_ns)
        return self._replace(contracts=tuple(holding))

    def ug_per_kwh(self, location_ug_per_kwh: int) -> int:
        """Σ share × intensity + rest × (residual mix, else location), rounded half up.

        Args:
            location_ug_per_kwh: the location-based intensity of the same time.
        """
        rest_ug = self.residual_ug_per_kwh
        if rest_ug is None:
            rest_ug = location_ug_per_kwh
        rest_ppm = max(0, PPM - sum(one.share_ppm for one in self.contracts))
        whole = sum(one.share_ppm * one.ug_per_kwh for one in self.contracts) + rest_ppm * rest_ug
        return (whole + PPM // 2) // PPM
