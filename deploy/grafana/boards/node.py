"""One node: its devices, its payees, its jobs, and its books beside other meters."""

from __future__ import annotations

from typing import Any

from grafana_foundation_sdk.builders import dashboard as build

from boards import kit, shared, variables
from boards.queries import CARDS, DCGM, GPUS, increase, metric, or_zero, rate, summed


def _devices() -> Any:
    keys = ("cluster", "instance", "device")
    known = ", ".join((*keys, "kind", "index", "model", "meter"))
    info = f"max by ({known}) ({metric('device_info')})"
    return kit.grid(
        "Devices",
        "What is metered, by which meter, what it draws now and what it used in the range shown. "
        "A device that left stays with its totals and `present` 0.",
        {
            "instance": ("Node", ""),
            "cluster": ("Cluster", ""),
            "device": ("Device", ""),
            "kind": ("Kind", ""),
            "index": ("Index", ""),
            "model": ("Model", ""),
            "meter": ("Meter", ""),
            "Value #B": ("Power now", kit.WATT),
            "Value #C": ("Energy", kit.KWH),
            "Value #D": ("Held", kit.SHARE),
            "Value #E": ("Present", kit.NUMBER),
            "Value #F": ("Unobserved", kit.SECONDS),
        },
        kit.row_of(info, "A"),
        kit.row_of(summed(metric("power_watts"), *keys), "B"),
        kit.row_of(summed(increase("energy_kwh_total"), *keys), "C"),
        kit.row_of(summed(metric("job_device_info"), *keys), "D"),
        kit.row_of(summed(metric("device_present"), *keys), "E"),
        kit.row_of(summed(increase("unobserved_seconds_total"), *keys), "F"),
        links={"Node": kit.to_node()},
        limits={
            "Present": ((None, kit.RED), (1, kit.GREEN)),
            "Unobserved": ((None, kit.GREEN), (60, kit.YELLOW), (600, kit.RED)),
        },
        drop=("Value #A",),
        widths={
            "Node": 110,
            "Cluster": 88,
            "Device": 322,
            "Model": 190,
            "Index": 80,
            "Kind": 75,
            "Meter": 85,
            "Held": 65,
            "Present": 80,
            "Unobserved": 100,
        },
        height=12,
    )


def _named(inner: str) -> str:
    """With a label `name`: the device's, of a GPU only the first part of its UUID."""
    whole = f'label_replace({inner}, "name", "$1", "device", "(.*)")'
    return f'label_replace({whole}, "name", "$1", "device", "(GPU-[^-]+)-.*")'


def _gpus() -> Any:
    books = summed(rate("energy_joules_total", GPUS), "cluster", "device")
    panel = kit.lines(
        "GPUs: books beside DCGM",
        "The GPUs' power by the books (differences of the energy counter) beside what "
        "dcgm-exporter reads of the power sensor, and the first less the second, of the GPUs that "
        "have both (the books of all, where DCGM tells of none).",
        kit.WATT,
        kit.series(f"sum({books} and {DCGM}) or sum({books})", "books"),
        kit.series(f"sum({DCGM} and {books})", "DCGM"),
        kit.series(f"sum({books} - {DCGM})", "residual"),
        minimum=None,
    )
    return kit.line_over(panel, "residual", kit.YELLOW, dashed=True)


def board() -> build.Dashboard:
    """Builds the dashboard."""
    made = shared.frame(
        "node",
        "node",
        "One node or a few: devices, payees, jobs, and the books beside the BMC and DCGM.",
        variables.instance(),
        events=shared.jobs_come_and_go(),
    )
    shared.add(
        made,
        "At a glance",
        kit.figure(
            "IT power",
            "What the devices draw now, without PUE.",
            kit.WATT,
            kit.now(summed(metric("power_watts"))),
        ),
        kit.figure(
            "IT energy",
            "Energy of the devices in the range shown.",
            kit.KWH,
            kit.now(shared.energy_in_range()),
        ),
        kit.figure(
            "CO2e",
            "Operational emissions of facility energy in the range shown.",
            kit.GRAM,
            kit.now(summed(increase("co2e_grams_total"))),
        ),
        kit.figure(
            "Jobs on the node",
            "Jobs that run on the nodes chosen: those that have a power now.",
            kit.COUNT,
            kit.now(or_zero(f"count({metric('job_power_watts')})")),
        ),
        kit.figure(
            "GPUs that nobody holds",
            "GPUs present less the shares that jobs hold.",
            kit.COUNT,
            kit.now(
                f"sum({metric('device_present', CARDS)}) - "
                + or_zero(summed(metric("job_device_info")))
            ),
            limits=((None, kit.GREEN), (1, kit.YELLOW), (4, kit.RED)),
            decimals=1,
        ),
        kit.figure(
            "Unobserved time",
            "Seconds in the range shown in which nothing measured some device, the longest of "
            "the devices. No energy is booked for it.",
            kit.SECONDS,
            kit.now(f"max({increase('unobserved_seconds_total')})"),
            limits=((None, kit.GREEN), (60, kit.YELLOW), (600, kit.RED)),
        ),
    )
    shared.add(
        made,
        "The books against the wall",
        *shared.balance_figures(),
        shared.books_against_the_wall(),
    )
    devices = kit.lines(
        "Power by device",
        "IT power of each device, mean of the last commit window.",
        kit.WATT,
        kit.series(
            _named(summed(metric("power_watts"), "cluster", "instance", "device")), "{{name}}"
        ),
        stacked=True,
        height=10,
        calcs=("lastNotNull",),
    )
    jobs = kit.lines(
        "Power by job",
        "IT power of each job on the node, with its part of CPUs, memory and the rest.",
        kit.WATT,
        kit.series(summed(metric("job_power_watts"), *shared.JOB_KEYS), shared.JOB_NAME),
        stacked=True,
        height=10,
        below=True,
        links=[kit.link_to_job()],
    )
    shared.add(made, "Devices and jobs", devices, jobs, _devices(), shared.job_table())
    quality = kit.lines(
        "How the energy was found",
        "metered: differences of an energy counter. integrated: a power sensor over time. "
        "estimated: a model or a constant. recovered: a counter moved while nobody read it, as "
        "over a restart.",
        kit.WATT,
        kit.series(summed(rate("energy_quality_joules_total"), "quality"), "{{quality}}"),
        stacked=True,
    )
    shared.add(made, "How well it is known", _gpus(), quality)
    return made
