"""From the settings to the site's contracts, and to what is known of the hardware's making."""

from __future__ import annotations

from wattledger.config.settings import Config
from wattledger.model.embodied import Embodied
from wattledger.model.market import Contract, Market
from wattledger.units import PPM, micro

Fault = tuple[str, str]
_UG_PER_KG = 1_000_000_000
_SHORTEST_NS = 86_400_000_000_000
_LONGEST_CURRENCY = 16


def market(config: Config) -> Market | None:
    """The contracts and what they leave; None: the settings name neither."""
    site = config.site
    if not site.contract and site.market_intensity is None:
        return None
    contracts = tuple(
        Contract(
            one.name,
            micro(one.share),
            micro(one.intensity),
            0 if one.since is None else one.since,
            2**62 if one.until is None else one.until,
        )
        for one in site.contract or ()
    )
    residual = site.market_intensity
    return Market(contracts, None if residual is None else micro(residual))


def embodied(config: Config) -> Embodied:
    """What is known of the hardware's making."""
    wanted = config.embodied
    return Embodied(
        enabled=wanted.enabled,
        gpus_ug=tuple((model, round(kg * _UG_PER_KG)) for model, kg in wanted.gpu_kg or ()),
        host_ug=None if wanted.host_kg is None else round(wanted.host_kg * _UG_PER_KG),
        lifetime_ns=int(wanted.lifetime),
    )


def market_faults(config: Config) -> list[Fault]:
    """What of the contracts, and of the hardware's life, cannot be."""
    faults: list[Fault] = []
    price = config.site.price_per_kwh
    if price and not micro(price):
        faults.append(("site.price_per_kwh", "is less than 0.000001, to which it is kept"))
    if len(config.site.currency) > _LONGEST_CURRENCY:
        faults.append(("site.currency", f"is longer than {_LONGEST_CURRENCY} characters"))
    if config.embodied.lifetime < _SHORTEST_NS:
        faults.append(("embodied.lifetime", 'is shorter than "1d"'))
    found = market(config)
    contracts = found.contracts if found is not None else ()
    for number, one in enumerate(contracts):
        if one.since_ns >= one.until_ns:
            faults.append((f"site.contract[{number}].until", "is not after since"))
        # The sum changes where one begins. Each share may be off by its rounding to millionths.
        held = found.at(one.since_ns).contracts if found is not None else ()
        if sum(other.share_ppm for other in held) > PPM + len(held):
            faults.append(
                (f"site.contract[{number}].share", "and those of its time are more than 1")
            )
    return faults
