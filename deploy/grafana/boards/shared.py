"""What several dashboards show alike: the frame, the annotations, the books against the wall."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard as model

from boards import kit, variables
from boards.queries import (
    BMC,
    DCGM,
    GPUS,
    OWNED,
    TARGET,
    by_host,
    increase,
    last,
    metric,
    or_zero,
    rate,
    summed,
    told,
)

TAG = "wattledger"
NODE_KEYS = ("cluster", "job", "instance")
JOB_KEYS = ("cluster", "manager", "job_id")
JOB_NAME = "{{cluster}} {{manager}} {{job_id}}"
NODE_NAME = "{{cluster}} {{instance}}"


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
    minute with the one before, on nodes that showed a page in both: a missed scrape ends no job.
    """
    power = metric("job_power_watts", OWNED, *matchers)
    page = metric("build_info")
    keys, target = ", ".join(JOB_KEYS), ", ".join(NODE_KEYS)
    there = f"count by ({keys}) ({power})"
    before = f"count by ({keys}) ({power} offset 1m)"
    came = f"count by ({keys}) ({power} and on ({target}) {page} offset 1m) unless {before}"
    went = f"count by ({keys}) ({power} offset 1m and on ({target}) {page}) unless {there}"
    title = "{{manager}} {{job_id}}"
    return (
        Event("Job starts", came, f"{title} starts", kit.GREEN),
        Event("Job ends", went, f"{title} ends", kit.RED),
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
    payees = rate("payee_energy_joules_total")
    devices = rate("energy_joules_total")
    books = by_host(payees)
    compared = summed(f"{by_host(payees, 'payee')} and on (cluster, host) {BMC}", "payee")
    panel = kit.lines(
        "Books against the wall",
        "Of the nodes whose BMC is read too (of all, where none is). Stacked: jobs + idle + system "
        "+ unattributed, by the books. `node` is the sum of the "
        "devices and must lie on top of the stack. `BMC` is the node's own meter at its power "
        "supplies (ipmi_exporter), and `residual` is BMC less books: power supply losses, fans "
        "and boards that no meter sees. Where the books take `other` from the BMC it is near 0. "
        "A constant residual is a missing part; one that follows the load is a wrong meter.",
        kit.WATT,
        kit.series(f"{compared} or on () {summed(payees, 'payee')}", "{{payee}}"),
        kit.series(f"sum({by_host(devices)} and {BMC}) or {summed(devices)}", "node"),
        kit.series(f"sum({BMC} and {books})", "BMC"),
        kit.series(f"sum({BMC} - {books})", "residual"),
        stacked=True,
        minimum=None,
        span=24,
        height=10,
    )
    panel = kit.colored(panel, kit.PAYEE_COLORS)
    panel = kit.line_over(panel, "node", "text")
    panel = kit.line_over(panel, "BMC", kit.RED)
    return kit.line_over(panel, "residual", kit.YELLOW, dashed=True)


def balance_figures() -> tuple[Any, ...]:
    """Whether the books balance, and what the wall and DCGM say beside them."""
    devices = summed(metric("energy_joules_total"))
    payees = summed(metric("payee_energy_joules_total"))
    books = by_host(rate("payee_energy_joules_total"))
    gpus = summed(rate("energy_joules_total", GPUS), "cluster", "device")
    return (
        kit.figure(
            "Books out of balance",
            "Energy of all payees less that of all devices, since the ledger's epoch. The ledger "
            "balances to the microjoule; what is seen here is only the rounding of Prometheus' "
            "numbers. More than a joule is a fault: run `wattledger doctor`.",
            kit.JOULE,
            kit.now(f"round(abs({payees} - {devices}), 0.001)"),
            limits=((None, kit.GREEN), (1, kit.RED)),
            span=6,
            decimals=3,
        ),
        kit.figure(
            "Residual of the wall",
            "What the BMC measures above the books, as a share of the BMC's value, over the nodes "
            "that have both. 0.05 to 0.15 "
            "is usual for power supplies and fans when `other` is not configured; a negative "
            "value means that the books hold more than the wall delivered.",
            kit.SHARE,
            kit.now(f"sum({BMC} - {books}) / sum({BMC} and {books})"),
            limits=(
                (None, kit.RED),
                (-0.05, kit.GREEN),
                (0.2, kit.YELLOW),
                (0.35, kit.RED),
            ),
            span=6,
        ),
        kit.figure(
            "GPU power: books less DCGM",
            "The GPUs' power by the books less that by DCGM (`DCGM_FI_DEV_POWER_USAGE`), as a "
            "share, over the GPUs that have both. The books difference an energy counter, DCGM "
            "averages a sensor: a few percent apart is the sensor's accuracy.",
            kit.SHARE,
            kit.now(f"sum({gpus} - {DCGM}) / sum({DCGM} and {gpus})"),
            limits=((None, kit.YELLOW), (-0.05, kit.GREEN), (0.05, kit.YELLOW), (0.1, kit.RED)),
            span=6,
        ),
        kit.figure(
            "Compared",
            "Share of the nodes whose BMC, and of the GPUs whose DCGM stands beside the books: the "
            "residuals are of these. 0 without ipmi_exporter and dcgm-exporter, or where their "
            "hosts or their `cluster` are called otherwise.",
            kit.SHARE,
            kit.now(or_zero(f"count({books} and {BMC}) / count({books})"), "nodes, BMC"),
            kit.now(or_zero(f"count({gpus} and {DCGM}) / count({gpus})"), "GPUs, DCGM"),
            names=True,
            span=6,
        ),
    )


def job_table(*, height: int = 8, running: bool = True) -> Any:
    """Jobs with what they draw and what they have cost since they began."""
    hold_idle = f"{summed(last('job_held_idle_joules_total'), *JOB_KEYS)} / 3.6e6"
    keys = ", ".join(JOB_KEYS)
    nodes = f"count by ({keys}) (count by ({keys}, instance) ({last('job_info')}))"
    targets = [
        kit.row_of(summed(last("job_energy_kwh_total"), *JOB_KEYS), "A"),
        kit.row_of(summed(last("job_co2e_grams_total"), *JOB_KEYS), "B"),
        kit.row_of(hold_idle, "C"),
        kit.row_of(nodes, "D"),
        kit.row_of(told(JOB_KEYS, ("user", "name")), "E"),
    ]
    columns = {
        "job_id": ("Job", ""),
        "cluster": ("Cluster", ""),
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
