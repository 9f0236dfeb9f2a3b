"""A fleet that is not as one wishes: idle nodes, few BMCs, two clusters alike, a missed scrape.

* `alpha`: `gpu01` with a BMC and the job 7 of ann, whose name is learnt two minutes after it began;
  nothing scrapes the node for seven minutes. `gpu02` has neither BMC nor job.
* `beta`: its `gpu01` has a BMC, dcgm-exporter and other jobs, one of them called 7 as well.
* `idle`: a node known by its IPv6 address, with a BMC; nobody has ever run a job there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from e2e.fleet_history import JOB, exporter_of, record, recording_levels, scraped, target
from e2e.fleet_nodes import BEGIN_S, EVERY, TURN_S, JobPlan, Node
from e2e.history import Prometheus

LENGTH_S = 2400
END_S = BEGIN_S + LENGTH_S
GAP_S = (1200, 1620)  # longer than Prometheus looks back


@dataclass(frozen=True, eq=False)
class Place:
    """A node of the fleet.

    Attributes:
        cluster: its cluster.
        name: its name.
        instance: how Prometheus knows it.
        plans: its jobs.
        beside: how the lines of its other exporters begin.
        gap_s: when it is not scraped.
    """

    cluster: str
    name: str
    instance: str
    plans: tuple[JobPlan, ...] = ()
    beside: tuple[str, ...] = ()
    gap_s: tuple[int, int] = (0, 0)


ANN = JobPlan("slurm", "7", "dock", "ann", "biology", {"gpu01": EVERY}, 300, named_s=120)
BEN = JobPlan("slurm", "7", "cfd", "ben", "physics", {"gpu01": (0, 1)}, 600, busy_until_s=900)
BRIEF = JobPlan("slurm", "8", "cfd", "ben", "physics", {"gpu01": (2,)}, 900, 1500)
PLACES = (
    Place("alpha", "gpu01", "gpu01", (ANN,), ("ipmi_",), GAP_S),
    Place("alpha", "gpu02", "gpu02:19400"),
    Place("beta", "gpu01", "gpu01:19400", (BEN, BRIEF), ("ipmi_", "DCGM_")),
    Place("idle", "gpu03", "[fd00::3]:19400", (), ("ipmi_",)),
)


def _samples(place: Place, node: Node) -> Iterator[str]:
    page = node.turn().splitlines()
    begin_s, end_s = place.gap_s
    if begin_s <= node.second < end_s:
        return
    at_s = BEGIN_S + node.second
    lines = [*page, *node.process(), "up 1"]
    yield from scraped(lines, target(place.cluster, JOB, place.instance), at_s)
    host = place.instance.removesuffix(":19400")
    for line in node.beside():
        if line.startswith(place.beside):
            yield from scraped([line], exporter_of(line, place.cluster, host), at_s)


def serve(
    home: Path, rules: Sequence[Path], wanted: set[str]
) -> tuple[Prometheus, Mapping[Place, float]]:
    """A running Prometheus that holds the fleet's minutes, and the watts of each node at the end.

    Args:
        home: an empty directory.
        rules: rule files.
        wanted: the recorded series that somebody asks for.
    """
    prometheus = Prometheus(home / "prometheus")
    path = home / "fleet.openmetrics"
    with ExitStack() as stack, path.open("w") as out:
        nodes = {}
        for place in PLACES:
            folder = home / place.cluster
            folder.mkdir(exist_ok=True)
            nodes[place] = stack.enter_context(
                closing(Node(place.name, folder, schedule=place.plans))
            )
        for _ in range(LENGTH_S // TURN_S):
            for place, node in nodes.items():
                out.writelines(f"{line}\n" for line in _samples(place, node))
        out.write("# EOF\n")
        watts = {place: sum(node.watts.values()) for place, node in nodes.items()}
    prometheus.ingest(path)
    prometheus.start()
    record(prometheus, recording_levels(rules, wanted), END_S)
    return prometheus, watts
