"""One job: what it has cost over all its nodes, and where."""

from __future__ import annotations

from typing import Any

from grafana_foundation_sdk.builders import dashboard as build

from boards import kit, shared, variables
from boards.queries import JOB, KWH_PER_J, last, metric, rate, summed


def _figures() -> tuple[Any, ...]:
    idle = summed(last("job_held_idle_joules_total", JOB))
    whole = summed(last("job_energy_kwh_total", JOB))
    return (
        kit.figure(
            "IT energy",
            "Energy of the job since it began, all runs and nodes, without PUE. The last value "
            "seen in the range shown, so nothing is extrapolated.",
            kit.KWH,
            kit.now(whole),
        ),
        kit.figure(
            "CO2e",
            "Operational emissions of its facility energy since it began, at the grid's intensity "
            "of each time.",
            kit.GRAM,
            kit.now(summed(last("job_co2e_grams_total", JOB))),
        ),
        kit.figure(
            "Water",
            "Water since it began: on site and for its electricity.",
            kit.LITRE,
            kit.now(summed(last("job_water_liters_total", JOB))),
        ),
        kit.figure(
            "Held idle",
            "Energy of GPUs that the job held while every sample of their utilisation was 0.",
            kit.KWH,
            kit.now(f"{idle} / {KWH_PER_J}"),
            limits=((None, kit.GREEN), (0.1, kit.YELLOW), (1, kit.RED)),
        ),
        kit.figure(
            "Held idle, share",
            "Held-idle energy over all energy of the job.",
            kit.SHARE,
            kit.now(f"{idle} / {KWH_PER_J} / {whole}"),
            limits=((None, kit.GREEN), (0.1, kit.YELLOW), (0.3, kit.RED)),
        ),
        kit.figure(
            "Nodes",
            "Nodes on which the job was seen in the range shown.",
            kit.COUNT,
            kit.now(f"count(count by (cluster, instance) ({last('job_info', JOB)}))"),
        ),
    )


def _nodes() -> Any:
    keys = ("instance", *shared.JOB_KEYS)
    idle = f"{summed(last('job_held_idle_joules_total', JOB), *keys)} / {KWH_PER_J}"
    return kit.grid(
        "Nodes of the job",
        "What the job used on each of its nodes since it began, and what it draws there now. "
        "A node leads to its dashboard.",
        {
            "instance": ("Node", ""),
            "cluster": ("Cluster", ""),
            "manager": ("Manager", ""),
            "job_id": ("Job", ""),
            "Value #A": ("Energy", kit.KWH),
            "Value #B": ("CO2e", kit.GRAM),
            "Value #C": ("Held idle", kit.KWH),
            "Value #D": ("GPUs held", kit.NUMBER),
            "Value #E": ("Power now", kit.WATT),
        },
        kit.row_of(summed(last("job_energy_kwh_total", JOB), *keys), "A"),
        kit.row_of(summed(last("job_co2e_grams_total", JOB), *keys), "B"),
        kit.row_of(idle, "C"),
        kit.row_of(summed(metric("job_device_info", JOB), *keys), "D"),
        kit.row_of(summed(metric("job_power_watts", JOB), *keys), "E"),
        links={"Node": kit.to_node(), "Job": kit.to_job()},
        limits={"Held idle": ((None, "text"), (0.1, kit.YELLOW), (1, kit.RED))},
        sort="Energy",
        span=14,
        widths={"Node": 120, "Cluster": 85, "Manager": 90, "Job": 80},
    )


def _devices() -> Any:
    keys = ("instance", *shared.JOB_KEYS, "device")
    return kit.grid(
        "Devices held now",
        "GPUs that the job holds now and the share of each; empty once it has ended.",
        {
            "instance": ("Node", ""),
            "cluster": ("Cluster", ""),
            "device": ("Device", ""),
            "Value": ("Share", kit.SHARE),
        },
        kit.row_of(f"max by ({', '.join(keys)}) ({metric('job_device_info', JOB)})", "A"),
        links={"Node": kit.to_node()},
        drop=("manager", "job_id"),
        widths={"Node": 90, "Cluster": 85, "Device": 322},
        span=10,
    )


def board() -> build.Dashboard:
    """Builds the dashboard."""
    made = shared.frame(
        "job",
        "job",
        "One job or a few: energy, carbon, water and waste over all nodes.",
        variables.instance(),
        variables.manager(),
        variables.job_id(),
        events=shared.jobs_come_and_go(JOB),
    )
    shared.add(made, "Since it began", *_figures())
    power = kit.lines(
        "Power by node",
        "IT power of the job on each of its nodes, mean of the last commit window.",
        kit.WATT,
        kit.series(summed(metric("job_power_watts", JOB), "cluster", "instance"), shared.NODE_NAME),
        stacked=True,
        links=[kit.link_to_node()],
    )
    kinds = kit.lines(
        "Power by kind of device",
        "The job's power by the committed books: its GPUs, its part of the CPUs, the memory and "
        "the rest of the node.",
        kit.WATT,
        kit.series(
            f"{summed(rate('job_energy_kwh_total', JOB), 'kind')} * {KWH_PER_J}", "{{kind}}"
        ),
        stacked=True,
    )
    shared.add(made, "Over time", power, kit.colored(kinds, kit.KIND_COLORS))
    shared.add(made, "Where", _nodes(), _devices())
    energy = kit.lines(
        "Energy since the beginning",
        "The job's counter: IT energy of all its runs on the nodes chosen.",
        kit.KWH,
        kit.series(
            summed(metric("job_energy_kwh_total", JOB), *shared.JOB_KEYS),
            shared.JOB_NAME,
        ),
        span=8,
        calcs=("lastNotNull",),
    )
    idle = kit.lines(
        "Held idle power",
        "Power of GPUs that the job holds and does not use.",
        kit.WATT,
        kit.series(
            summed(rate("job_held_idle_joules_total", JOB), *shared.JOB_KEYS),
            shared.JOB_NAME,
        ),
        limits=((None, kit.GREEN), (200, kit.RED)),
        span=8,
    )
    basis = kit.bars(
        "CO2e by basis",
        "The job's emissions by what the intensity counts: lifecycle (with making the power "
        "plants), direct (at the stack) or generation (the mix only). The bases do not mix.",
        kit.GRAM,
        kit.now(summed(last("job_co2e_grams_total", JOB), "basis"), "{{basis}}"),
    )
    shared.add(made, "How it added up", energy, idle, basis)
    return made
