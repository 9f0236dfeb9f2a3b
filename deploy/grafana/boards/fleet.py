"""The fleet: how much, for whom, where; the way in to nodes and jobs."""

from __future__ import annotations

from typing import Any

from grafana_foundation_sdk.builders import dashboard as build

from boards import kit, shared, variables
from boards.queries import CARDS, FOR_JOBS, increase, metric, or_zero, rate, recorded, summed, top

KEYS = shared.NODE_KEYS


def _facility() -> str:
    pue = f"max by (cluster, job, instance) ({metric('pue_ratio')})"
    it = summed(metric("power_watts"), *KEYS)
    return f"sum({it} * on (cluster, job, instance) {pue})"


def _figures() -> tuple[Any, ...]:
    held = or_zero(summed(metric("job_device_info")))
    gpus = f"sum({metric('device_present', CARDS)})"
    jobs = summed(increase("payee_energy_joules_total", FOR_JOBS))
    everybody = summed(increase("payee_energy_joules_total"))
    return (
        kit.figure(
            "IT power",
            "What all devices of the nodes chosen draw now, without PUE.",
            kit.WATT,
            kit.now(summed(metric("power_watts"))),
        ),
        kit.figure(
            "Facility power",
            "IT power times each node's PUE: with cooling and power distribution. The PUE is the "
            "configured one, or the survey mean where none is.",
            kit.WATT,
            kit.now(_facility()),
        ),
        kit.figure(
            "IT energy",
            "Energy of the devices in the range shown.",
            kit.KWH,
            kit.now(shared.energy_in_range()),
        ),
        kit.figure(
            "CO2e",
            "Operational emissions of facility energy in the range shown, location-based: by the "
            "grid's intensity at each time. What making the hardware emitted is not in it.",
            kit.GRAM,
            kit.now(summed(increase("co2e_grams_total"))),
        ),
        kit.figure(
            "Water",
            "Water in the range shown: evaporated on site (WUE) and for the electricity (EWIF).",
            kit.LITRE,
            kit.now(summed(increase("water_liters_total"))),
        ),
        kit.figure(
            "Nodes answering",
            "Share of the nodes that Prometheus could scrape the last time it tried.",
            kit.SHARE,
            kit.now(f"avg({shared.up()})"),
            limits=((None, kit.RED), (0.9, kit.YELLOW), (1, kit.GREEN)),
        ),
        kit.figure(
            "GPUs held by jobs",
            "Share of the GPUs present that jobs hold now; a share of a GPU counts as such.",
            kit.SHARE,
            kit.now(f"{held} / {gpus}"),
            limits=((None, kit.RED), (0.5, kit.YELLOW), (0.8, kit.GREEN)),
        ),
        kit.figure(
            "Energy for jobs",
            "Share of the energy in the range shown that was used for jobs; the rest was idle, "
            "the system's, or nobody can tell.",
            kit.SHARE,
            kit.now(f"{jobs} / {everybody}"),
            limits=((None, kit.RED), (0.5, kit.YELLOW), (0.7, kit.GREEN)),
        ),
        kit.figure(
            "Held idle now",
            "Power of GPUs that jobs hold and do not use, mean of the last minutes.",
            kit.WATT,
            kit.now(or_zero(summed(rate("job_held_idle_joules_total")))),
            limits=((None, kit.GREEN), (500, kit.YELLOW), (5000, kit.RED)),
        ),
        kit.figure(
            "Energy cost",
            "Cost of facility energy in the range shown, by currency, each part at the price it "
            "was booked at.",
            kit.NUMBER,
            kit.now(summed(increase("energy_cost_total"), "currency"), "{{currency}}"),
            decimals=2,
            names=True,
        ),
        kit.figure(
            "Jobs running",
            "Jobs that have a power now, over all nodes.",
            kit.COUNT,
            kit.now(
                or_zero(
                    f"count(count by ({', '.join(shared.JOB_KEYS)}) ({metric('job_power_watts')}))"
                )
            ),
        ),
        kit.figure(
            "Meters down",
            "Meters that do not answer, over all nodes: see agent health.",
            kit.COUNT,
            kit.now(shared.meters_down()),
            limits=((None, kit.GREEN), (1, kit.RED)),
        ),
    )


def _nodes() -> Any:
    jobs = summed(increase("payee_energy_joules_total", FOR_JOBS), *KEYS)
    everybody = summed(increase("payee_energy_joules_total"), *KEYS)
    unobserved = f"max by (cluster, job, instance) ({increase('unobserved_seconds_total')})"
    return kit.grid(
        "Nodes",
        "Every node: its power now; its energy, emissions, share used for jobs and time that "
        "nothing measured in the range shown; meters that do not answer. A name leads to the node.",
        {
            "instance": ("Node", ""),
            "cluster": ("Cluster", ""),
            "Value #A": ("Power now", kit.WATT),
            "Value #B": ("Energy", kit.KWH),
            "Value #C": ("CO2e", kit.GRAM),
            "Value #D": ("For jobs", kit.SHARE),
            "Value #E": ("Unobserved", kit.SECONDS),
            "Value #F": ("Meters down", kit.NUMBER),
        },
        kit.row_of(summed(metric("power_watts"), *KEYS), "A"),
        kit.row_of(shared.energy_in_range(*KEYS), "B"),
        kit.row_of(summed(increase("co2e_grams_total"), *KEYS), "C"),
        kit.row_of(f"{jobs} / {everybody}", "D"),
        kit.row_of(unobserved, "E"),
        kit.row_of(summed(f"1 - {metric('meter_up')}", *KEYS), "F"),
        links={"Node": kit.to_node()},
        limits={
            "For jobs": ((None, kit.RED), (0.5, kit.YELLOW), (0.7, kit.GREEN)),
            "Unobserved": ((None, kit.GREEN), (60, kit.YELLOW), (600, kit.RED)),
            "Meters down": ((None, kit.GREEN), (1, kit.RED)),
        },
        sort="Power now",
    )


def board() -> build.Dashboard:
    """Builds the dashboard."""
    made = shared.frame(
        "fleet",
        "fleet",
        "All nodes: power, energy, carbon, water and cost, for whom and where.",
        variables.instance(),
    )
    shared.add(made, "At a glance", *_figures())
    shared.add(made, "Where the power goes", shared.power_by_kind(), shared.power_by_payee())
    nodes = kit.lines(
        "Nodes that draw the most",
        "IT power of the ten nodes that draw the most at each moment.",
        kit.WATT,
        kit.series(top(10, summed(metric("power_watts"), "cluster", "instance")), shared.NODE_NAME),
        links=[kit.link_to_node()],
    )
    intensity = kit.lines(
        "Carbon intensity in force",
        "What facility energy is priced with, by grid zone and source, mean over the nodes.",
        kit.G_PER_KWH,
        kit.series(
            f"avg by (grid_zone, source) ({metric('grid_carbon_intensity_grams_per_kwh')})",
            "{{grid_zone}} ({{source}})",
        ),
        limits=((None, kit.GREEN), (200, kit.YELLOW), (500, kit.RED)),
    )
    hourly = kit.lines(
        "Energy of the last hour, by node",
        "IT energy of the hour before each moment, by the recording rules: differences of what "
        "the ledgers showed, so that nothing is extrapolated and hours add up.",
        kit.KWH,
        kit.series(
            top(
                10,
                summed(
                    recorded("node:energy_kwh:increase1h", "cluster", "instance"),
                    "cluster",
                    "instance",
                ),
            ),
            shared.NODE_NAME,
        ),
        links=[kit.link_to_node()],
        span=16,
    )
    total = kit.figure(
        "Energy since the ledgers began",
        "IT energy of every ledger that was ever seen, by kind of device, by the recording rules: "
        "exact over restarts, new ledgers and nodes that left.",
        kit.KWH,
        kit.now(
            summed(recorded("node:energy_kwh:total", "cluster", "instance"), "kind"), "{{kind}}"
        ),
        names=True,
        span=8,
        height=8,
    )
    shared.add(made, "Nodes and grid", nodes, intensity, hourly, total)
    shared.add(
        made,
        "The books against the wall",
        *shared.balance_figures(),
        shared.books_against_the_wall(),
    )
    shared.add(made, "Which nodes, which jobs", _nodes(), shared.job_table())
    return made
