"""How well a job used what it held, in plain words, and what to try."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wattledger import units
from wattledger.model import Kind
from wattledger.model.jobbooks import Cell, JobDetail
from wattledger_exporters.sums import money
from wattledger_exporters.wording import energy, percent

MOSTLY = 0.5
SOMETIMES = 0.1
_NEVER = 0.999
_EXACT_ENOUGH_MS = 60_000  # held for less than this says nothing about a habit


def advice(detail: JobDetail, idle_costs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Sentences, the most important first; none for a job that there is nothing to say of.

    Args:
        detail: the job.
        idle_costs: of what it held without use, by currency; empty: no price is known.
    """
    whole = Cell()
    gpu_uj = 0
    for (kind, _), cell in detail.total.items():
        whole = whole.plus(cell)
        gpu_uj += cell.amounts.energy_uj if kind is Kind.GPU else 0
    held, said = whole.held, []
    if held.held_ms and held.idle_ms:
        of_all = held.idle_uj / whole.amounts.energy_uj if whole.amounts.energy_uj else 0.0
        of_gpu = held.idle_uj / gpu_uj if gpu_uj else 0.0
        cost = f", {money(idle_costs)}" if idle_costs else ""
        said.append(
            f"{percent(held.idle_ms / held.held_ms)} of the time that it held GPUs they did "
            f"nothing: {percent(of_all)} of its energy, {percent(of_gpu)} of that of its GPUs "
            f"({energy(units.kwh(held.idle_uj))}{cost})."
        )
        said += _what_to_try(held.idle_ms, held.held_ms)
    elif held.held_ms:
        said.append("The GPUs that it held were in use whenever they were looked at.")
    if any(not h.exact for book in detail.runs for h in book.run.holdings):
        said.append("It shares a GPU in a way that cannot be told; the holders pay equal parts.")
    return said


def _what_to_try(idle_ms: int, held_ms: int) -> list[str]:
    idle = idle_ms / held_ms
    if held_ms < _EXACT_ENOUGH_MS:
        return []
    if idle >= _NEVER:
        return ["It never used them: ask for no GPU, or see whether the program finds them at all."]
    if idle >= MOSTLY:
        wait = "Most of the time the GPUs waited: ask for fewer, end idle sessions, or see what "
        return [wait + "they wait for (data loading, a step without GPUs)."]
    if idle >= SOMETIMES:
        return ["Prepare data before the GPUs are held, or in the background."]
    return []
