"""Carbon, water and cost: what the energy became, by which factors, and how sure that is."""

from __future__ import annotations

from typing import Any

from grafana_foundation_sdk.builders import dashboard as build

from boards import kit, shared, variables
from boards.queries import increase, metric, rate, summed


def _figures() -> tuple[Any, ...]:
    return (
        kit.figure(
            "CO2e, location-based",
            "Operational emissions of facility energy in the range shown, by the grid's intensity "
            "at each time.",
            kit.GRAM,
            kit.now(summed(increase("co2e_grams_total"))),
        ),
        kit.figure(
            "CO2e, market-based",
            "The same energy by the site's contracts (PPAs, certificates). It stands beside the "
            "location-based figure and never replaces it; empty where no contract is configured.",
            kit.GRAM,
            kit.now(summed(increase("market_co2e_grams_total"))),
        ),
        kit.figure(
            "Embodied CO2e",
            "What making the hardware emitted, spread over its life, for the range shown. It is "
            "in no other figure.",
            kit.GRAM,
            kit.now(summed(increase("embodied_co2e_grams_total"))),
        ),
        kit.figure(
            "Water",
            "Water in the range shown, on site and for the electricity.",
            kit.LITRE,
            kit.now(summed(increase("water_liters_total"))),
        ),
        kit.figure(
            "Energy cost",
            "Cost of facility energy in the range shown, each part at the price it was booked at.",
            kit.NUMBER,
            kit.now(summed(increase("energy_cost_total"), "currency"), "{{currency}}"),
            decimals=2,
            names=True,
        ),
        kit.figure(
            "Settled less booked",
            "What sources published since would add to the emissions of this epoch. The counters "
            "keep what was booked, so that they never fall; reports use the settled figures.",
            kit.GRAM,
            kit.now(summed(metric("co2e_settlement_grams"))),
            limits=((None, kit.BLUE),),
        ),
    )


def _factors() -> Any:
    return kit.lines(
        "Factors in force",
        "PUE (facility over IT energy), WUE (litres on site per IT kWh) and EWIF (litres per kWh "
        "of electricity), mean over the nodes. The source says whether it was configured, "
        "measured, or a published default.",
        kit.NUMBER,
        kit.series(f"avg by (source) ({metric('pue_ratio')})", "PUE ({{source}})"),
        kit.series(f"avg by (source) ({metric('wue_liters_per_kwh')})", "WUE L/kWh ({{source}})"),
        kit.series(f"avg by (source) ({metric('ewif_liters_per_kwh')})", "EWIF L/kWh ({{source}})"),
        decimals=2,
        calcs=("lastNotNull",),
        span=8,
    )


def _sources() -> Any:
    keys = ("grid_zone", "source", "basis", "estimated")
    age = f"time() - min by ({', '.join(keys)}) ({metric('grid_signal_timestamp_seconds')})"
    intensity = metric("grid_carbon_intensity_grams_per_kwh")
    return kit.grid(
        "Grid signals in force",
        "Zone, source and basis that facility energy is priced with; whether it is an estimate; "
        "on how many nodes; and the age of the oldest signal.",
        {
            "grid_zone": ("Zone", ""),
            "source": ("Source", ""),
            "basis": ("Basis", ""),
            "estimated": ("Estimated", ""),
            "Value #A": ("Intensity", kit.G_PER_KWH),
            "Value #B": ("Nodes", kit.NUMBER),
            "Value #C": ("Age", kit.SECONDS),
        },
        kit.row_of(f"avg by ({', '.join(keys)}) ({intensity})", "A"),
        kit.row_of(f"count by ({', '.join(keys)}) ({intensity})", "B"),
        kit.row_of(age, "C"),
        limits={"Age": ((None, kit.GREEN), (7200, kit.YELLOW), (86400, kit.RED))},
        span=18,
        height=5,
    )


def board() -> build.Dashboard:
    """Builds the dashboard."""
    made = shared.frame(
        "footprint",
        "carbon, water and cost",
        "What the energy became: emissions, water and money, by which factors, and how sure.",
        variables.instance(),
    )
    shared.add(made, "In the range shown", *_figures())
    intensity = kit.lines(
        "Carbon intensity in force",
        "What facility energy is priced with, by zone, source and basis; `market` is by the "
        "site's contracts.",
        kit.G_PER_KWH,
        kit.series(
            f"avg by (grid_zone, source, basis) ({metric('grid_carbon_intensity_grams_per_kwh')})",
            "{{grid_zone}} {{source}} ({{basis}})",
        ),
        kit.series(f"avg({metric('market_carbon_intensity_grams_per_kwh')})", "market"),
        limits=((None, kit.GREEN), (200, kit.YELLOW), (500, kit.RED)),
    )
    emissions = kit.lines(
        "Emissions per hour",
        "Location-based emissions of facility energy, by kind of device, in grams per hour.",
        "suffix:g/h",
        kit.series(f"{summed(rate('co2e_grams_total'), 'kind')} * 3600", "{{kind}}"),
        stacked=True,
    )
    shared.add(made, "Carbon", intensity, kit.colored(emissions, kit.KIND_COLORS))
    by_basis = kit.bars(
        "CO2e by basis",
        "Emissions in the range shown by what the intensity counts. The bases do not mix: the sum "
        "is meaningful only where one basis was in force.",
        kit.GRAM,
        kit.now(summed(increase("co2e_grams_total"), "basis"), "{{basis}}"),
    )
    embodied = kit.bars(
        "Embodied CO2e by kind",
        "What making the GPUs and the rest of the hosts emitted, spread over its life, for the "
        "range shown.",
        kit.GRAM,
        kit.now(summed(increase("embodied_co2e_grams_total"), "kind"), "{{kind}}"),
    )
    sure = kit.lines(
        "Uncertainty",
        "True over said of what is being booked, by published ranges: 0.9 and 1.1 mean that the "
        "truth is judged to lie within 10 percent. Worst node.",
        kit.NUMBER,
        kit.series(
            "min by (quantity) (" + metric("uncertainty_ratio", 'bound="low"') + ")",
            "{{quantity}} low",
        ),
        kit.series(
            "max by (quantity) (" + metric("uncertainty_ratio", 'bound="high"') + ")",
            "{{quantity}} high",
        ),
        decimals=2,
        calcs=(),
        span=8,
    )
    shared.add(made, "By basis, embodied, and how sure", by_basis, embodied, sure)
    water = kit.lines(
        "Water per hour",
        "Water evaporated on site (WUE times IT energy) and for the electricity (EWIF times "
        "facility energy), in litres per hour.",
        "suffix:L/h",
        kit.series(f"{summed(rate('water_liters_total'), 'origin')} * 3600", "{{origin}}"),
        stacked=True,
        span=8,
    )
    cost = kit.lines(
        "Cost per hour",
        "Cost of facility energy, by currency.",
        kit.NUMBER,
        kit.series(f"{summed(rate('energy_cost_total'), 'currency')} * 3600", "{{currency}}"),
        decimals=2,
        span=8,
    )
    shared.add(made, "Water, cost and factors", water, cost, _factors())
    level = kit.figure(
        "Worst fallback",
        "Where the intensity comes from on the worst node: live, the last good signal, or the "
        "country table.",
        kit.NUMBER,
        kit.now(f"max({metric('grid_fallback_level')})"),
        limits=((None, kit.GREEN), (1, kit.YELLOW), (2, kit.RED)),
        words={
            "0": ("live", kit.GREEN),
            "1": ("last good signal", kit.YELLOW),
            "2": ("country table", kit.RED),
        },
        span=6,
        height=5,
    )
    shared.add(made, "Grid signals", _sources(), level)
    return made
