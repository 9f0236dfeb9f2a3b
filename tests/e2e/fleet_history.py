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
                    ours = f'cluster="{CLUSTER}",job="{JOB}",instance="{node.name}:19400"'
                    ipmi = f'cluster="{CLUSTER}",job="ipmi",instance="{node.name}:9290"'
                    dcgm = f'cluster="{CLUSTER}",job="dcgm",instance="{node.name}:9400"'
                    lines = [*scraped([*page, "up 1"], ours, at_s)]
                    for line in node.beside():
                        other = ipmi if line.startswith("ipmi_") else dcgm
                        lines += scraped([line], other, at_s)
                    out.write("\n".join(lines) + "\n")
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
    for number, level in enumerate(recording_levels(rules, wanted)):
        # The files' own intervals are for production; two minutes are as right, and four times
        # as fast.
        group = {"name": f"level{number}", "interval": "2m", "rules": level}
        path = home / f"rules{number}.yml"
        path.write_text(yaml.safe_dump({"groups": [group]}))
        prometheus.replay(path, BEGIN_S, END_S)
    return prometheus, truth
