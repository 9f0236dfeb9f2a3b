"""The labels that a scrape gave: what a series is a copy of. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wattledger.fleet.reply import Labels

CLUSTER = "cluster"
"""The target label that keeps jobs of the same id apart; `deploy/prometheus` sets it."""
OF_LEDGER = ("__name__", "epoch", "storage")

Target = frozenset[tuple[str, str]]


def target_of(labels: Labels, own: Iterable[str]) -> Target:
    """The labels that the scrape gave, without those of the metric itself."""
    left_out = set(own)
    return frozenset((name, value) for name, value in labels.items() if name not in left_out)


def label_of(target: Target, name: str) -> str:
    """The value of a label; empty: it has none."""
    return next((value for label, value in target if label == name), "")


def instances_of(targets: Iterable[Target]) -> list[str]:
    """Their `instance`, each once."""
    return sorted({label_of(target, "instance") for target in targets})


def node_name(target: Target) -> str:
    """What a node is called: its `instance`; where there is none, all of its labels."""
    instance = label_of(target, "instance")
    return instance or ", ".join(f"{name}={value}" for name, value in sorted(target)) or "?"


def host_of(node: str) -> str:
    """What a node is compared by: its name without domain and port, its address without port.

    Slurm and Prometheus call nodes by either: `gpu01`, `gpu01:19400` and `GPU01.lab.example.org`
    are one, and so are `fd00::1`, `[fd00:0::1]` and `[FD00::1]:19400`.
    """
    if node.startswith("["):
        host = node[1:].partition("]")[0]
    elif node.count(":") == 1:
        host = node.partition(":")[0]
    else:  # no port, or an address that is all colons
        host = node
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host.partition(".")[0].lower()
