"""PromQL in pieces: selectors over the dashboards' variables, and counters read as they should be.

Gauges are read as they are. Counters are read in three ways only:

* `rate` for power: joules per second are watts;
* `increase` for what a node or a user added in the range shown;
* `last` for a job: its counter begins at 0 with the job and stays for a while after its end, so
  the last value in the range is its total since it began, without extrapolation.
"""

from __future__ import annotations

from collections.abc import Sequence

TARGET = 'cluster=~"$cluster",job=~"$job",instance=~"$instance"'
"""What every query selects by."""
JOB = 'manager=~"$manager",job_id=~"$job_id"'

KWH_PER_J = "3.6e6"
OWNED = 'manager!="none"'
"""Leaves out the series that gathers the jobs without one of their own."""
CARDS = 'device=~"GPU-.*"'
"""GPUs, of a metric that tells devices but not their kind."""
GPUS = 'kind="gpu"'
FOR_JOBS = 'payee="jobs"'


def metric(name: str, *matchers: str) -> str:
    """A selector of one of our metrics.

    Args:
        name: without the prefix.
        matchers: besides `TARGET`.
    """
    return f"wattledger_{name}{{{','.join((TARGET, *matchers))}}}"


def rate(name: str, *matchers: str) -> str:
    """A counter's increase per second."""
    return f"rate({metric(name, *matchers)}[$__rate_interval])"


def increase(name: str, *matchers: str) -> str:
    """What a counter gained in the range shown."""
    return gained(name, "$__range", *matchers)


def gained(name: str, window: str, *matchers: str) -> str:
    """What a counter gained in a time."""
    return f"increase({metric(name, *matchers)}[{window}])"


def recorded(name: str, *labels: str, known: str = "") -> str:
    """A series of the recording rules in ../prometheus/rules, which know no scrape job.

    Args:
        name: of the rule.
        labels: those of the dashboard's variables that it has.
        known: a label without which a series is left out.
    """
    matchers = [*(f'{label}=~"${label}"' for label in labels), *([f'{known}!=""'] if known else [])]
    return f"{name}{{{','.join(matchers)}}}"


def last(name: str, *matchers: str) -> str:
    """The last value in the range shown, of what has ended too."""
    return f"last_over_time({metric(name, *matchers)}[$__range])"


def summed(inner: str, *by: str) -> str:
    """The sum, by labels."""
    return f"sum by ({', '.join(by)}) ({inner})" if by else f"sum({inner})"


def top(number: int, inner: str) -> str:
    """The greatest."""
    return f"topk({number}, {inner})"


def by_host(inner: str, *by: str) -> str:
    """A sum for each host, so that the host's other exporters can stand beside it.

    Their `instance` has another port, or none, and other clusters may have the same host names.

    Args:
        inner: carries `cluster` and `instance`.
        by: labels besides `cluster` and `host`.
    """
    return summed(_hosted(inner), "cluster", "host", *by)


def _hosted(inner: str) -> str:
    """With a label `host`: `instance` without a port, also of `[fd00::1]:19400`."""
    return f'label_replace({inner}, "host", "$1$3", "instance", "{_HOST}")'


_HOST = r"([^:]+|\\[.+\\])(:[0-9]+)?|(.*)"
BMC = (
    "max by (cluster, host) "
    f"({_hosted('avg_over_time(ipmi_dcmi_power_consumption_watts[$__rate_interval])')})"
)
"""The BMCs' meters by host, over the same time as the rates that stand beside them."""
_DCGM = "avg_over_time(DCGM_FI_DEV_POWER_USAGE[$__rate_interval])"
DCGM = f'max by (cluster, device) (label_replace({_DCGM}, "device", "$1", "UUID", "(.+)"))'
"""The GPUs' power sensors by GPU; it is told once for each pod and MIG instance that has it."""


def or_zero(inner: str) -> str:
    """0 where nothing fits, and nothing where no daemon answers.

    Of what is counted: that there is none is an answer too.
    """
    return f"({inner} or 0 * count({metric('build_info')}))"


def told(keys: Sequence[str], labels: Sequence[str]) -> str:
    """One series for each job, of `job_info`, with labels that `jobs.labels` shows.

    A job is shown before its labels are known, and they may differ between its nodes: a series
    that has them is preferred, the first label before the second.

    Args:
        keys: what a job is known by.
        labels: may be empty.
    """
    by = ", ".join((*keys, *labels))
    on = ", ".join(keys)
    known = (last("job_info", f'{label}!=""') for label in labels)
    having = (f"topk by ({on}) (1, max by ({by}) ({one}))" for one in known)
    return f" or on ({on}) ".join((*having, f"max by ({on}) ({last('job_info')})"))


def of_user(inner: str) -> str:
    """A series of jobs, summed by user; without jobs of whose user nothing is known.

    Args:
        inner: carries `instance`, `manager` and `job_id`.
    """
    keys = ("cluster", "job", "instance", "manager", "job_id")
    on = ", ".join(keys)
    of = f"""topk by ({on}) (1, max by ({on}, user) ({last("job_info", 'user!=""')}))"""
    return summed(f"{summed(inner, *keys)} * on ({on}) group_left (user) ({of})", "user")
