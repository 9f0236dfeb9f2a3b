"""Hours of the fleet's pages in one OpenMetrics file, as a Prometheus would have scraped them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import yaml

from e2e.fleet_nodes import BEGIN_S, LENGTH_S, TURN_S, Node, names
from e2e.history import Prometheus

CLUSTER = "lab"
JOB = "wattledger"
END_S = BEGIN_S + LENGTH_S
SHOWN_S = BEGIN_S + 900
"""From here to `END_S` the dashboards are shown: rates of the first minutes know too little."""


def scraped(page: Iterable[str], target: str, at_s: int) -> Iterator[str]:
    """Samples of a page with the target's labels and the time of the scrape.

    Args:
        page: lines in OpenMetrics.
        target: the target's labels.
        at_s: when it was scraped, Unix time.
    """
    for line in page:
        if not line or line.startswith("#"):
            continue
        series, _, value = line.rpartition(" ")
        series = f"{series[:-1]}," if series.endswith("}") else f"{series}{{"
        series += f"{target}}}"
        yield f"{series} {value} {at_s}"


def target(cluster: str, job: str, instance: str) -> str:
    """The labels of a target; the configuration that is shipped takes our port from `instance`."""
    return f'cluster="{cluster}",job="{job}",instance="{instance}"'


def exporter_of(line: str, cluster: str, host: str) -> str:
    """The labels of the target that shows a line of `Node.beside`."""
    if line.startswith("ipmi_"):
        return target(cluster, "ipmi", f"{host}:9290")
    return target(cluster, "dcgm", f"{host}:9400")


def write(path: Path, home: Path) -> dict[str, float]:
    """Play the fleet's hours into a file that `promtool tsdb create-blocks-from` reads.

    Returns:
        `watts` that the hardware drew at the end, and `shown_kwh` that it used in the time shown.
    """
    nodes = [Node(name, home) for name in names()]
    shown_ws = 0.0
    try:
        with path.open("w") as out:
            for _ in range(LENGTH_S // TURN_S):
                for node in nodes:
                    page = node.turn().splitlines()
                    at_s = BEGIN_S + node.second
                    shown_ws += sum(node.watts.values()) * TURN_S * (at_s > SHOWN_S)
                    lines = [*page, *node.process(), "up 1"]
                    samples = [*scraped(lines, target(CLUSTER, JOB, node.name), at_s)]
                    for line in node.beside():
                        other = exporter_of(line, CLUSTER, node.name)
                        samples += scraped([line], other, at_s)
                    out.write("\n".join(samples) + "\n")
            out.write("# EOF\n")
        watts = sum(sum(node.watts.values()) for node in nodes)
        return {"watts": watts, "shown_kwh": shown_ws / 3.6e6}
    finally:
        for node in nodes:
            node.close()


def recording_levels(rules: Sequence[Path], wanted: Iterable[str]) -> list[list[dict[str, str]]]:
    """The recording rules that give series, and those they are made of: the lowest first.

    Args:
        rules: rule files.
        wanted: names of recorded series; what no rule records is left out.
    """
    found = {
        rule["record"]: rule
        for path in rules
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
        if "record" in rule
    }
    made_of = {
        name: {n for n in re.findall(r"[a-z_0-9]+:[a-z_0-9:]+", rule["expr"]) if n in found}
        - {name}  # a rule that goes on from its own last value begins without one
        for name, rule in found.items()
    }
    level: dict[str, int] = {}

    def place(name: str) -> int:
        if name not in level:
            level[name] = 1 + max((place(other) for other in made_of[name]), default=-1)
        return level[name]

    for name in sorted(found.keys() & set(wanted)):
        place(name)
    return [
        [found[name] for name in sorted(level) if level[name] == number]
        for number in range(1 + max(level.values(), default=-1))
    ]


def record(prometheus: Prometheus, levels: Sequence[list[dict[str, str]]], end_s: int) -> None:
    """Have a running Prometheus hold what rules would have recorded since `BEGIN_S`.

    Args:
        prometheus: holds what the rules read.
        levels: of `recording_levels`.
        end_s: the last evaluation, Unix time.
    """
    for number, level in enumerate(levels):
        group = {"name": f"level{number}", "interval": "30s", "rules": level}
        path = prometheus.home / f"rules{number}.yml"
        path.write_text(yaml.safe_dump({"groups": [group]}))
        prometheus.replay(path, BEGIN_S, end_s)


def serve(
    home: Path, rules: Sequence[Path] = (), wanted: Iterable[str] = ()
) -> tuple[Prometheus, dict[str, float]]:
    """A running Prometheus that holds the fleet's hours, and what rules recorded of them.

    Args:
        home: an empty directory.
        rules: rule files.
        wanted: the recorded series that somebody asks for.

    Returns:
        The Prometheus, and what `write` gives.
    """
    home.mkdir(parents=True, exist_ok=True)
    prometheus = Prometheus(home / "prometheus")
    truth = write(home / "fleet.openmetrics", home)
    prometheus.ingest(home / "fleet.openmetrics")
    prometheus.start()
    record(prometheus, recording_levels(rules, wanted), END_S)
    return prometheus, truth
