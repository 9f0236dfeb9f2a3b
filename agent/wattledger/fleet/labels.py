"""What `job_info` says of jobs: the labels that the sites chose (`jobs.labels`)."""

from __future__ import annotations

from collections.abc import Sequence

from wattledger.fleet.books import Fleet
from wattledger.fleet.reply import Labels, samples

NAMES = (
    *("name", "user", "account", "partition", "namespace", "pod", "container", "unit"),
    *("array_job_id", "array_task_id"),
)
"""Labels that `jobs.labels` can choose."""
_OF_CONTAINERS = {
    "namespace": ("pod",),
    "pod": ("pod",),
    "container": ("pod", "docker", "podman"),
}
"""Of other managers' jobs such a label is that of the daemon's own pod: a target label."""
_BY = ", ".join(("manager", "job_id", *NAMES))
Job = tuple[str, str]
Known = dict[Job, dict[str, str]]


def job_of(labels: Labels) -> Job:
    """The manager and the id of a series."""
    return labels.get("manager", ""), labels.get("job_id", "")


def labels_of(fleet: Fleet, matchers: Sequence[str]) -> Known:
    """(manager, job id) → its labels that are not empty; of several sets, the fullest.

    Args:
        fleet: where.
        matchers: that select jobs.
    """
    known: Known = {}
    for row in samples(fleet.ask_last("job_info", matchers, _BY)):
        job = job_of(row.labels)
        said = {
            name: row.labels[name]
            for name in NAMES
            if row.labels.get(name) and job[0] in _OF_CONTAINERS.get(name, job)
        }
        if job not in known or _order(said) > _order(known[job]):
            known[job] = said
    return known


def _order(labels: Labels) -> tuple[int, list[tuple[str, str]]]:
    return len(labels), sorted(labels.items())
