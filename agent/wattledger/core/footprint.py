"""Carbon and water of an energy, in integers.

Formulas (E in µJ of IT energy, factors in millionths or µ-units per kWh, floor of exact products):

    CO2e         = E × PUE × intensity
    water onsite = E × WUE                WUE is per kWh of IT energy (ISO/IEC 30134-9)
    water grid   = E × PUE × EWIF         EWIF is per kWh of facility energy

as in Li et al., "Making AI Less Thirsty" (arXiv 2304.03271), section 3.1.
"""

from __future__ import annotations

from wattledger.model import Amounts, Basis, GridChoice, Price, SiteFactors
from wattledger.units import PPM, UJ_PER_KWH, micro


def footprint(energy_uj: int, price: Price) -> Amounts:
    """The amounts of a cumulative energy: the floor of the exact product, per quantity.

    Called with an entry's whole energy, never with an increment: a commit books the difference
    between two results, so no rounding accumulates.

    Args:
        energy_uj: µJ of IT energy, at least 0.
        price: the factors.
    """
    facility = energy_uj * price.pue_ppm
    return Amounts(
        energy_uj,
        facility * price.intensity_ug_per_kwh // (UJ_PER_KWH * PPM),
        energy_uj * price.wue_ul_per_kwh // UJ_PER_KWH,
        facility * price.ewif_ul_per_kwh // (UJ_PER_KWH * PPM),
    )


def price_of(choice: GridChoice, site: SiteFactors) -> Price:
    """The price that a grid choice and the site's factors make together.

    Raises:
        ValueError: the signal is marginal, which no books are priced with.
    """
    signal = choice.signal
    if signal.basis is Basis.MARGINAL:
        raise ValueError("a marginal intensity prices no books")
    ewif_ul_per_kwh, ewif_source = site.ewif_beside(signal)
    return Price(
        signal.intensity_ug_per_kwh,
        signal.zone,
        signal.source,
        signal.basis,
        choice.estimated,
        choice.level,
        signal.valid_from_ns,
        signal.valid_to_ns,
        site.pue_ppm,
        site.wue_ul_per_kwh,
        ewif_ul_per_kwh,
        site.pue_source,
        site.wue_source,
        ewif_source,
        site.market_beside(signal),
        None if site.price_per_kwh is None else micro(site.price_per_kwh),
        "" if site.price_per_kwh is None else site.currency,
    )
