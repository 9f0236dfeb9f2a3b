"""PromQL in pieces: selectors over the dashboards' variables, and counters read as they should be.

Gauges are read as they are. Counters are read in three ways only:

* `rate` for power: joules per second are watts;
* `increase` for what a node or a user added in the range shown;
* `last` for a job: its counter begins at 0 with the job and stays for a while after its end, so
  the last value in the range is its total since it began, without extrapolation.
"""

from __future__ import annotations

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


def recorded(name: str, *labels: str) -> str:
    """A series of the recording rules in ../prometheus/rules, which know no scrape job.

    Args:
        name: of the rule.
        labels: those of `cluster` and `instance` that it has.
    """
    matchers = [f'{label}=~"${label}"' for label in labels]
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


def beside(inner: str) -> str:
    """Series of other exporters on the hosts of the chosen nodes: their port is another.

    Joined, not written out: the names of 2,000 hosts are a query longer than engines take.

    Args:
        inner: carries `instance`.
    """
    theirs, ours = (
        f'label_replace({series}, "host", "$1", "instance", "([^:]+).*")'
        for series in (inner, metric("build_info"))
    )
    return f"({theirs} and on (host) {ours})"


def or_zero(inner: str) -> str:
    """0 where nothing fits: of counts of what is wrong, for which nothing is the good answer."""
    return f"{inner} or vector(0)"


def of_user(inner: str, *by: str) -> str:
    """A series of jobs, summed by what `job_info` says of them.

    Args:
        inner: carries `instance`, `manager` and `job_id`.
        by: labels of `job_info`, which are there where `jobs.labels` names them.
    """
    keys = "cluster, job, instance, manager, job_id"
    info = f"max by ({', '.join((keys, *by))}) ({last('job_info')})"
    total = f"sum by ({keys}) ({inner})"
    joined = f"{total} * on ({keys}) group_left ({', '.join(by)}) {info}"
    return f"sum by ({', '.join(by)}) ({joined})"
