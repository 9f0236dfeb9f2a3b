"""The variables of the dashboards: one data source, and what narrows the nodes and jobs."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.models import dashboard as model

SOURCE = model.DataSourceRef(type_val="prometheus", uid="${datasource}")
ALL = model.VariableOption(selected=True, text=["All"], value=["$__all"])


def datasource() -> build.DatasourceVariable:
    """Which Prometheus, VictoriaMetrics, Thanos or Mimir."""
    current = model.VariableOption(selected=True, text="Prometheus", value="prometheus")
    return (
        build.DatasourceVariable("datasource")
        .label("Data source")
        .type("prometheus")
        .current(current)
    )


def values(
    name: str,
    label: str,
    series: str,
    *,
    all_value: str,
    hidden: bool = False,
) -> build.QueryVariable:
    """A variable whose values are those of a label of its name; all of them at first.

    Args:
        name: of the variable.
        label: for people.
        series: a selector.
        all_value: what "All" stands for: a pattern, since the names of 2,000 nodes are a query
            longer than VictoriaMetrics takes.
        hidden: not shown.
    """
    made = (
        build.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query({"query": f"label_values({series}, {name})", "refId": name})
        .current(ALL)
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.NATURAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(all_value)
    )
    if hidden:
        made = made.hide(model.VariableHide.HIDE_VARIABLE)
    return made


def cluster() -> build.QueryVariable:
    """Where the scrape configuration gives a cluster; everything where it does not."""
    return values("cluster", "Cluster", "wattledger_build_info", all_value=".*")


def job() -> build.QueryVariable:
    """The scrape job: Prometheus' own label, not a job of the scheduler."""
    series = 'wattledger_build_info{cluster=~"$cluster"}'
    return values("job", "Scrape job", series, all_value=".+", hidden=True)


def instance() -> build.QueryVariable:
    """The nodes."""
    series = 'wattledger_build_info{cluster=~"$cluster",job=~"$job"}'
    return values("instance", "Node", series, all_value=".+")


def manager() -> build.QueryVariable:
    """Who started the jobs: slurm, pod, docker, …"""
    series = 'wattledger_job_info{cluster=~"$cluster",job=~"$job",instance=~"$instance"}'
    return values("manager", "Manager", series, all_value=".+")


def job_id() -> build.QueryVariable:
    """The jobs."""
    series = (
        'wattledger_job_info{cluster=~"$cluster",job=~"$job",instance=~"$instance",'
        'manager=~"$manager"}'
    )
    return values("job_id", "Job", series, all_value=".+")


def user() -> build.QueryVariable:
    """The users, where `jobs.labels` shows them."""
    series = (
        'wattledger_user_energy_kwh_total{cluster=~"$cluster",job=~"$job",instance=~"$instance"}'
    )
    return values("user", "User", series, all_value=".*")
