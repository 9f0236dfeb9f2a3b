"""What `job_info` says of jobs: the labels that the sites chose (`jobs.labels`)."""

from __future__ import annotations

from collections.abc import Sequence

from wattledger.fleet.books import Fleet
from wattledger.fleet.reply import Labels, samples, shown
from wattledger.fleet.targets import CLUSTER

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
_BY = ", ".join((CLUSTER, "manager", "job_id", *NAMES))
_NAMED = 3
Job = tuple[str, str, str]
"""A cluster, or empty where the labels name none, a manager and an id."""
Known = dict[Job, dict[str, str]]


def job_of(labels: Labels) -> Job:
    """The job of a series."""
    return labels.get(CLUSTER, ""), labels.get("manager", ""), labels.get("job_id", "")


def labels_of(fleet: Fleet, matchers: Sequence[str]) -> Known:
    """Job → its labels that are not empty; of several sets, the fullest.

    Args:
        fleet: where; jobs that are shown as those of several users are noted there.
        matchers: that select jobs.
    """
    known: Known = {}
    users: dict[Job, set[str]] = {}
    for row in samples(fleet.ask_last("job_info", matchers, _BY)):
        job = job_of(row.labels)
        said = {
            name: row.labels[name]
            for name in NAMES
            if row.labels.get(name) and job[1] in _OF_CONTAINERS.get(name, job)
        }
        if "user" in said:
            users.setdefault(job, set()).add(said["user"])
        if job not in known or _order(said) > _order(known[job]):
            known[job] = said
    several = sorted(job for job, names in users.items() if len(names) > 1)
    if several:
        some = ", ".join(f"{manager}/{shown(job_id)}" for _, manager, job_id in several[:_NAMED])
        more = f" and {len(several) - _NAMED} more" if len(several) > _NAMED else ""
        text = (
            f"{some}{more}: more than one user is shown for that id, and what they used is added "
            f'up; where two clusters count alike, nodes need a label "{CLUSTER}"'
        )
        fleet.notes[text] = None
    return known


def _order(labels: Labels) -> tuple[int, list[tuple[str, str]]]:
    return len(labels), sorted(labels.items())
