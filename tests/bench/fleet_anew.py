"""Nodes whose ledgers were begun anew within the span that is asked about: imaged anew, diskless.

Two epochs each under one set of labels, so that nothing can be summed up by the server alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

CLUSTER = "anew"
JOB_ID = "777001"
EVERY_S = 15
LASTS_S = 600
AWAY_S = 120
EPOCH_KWH = 0.5
"""What the job draws on each node in each epoch: no rounding hides a joule of it."""
COUNTERS = {
    "job_energy_kwh_total": {"kind": "gpu"},
    "job_co2e_grams_total": {"basis": "lifecycle"},
    "job_water_liters_total": {"origin": "grid"},
    "job_held_seconds_total": {},
    "job_held_idle_joules_total": {},
    "job_held_idle_seconds_total": {},
}


def series(nodes: int, apart_s: int, end_s: int) -> Iterator[str]:
    """Lines of VictoriaMetrics' import: https://docs.victoriametrics.com, "JSON line format".

    Args:
        nodes: how many.
        apart_s: how long after the one before each node is begun anew; 0: all at once.
        end_s: of the last sample of the last node, Unix time.
    """
    for number in range(nodes):
        node = {
            "job": "wattledger",
            "cluster": f"{CLUSTER}{apart_s}",
            "instance": f"gpu{number:04d}.{CLUSTER}.example.org:19400",
        }
        last_s = end_s - apart_s * (nodes - 1 - number)
        for epoch, until_s in (("a", last_s - LASTS_S - AWAY_S), ("b", last_s)):
            times = range(until_s - LASTS_S + EVERY_S, until_s + 1, EVERY_S)
            info = {**node, "epoch": f"{apart_s}-{number}-{epoch}", "storage": "volatile"}
            job = {**node, "manager": "slurm", "job_id": JOB_ID}
            yield _line("ledger_info", info, times, [1.0] * len(times))
            yield _line("job_power_watts", job, times, [700.0] * len(times))
            grows = [EPOCH_KWH * (n + 1) / len(times) for n in range(len(times))]
            for name, own in COUNTERS.items():
                yield _line(name, {**job, **own}, times, grows)


def _line(name: str, labels: dict[str, str], times: range, values: list[float]) -> str:
    metric = {"__name__": f"wattledger_{name}", **labels}
    row = {"metric": metric, "values": values, "timestamps": [at_s * 1000 for at_s in times]}
    return json.dumps(row)
