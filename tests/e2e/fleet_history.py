"""Hours of the fleet's pages in one OpenMetrics file, as a Prometheus would have scraped them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from e2e.fleet_nodes import BEGIN_S, HOURS, TURN_S, Node, names

CLUSTER = "lab"
JOB = "wattledger"
END_S = BEGIN_S + HOURS * 3600


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


def write(path: Path, home: Path) -> None:
    """Play the fleet's hours into a file that `promtool tsdb create-blocks-from` reads."""
    nodes = [Node(name, home) for name in names()]
    try:
        with path.open("w") as out:
            for _ in range(HOURS * 3600 // TURN_S):
                for node in nodes:
                    page = node.turn().splitlines()
                    at_s = BEGIN_S + node.second
                    ours = f'cluster="{CLUSTER}",job="{JOB}",instance="{node.name}:19400"'
                    ipmi = f'cluster="{CLUSTER}",job="ipmi",instance="{node.name}:9290"'
                    dcgm = f'cluster="{CLUSTER}",job="dcgm",instance="{node.name}:9400"'
                    lines = [*scraped([*page, "up 1"], ours, at_s)]
                    for line in node.beside():
                        other = ipmi if line.startswith("ipmi_") else dcgm
                        lines += scraped([line], other, at_s)
                    out.write("\n".join(lines) + "\n")
            out.write("# EOF\n")
    finally:
        for node in nodes:
            node.close()
