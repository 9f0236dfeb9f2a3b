"""The labels that a scrape gave: what a series is a copy of. Pure."""

from __future__ import annotations

from collections.abc import Iterable

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
