"""An ended run as the attributes of one record: its receipt, flat. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wattledger import units
from wattledger.model.exporting import EndedRun
from wattledger_exporters.amounts import amounts, amounts_of
from wattledger_exporters.sums import told_sums
from wattledger_exporters.when import iso

EVENT = "wattledger.run.ended"
Attribute = str | bool | float | Sequence[str]


def attributes(ended: EndedRun, labels: Sequence[str]) -> dict[str, Attribute]:
    """What is known of a run, as it was booked.

    The names are those of a run in the API (`/api/v1/jobs`), joined by dots below `wattledger.`.
    `log.record.uid` is the same each time that the record is sent: records of one uid are one, and
    the latest holds (https://opentelemetry.io/docs/specs/semconv/general/logs/).

    Args:
        ended: the run.
        labels: `jobs.labels`: what is told of it besides its id. Names of people and jobs only
            then, and the uid only with `user`.

    Returns:
        Human units as numbers; under `wattledger.exact`, integers as decimal strings.
    """
    run, book = ended.book.run, ended.book
    whole = amounts_of(book.cells)
    start_ns, end_ns = run.payee.start_ns, run.end_ns
    qualities = {quality.value: uj for quality, uj in sorted(ended.quality_uj.items()) if uj}
    sums = told_sums(book.sums, whole.energy_uj)
    told: dict[str, Any] = {
        "manager": run.payee.manager,
        "job_id": run.payee.job_id,
        "start": iso(start_ns),
        "end": iso(end_ns),
        "duration_s": units.seconds(max(0, end_ns - start_ns)),
        **amounts(book.cells),
        **{name: value for name, value in sums.items() if name not in ("cost", "costs")},
        "cost": {cost["currency"]: cost["amount"] for cost in sums["costs"]},
        "quality": {
            name: uj / total
            for total in (sum(qualities.values()),)
            for name, uj in qualities.items()
        },
        "devices": [held.device for held in run.holdings],
        "labels": {name: run.labels[name] for name in labels if run.labels.get(name)},
        "uid": str(run.uid) if "user" in labels and run.uid is not None else None,
    }
    told["exact"] |= {
        "start_ns": str(start_ns),
        "end_ns": str(end_ns),
        **{f"quality_uj_{name}": str(uj) for name, uj in qualities.items()},
    }
    found: dict[str, Attribute] = {"log.record.uid": ended.record_id}
    _flatten(told, "wattledger", found)
    return found


def sentence(ended: EndedRun) -> str:
    """The record's body, for people."""
    payee, whole = ended.book.run.payee, amounts_of(ended.book.cells)
    return _text(
        f"{payee.manager}/{payee.job_id} ended: {units.kwh(whole.energy_uj):.6g} kWh, "
        f"{units.grams(whole.co2e_ug):.6g} g CO2e"
    )


def _flatten(value: Any, path: str, found: dict[str, Attribute]) -> None:
    """Puts the leaves in; what is not known (None) is left out."""
    if isinstance(value, Mapping):
        for key, below in value.items():
            _flatten(below, f"{path}.{key}", found)
    elif isinstance(value, list | tuple):
        found[path] = [_text(str(item)) for item in value]
    elif isinstance(value, str):
        found[path] = _text(value)
    elif isinstance(value, bool | float):
        found[path] = value
    elif isinstance(value, int):
        found[path] = float(value)


def _text(text: str) -> str:
    """What a message can hold: valid UTF-8."""
    return text.encode("utf-8", "replace").decode()
