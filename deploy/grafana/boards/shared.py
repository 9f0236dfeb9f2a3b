"""What several dashboards show alike: the frame, the annotations, the books against the wall."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard as model

from boards import kit, variables
from boards.queries import (
    GPUS,
    OWNED,
    TARGET,
    beside,
    increase,
    last,
    metric,
    or_zero,
    rate,
    summed,
)

TAG = "wattledger"
NODE_KEYS = ("cluster", "job", "instance")
JOB_KEYS = ("manager", "job_id")
WALL = summed(beside("avg_over_time(ipmi_dcmi_power_consumption_watts[$__rate_interval])"))
"""The BMCs' meters, over the same time as the rates that stand beside them."""


class Event(model.AnnotationQuery):
    """An annotation of a Prometheus query; the SDK knows only the fields that all sources share."""

    def __init__(self, name: str, expr: str, title: str, color: str) -> None:
        super().__init__(
            name=name, datasource=variables.SOURCE, enable=True, icon_color=color, expr=expr
        )
        self._title = title

    def to_json(self) -> dict[str, object]:
        """As Grafana's Prometheus data source stores it."""
        more = {"step": "60s", "titleFormat": self._title, "textFormat": "", "tagKeys": "manager"}
        return {**super().to_json(), **more, "useValueForTime": False}


class _Built(Builder[model.AnnotationQuery]):
    """What is built already."""

    def __init__(self, made: Event) -> None:
        self._made = made

    def build(self) -> Event:
        return self._made


def jobs_come_and_go(*matchers: str) -> tuple[Event, Event]:
    """When jobs started and ended: a job has a power while it runs.

    One point for each event: the annotations are asked for minute by minute, and each compares a
    minute with the one before.
    """
    power = metric("job_power_watts", OWNED, *matchers)
    there = f"count by (manager, job_id) ({power})"
    before = f"count by (manager, job_id) ({power} offset 1m)"
    title = "{{manager}} {{job_id}}"
    return (
        Event("Job starts", f"{there} unless {before}", f"{title} starts", kit.GREEN),
        Event("Job ends", f"{before} unless {there}", f"{title} ends", kit.RED),
    )


def frame(
    uid: str,
    title: str,
    text: str,
    *chosen: Any,
    events: Sequence[Event] = (),
) -> build.Dashboard:
    """A dashboard without panels.

    Args:
        uid: of the dashboard, after `wattledger-`.
        title: after `wattledger: `.
        text: what it answers.
        chosen: variables besides data source, cluster and scrape job.
        events: annotations.
    """
    made = (
        build.Dashboard(f"wattledger: {title}")
        .uid(f"wattledger-{uid}")
        .description(text)
        .tags([TAG, "energy"])
        .readonly()
        .time("now-6h", "now")
        .timezone("browser")
        .refresh("1m")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .link(
            build.DashboardLink("wattledger")
            .type(model.DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .as_dropdown(True)
            .include_vars(False)
            .keep_time(True)
        )
    )
    first = (variables.datasource(), variables.cluster(), variables.job())
    for variable in (*first, *chosen):
        made = made.with_variable(variable)
    for event in events:
        made = made.annotation(_Built(event))
    return made


def add(board: build.Dashboard, title: str, *panels: Any) -> build.Dashboard:
    """A row with its panels."""
    board = board.with_row(build.Row(title))
    for panel in panels:
        board = board.with_panel(panel)
    return board


def power_by_kind(*, span: int = 12) -> Any:
    """What draws the power."""
    panel = kit.lines(
        "Power by kind of device",
        "IT power, mean of the meters' last commit window: what the devices draw, without cooling "
        "and power supply (PUE). A device that nothing measures is missing here, not 0.",
        kit.WATT,
        kit.series(summed(metric("power_watts"), "kind"), "{{kind}}"),
        stacked=True,
        span=span,
    )
    return kit.colored(panel, kit.KIND_COLORS)


def power_by_payee(*, span: int = 12) -> Any:
    """For whom the power is drawn."""
    panel = kit.lines(
        "Power by payee",
        "For whom the power was drawn, by the committed books: jobs (with what they held and did "
        "not use), idle (held by nobody), system (used outside any job), unattributed (nobody can "
        "tell). Over all payees it equals the devices'.",
        kit.WATT,
        kit.series(summed(rate("payee_energy_joules_total"), "payee"), "{{payee}}"),
        stacked=True,
        span=span,
    )
    return kit.colored(panel, kit.PAYEE_COLORS)


def books_against_the_wall() -> Any:
    """The books, stacked, under the node's own total and the BMC's meter."""
    books = summed(rate("payee_energy_joules_total"))
    wall = WALL
    panel = kit.lines(
        "Books against the wall",
        "Stacked: jobs + idle + system + unattributed, by the books. `node` is the sum of the "
        "devices and must lie on top of the stack. `BMC` is the node's own meter at its power "
        "supplies (ipmi_exporter), and `residual` is BMC less books: power supply losses, fans "
        "and boards that no meter sees. Where the books take `other` from the BMC it is near 0. "
        "A constant residual is a missing part; one that follows the load is a wrong meter.",
        kit.WATT,
        kit.series(summed(rate("payee_energy_joules_total"), "payee"), "{{payee}}"),
        kit.series(summed(rate("energy_joules_total")), "node"),
        kit.series(wall, "BMC"),
        kit.series(f"{wall} - {books}", "residual"),
        stacked=True,
        minimum=None,
        span=24,
        height=10,
    )
    panel = kit.colored(panel, kit.PAYEE_COLORS)
    panel = kit.line_over(panel, "node", "text")
    panel = kit.line_over(panel, "BMC", kit.RED)
    return kit.line_over(panel, "residual", kit.YELLOW, dashed=True)


def balance_figures() -> tuple[Any, Any, Any]:
    """Whether the books balance, and what the wall and DCGM say beside them."""
    books = summed(rate("payee_energy_joules_total"))
    devices = summed(metric("energy_joules_total"))
    payees = summed(metric("payee_energy_joules_total"))
    wall = WALL
    dcgm = summed(beside("avg_over_time(DCGM_FI_DEV_POWER_USAGE[$__rate_interval])"))
    gpus = summed(rate("energy_joules_total", GPUS))
    return (
        kit.figure(
            "Books out of balance",
            "Energy of all payees less that of all devices, since the ledger's epoch. The ledger "
            "balances to the microjoule; what is seen here is only the rounding of Prometheus' "
            "numbers. More than a joule is a fault: run `wattledger doctor`.",
            kit.JOULE,
            kit.now(f"round(abs({payees} - {devices}), 0.001)"),
            limits=((None, kit.GREEN), (1, kit.RED)),
            span=8,
            decimals=3,
        ),
        kit.figure(
            "Residual of the wall",
            "What the BMC measures above the books, as a share of the BMC's value. 0.05 to 0.15 "
            "is usual for power supplies and fans when `other` is not configured; a negative "
            "value means that the books hold more than the wall delivered.",
            kit.SHARE,
            kit.now(f"({wall} - {books}) / {wall}"),
            limits=(
                (None, kit.RED),
                (-0.05, kit.GREEN),
                (0.2, kit.YELLOW),
                (0.35, kit.RED),
            ),
            span=8,
        ),
        kit.figure(
            "GPU power: books less DCGM",
            "The GPUs' power by the books less that by DCGM (`DCGM_FI_DEV_POWER_USAGE`), as a "
            "share. The books difference an energy counter, DCGM averages a sensor: a few percent "
            "apart is the sensor's accuracy.",
            kit.SHARE,
            kit.now(f"({gpus} - {dcgm}) / {dcgm}"),
            limits=((None, kit.YELLOW), (-0.05, kit.GREEN), (0.05, kit.YELLOW), (0.1, kit.RED)),
            span=8,
        ),
    )


def job_table(*, height: int = 8, running: bool = True) -> Any:
    """Jobs with what they draw and what they have cost since they began."""
    hold_idle = f"{summed(last('job_held_idle_joules_total'), *JOB_KEYS)} / 3.6e6"
    info = f"max by (manager, job_id, user, name) ({last('job_info')})"
    nodes = (
        "count by (manager, job_id) "
        f"(count by (manager, job_id, cluster, instance) ({last('job_info')}))"
    )
    targets = [
        kit.row_of(summed(last("job_energy_kwh_total"), *JOB_KEYS), "A"),
        kit.row_of(summed(last("job_co2e_grams_total"), *JOB_KEYS), "B"),
        kit.row_of(hold_idle, "C"),
        kit.row_of(nodes, "D"),
        kit.row_of(info, "E"),
    ]
    columns = {
        "job_id": ("Job", ""),
        "manager": ("Manager", ""),
        "name": ("Name", ""),
        "user": ("User", ""),
        "Value #D": ("Nodes", kit.NUMBER),
        "Value #A": ("Energy", kit.KWH),
        "Value #B": ("CO2e", kit.GRAM),
        "Value #C": ("Held idle", kit.KWH),
    }
    if running:
        targets.append(kit.row_of(summed(metric("job_power_watts"), *JOB_KEYS), "F"))
        columns["Value #F"] = ("Power now", kit.WATT)
    return kit.grid(
        "Jobs",
        "Every job seen in the range shown, over all its nodes. Energy (IT), CO2e (facility) and "
        "held idle (the energy of GPUs it held and did not use) count from the job's beginning; "
        "power now is empty once it has ended. Names and users appear where `jobs.labels` shows "
        "them. `(other)` gathers the jobs beyond `jobs.max_series`.",
        columns,
        *targets,
        links={"Job": kit.to_job()},
        limits={"Held idle": ((None, "text"), (0.1, kit.YELLOW), (1, kit.RED))},
        sort="Energy",
        height=height,
        drop=("Value #E",),
        widths={"Job": 320},
    )


def meters_down() -> str:
    """How many meters do not answer."""
    return or_zero(summed(f"1 - {metric('meter_up')}"))


def energy_in_range(*by: str) -> str:
    """IT energy of the range shown, in kWh."""
    return summed(increase("energy_kwh_total"), *by)


def up(*matchers: str) -> str:
    """Prometheus' own verdict on its scrapes."""
    return f"up{{{','.join((TARGET, *matchers))}}}"
