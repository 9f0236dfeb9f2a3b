"""Receipts: what one command cost, as plain data for programs and as text for people. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wattledger import units
from wattledger.model import Basis, Kind, Quality
from wattledger.model.jobbooks import Cell
from wattledger.model.jobs import KindBasis
from wattledger.model.pricing import Weights
from wattledger.model.receipts import GridPart, Receipt
from wattledger.model.uncertainty import Parts, Sureness, together
from wattledger.units import PPM
from wattledger_exporters.amounts import amounts, stress_weighted_l
from wattledger_exporters.bands import beside, terms_in_words, uncertainty
from wattledger_exporters.sums import SUM_NAMES, sum_rows, told_sums
from wattledger_exporters.when import iso
from wattledger_exporters.wording import (
    CO2E,
    ENERGY,
    WATER,
    co2e,
    duration,
    energy,
    number,
    parts,
    percent,
    printable,
    signed,
    simulated_note,
    unit_for,
    water,
)

_QUALITIES = {
    Quality.METERED: "by energy counters",
    Quality.INTEGRATED: "by power sensors",
    Quality.ESTIMATED: "estimated",
    Quality.RECOVERED: "recovered from counters",
}
_KINDS = {Kind.GPU: "GPU", Kind.CPU: "CPU", Kind.DRAM: "DRAM", Kind.OTHER: "other"}
_DEVICES_SHOWN = 8
_NAME_CHARS = 60


def receipt_json(
    receipt: Receipt,
    *,
    measured_by: str = "daemon",
    exit_code: int | None = None,
    complete: bool | None = None,
    water_stress_factor: float | None = None,
    simulated: str = "",
) -> dict[str, Any]:
    """A receipt as plain data, the same whichever way it was measured.

    Args:
        receipt: the receipt.
        measured_by: `daemon` or `direct`.
        exit_code: of the command; None: it runs, or there is none.
        complete: False: a part is missing; None: it is if the measuring began after the command.
        water_stress_factor: of `SiteFactors`.
        simulated: the scenario where the GPUs are, else empty.

    Returns:
        Human units, and under `exact` the integers as decimal strings. CO2e, the water of the
        grid and the cost are of facility energy: energy × PUE.
    """
    run, whole = receipt.run, Cell()
    cells: dict[KindBasis, Cell] = {}
    qualities: dict[Quality, int] = {}
    grids: dict[GridPart, Cell] = {}
    sure: list[Parts] = []
    for (kind, quality, grid), cell in receipt.cells.items():
        key = KindBasis(kind, grid.basis)
        cells[key] = cells.get(key, Cell()).plus(cell)
        qualities[quality] = qualities.get(quality, 0) + cell.amounts.energy_uj
        grids[grid] = grids.get(grid, Cell()).plus(cell)
        sure.append({Sureness(quality, grid.grade): cell.amounts})
        whole = whole.plus(cell)
    energy_uj, start_ns = whole.amounts.energy_uj, run.payee.start_ns
    end_ns = run.end_ns or max(run.last_seen_ns, start_ns)
    measured_ns = end_ns - max(start_ns, receipt.since_ns)
    if complete is None:
        complete = receipt.since_ns <= start_ns
    totals = amounts(cells)
    share = {quality: _share(uj, energy_uj) for quality, uj in sorted(qualities.items()) if uj}
    return {
        "name": run.labels.get("name", ""),
        "manager": run.payee.manager,
        "job_id": run.payee.job_id,
        "step_of": None if receipt.step_of is None else receipt.step_of._asdict(),
        "start": iso(start_ns),
        "end": iso(run.end_ns),
        "since": iso(receipt.since_ns),
        "duration_s": units.seconds(max(0, end_ns - start_ns)),
        "exit_code": exit_code,
        **{name: totals[name] for name in ("energy_kwh", "co2e_g", "water_l")},
        "water_stress_weighted_l": stress_weighted_l(
            whole.amounts.water_onsite_ul, water_stress_factor
        ),
        "uncertainty": uncertainty(
            whole.amounts, together(*sure), embodied_ug=receipt.sums.embodied_ug
        ),
        **told_sums(receipt.sums, energy_uj),
        "mean_watts": units.joules(energy_uj) / units.seconds(measured_ns)
        if measured_ns > 0
        else 0.0,
        "held_idle_kwh": totals["held_idle_kwh"],
        "held_device_hours": totals["held_device_hours"],
        "held_idle_device_hours": totals["held_idle_device_hours"],
        "quality": {quality.value: part for quality, part in share.items()},
        "estimated_share": share.get(Quality.ESTIMATED, 0.0),
        "grid": grid_parts(grids, receipt.weights),
        "devices": [
            {"device": held.device, "share": held.share_ppm / PPM, "exact": held.exact}
            for held in run.holdings
        ],
        "measured_by": measured_by,
        "simulated": simulated or None,
        "complete": complete,
        "exact": {
            **totals["exact"],
            "start_ns": str(start_ns),
            "end_ns": str(run.end_ns),
        },
    }


UNKNOWN = (
    "water_stress_weighted_l",
    *("energy_kwh", "co2e_g", "water_l", "mean_watts", "estimated_share", "uncertainty"),
    *SUM_NAMES,
    *("held_idle_kwh", "held_device_hours", "held_idle_device_hours"),
)
"""What is None in a receipt of which nothing is known."""


def unknown_receipt(
    receipt: Receipt, *, measured_by: str = "daemon", exit_code: int | None = None
) -> dict[str, Any]:
    """The receipt of a command that took place, but of which nothing was measured.

    As `receipt_json`, with None for every amount: unavailable is never 0.
    """
    told = receipt_json(receipt, measured_by=measured_by, exit_code=exit_code, complete=False)
    exact = {name: told["exact"][name] for name in ("start_ns", "end_ns")}
    return told | dict.fromkeys(UNKNOWN) | {"since": None, "exact": exact}


def _share(part_uj: int, whole_uj: int) -> float:
    return part_uj / whole_uj if whole_uj else 0.0


def grid_parts(grids: Mapping[GridPart, Cell], weights: Weights) -> list[dict[str, Any]]:
    """What priced each part of the energy, and how large it is: one row for each source.

    Its mean intensity and mean PUE are weighted by energy: of a single price they are that price's.
    The intensity is None where nothing was priced.
    """
    whole_uj = sum(cell.amounts.energy_uj for cell in grids.values())
    rows: dict[tuple[str, str, Basis, bool], list[GridPart]] = {}
    for grid in sorted(grids):
        rows.setdefault(grid[:4], []).append(grid)
    told = []
    for (zone, source, basis, estimated), those in rows.items():
        energies_uj = {grid: grids[grid].amounts.energy_uj for grid in those}
        energy_uj = sum(energies_uj.values())
        priced_uj = sum(uj for grid, uj in energies_uj.items() if grid in weights)
        weight = sum(weights.get(grid, 0) for grid in those)
        pue_uj = sum(uj * grid.pue_ppm for grid, uj in energies_uj.items())
        told.append(
            {
                "zone": zone,
                "source": source,
                "basis": basis.value,
                "estimated": estimated,
                "energy_share": _share(energy_uj, whole_uj),
                "mean_intensity_g_per_kwh": weight / (priced_uj * units.UG_PER_G)
                if priced_uj
                else None,
                "pue": pue_uj / (energy_uj * PPM) if energy_uj else those[0].pue_ppm / PPM,
            }
        )
    return told


# ── for people ──────────────────────────────────────────────────────────────────────────────────


def receipt_text(receipt: Mapping[str, Any], notes: Sequence[str] = ()) -> str:
    """A receipt for people: aligned lines, at most 14 without the notes.

    Args:
        receipt: of `receipt_json`.
        notes: sentences to end with.
    """
    indented = [f"  {note}" for note in notes]
    if receipt["energy_kwh"] is None:
        return "\n".join([_title(receipt), *indented])
    body = receipt_lines(receipt)
    if said := simulated_note(receipt.get("simulated")):  # an older daemon does not tell
        body.insert(0, f"  {said}")
    if not receipt["complete"]:
        body.append("  INCOMPLETE: a part of its time was not measured")
    return "\n".join([_title(receipt), *body, *indented])


def receipt_lines(receipt: Mapping[str, Any]) -> list[str]:
    """The figures as aligned lines.

    Args:
        receipt: of `receipt_json`, or anything else that has its amounts, `grid`, `quality`,
            `uncertainty`, `cost`, `mean_watts`, `devices` and `exact`; None is what is not known.
    """
    sure = receipt.get("uncertainty")
    rows = [*_energy(receipt), _co2e(receipt), _water(receipt)]
    settled = receipt.get("settled")
    if settled is not None:
        whole_kwh = receipt["energy_kwh"]["total"]
        how = _known_since(settled, whole_kwh, receipt["co2e_g_by_basis"])
        final_g = settled["co2e_g"]
        final = beside(co2e(final_g), sure, "co2e_settled_g", final_g, CO2E)
        rows.insert(-1, ("settled", final, how))
    rows += sum_rows(receipt)
    if receipt["held_device_hours"] or (
        receipt["held_device_hours"] is None and receipt["held_idle_kwh"]
    ):
        rows.append(_held(receipt))
    if receipt["quality"] is not None:
        rows.append(("measured", measured_how(receipt["quality"]), ""))
    if sure:
        rows.append(("how sure", f"{terms_in_words(sure)}: {sure['note']}", ""))
    width = max(len(value) for _, value, why in rows if why)
    body = [f"  {label:<9} {value:<{width}}  {why}".rstrip() for label, value, why in rows]
    held = [_short(printable(device["device"])) for device in receipt["devices"]]
    if held:
        more = f" and {len(held) - _DEVICES_SHOWN} more" if len(held) > _DEVICES_SHOWN else ""
        body.append(f"  {'devices':<9} {', '.join(held[:_DEVICES_SHOWN])}{more}")
    return body


def _co2e(receipt: Mapping[str, Any]) -> tuple[str, str, str]:
    grams = receipt["co2e_g"]
    if grams is None:
        return ("CO2e", "unknown", "")
    said = beside(co2e(grams), receipt.get("uncertainty"), "co2e_g", grams, CO2E)
    if receipt["grid"] is not None:
        return ("CO2e", said, priced_by(receipt["grid"]))
    by_basis = list(receipt["co2e_g_by_basis"].items())
    return ("CO2e", said, parts(by_basis, grams, CO2E) if len(by_basis) > 1 else by_basis[0][0])


def _water(receipt: Mapping[str, Any]) -> tuple[str, str, str]:
    liters = receipt["water_l"]
    if liters is None:
        return ("water", "unknown", "")
    whole_l = liters["total"]
    said = parts([("on site", liters["onsite"]), ("grid", liters["grid"])], whole_l, WATER)
    if (weighted_l := receipt.get("water_stress_weighted_l")) is not None:
        said += f"; {water(weighted_l)} world-eq on site"
    sure = receipt.get("uncertainty")
    return ("water", beside(water(whole_l), sure, "water_l", whole_l, WATER), said)


def _known_since(settled: Mapping[str, Any], whole_kwh: float, booked: Mapping[str, Any]) -> str:
    """What the settled figure is made of; what it counts, where that is not what was booked."""
    ways = [("energy_kwh", "by published prices"), ("restated_kwh", "restated")]
    shares = [(settled[name] / whole_kwh if whole_kwh else 0.0, how) for name, how in ways]
    said = ", ".join(f"{percent(share)} of it {how}" for share, how in shares if share)
    counts = settled["co2e_g_by_basis"]
    label = "" if set(counts) == set(booked) else f", {'+'.join(sorted(counts))}"
    return f"{said}: {signed(settled['co2e_difference_g'], CO2E)}{label}"


def _energy(receipt: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    kwh = receipt["energy_kwh"]
    said = beside(
        energy(kwh["total"]), receipt.get("uncertainty"), "energy_kwh", kwh["total"], ENERGY
    )
    kinds = parts([(n, kwh[kind]) for kind, n in _KINDS.items() if kwh[kind]], kwh["total"], ENERGY)
    mean_watts = receipt["mean_watts"]
    mean = "" if mean_watts is None else f"mean {number(mean_watts)} W"
    if unit_for(kwh["total"], ENERGY).name == "J":
        return [("energy", said, "; ".join(filter(None, (kinds, mean))))]
    joules = units.joules(int(receipt["exact"]["energy_uj"]))
    return [("energy", said, kinds), ("", f"{number(joules)} J", mean)]


def _short(device: str) -> str:
    """The first part of a UUID tells GPUs of one node apart."""
    return f"{device[:12]}…" if len(device) > 20 else device


def _title(receipt: Mapping[str, Any]) -> str:
    name = printable(receipt["name"])[:_NAME_CHARS] or "the command"
    code = receipt["exit_code"]
    ended = "" if code is None else f", exit code {code}"
    way = "measured without a daemon"
    if receipt["energy_kwh"] is None:
        way = "not measured"
    elif receipt["measured_by"] == "daemon":
        way = f"measured by the daemon as {receipt['manager']}/{receipt['job_id']}"
    if step_of := receipt["step_of"]:
        way += printable(f", a step of {step_of['manager']}/{step_of['job_id']}")
    took = "took" if receipt["end"] or code is not None else "has run for"
    return f"wattledger: {name} {took} {duration(receipt['duration_s'])}{ended}; {way}"


def priced_by(grids: Sequence[Mapping[str, Any]]) -> str:
    """The source, zone and basis of the intensity that priced most, and how many others did."""
    if not grids:
        return ""
    first = max(grids, key=lambda grid: float(grid["energy_share"]))
    intensity = first["mean_intensity_g_per_kwh"]
    said = "" if intensity is None else f"{number(intensity)} g/kWh, "
    estimate = ", an estimate" if first["estimated"] else ""
    more = f" and {len(grids) - 1} more" if len(grids) > 1 else ""
    source = printable(f"{first['source']} {first['zone']}")
    return f"{said}{source} ({first['basis']}{estimate}){more}, PUE {first['pue']:g}"


def _held(receipt: Mapping[str, Any]) -> tuple[str, str, str]:
    idle_h, held_h = receipt["held_idle_device_hours"], receipt["held_device_hours"]
    if held_h is None:
        how = "" if idle_h is None else f"{duration(idle_h * 3600)} of GPU time"
    else:
        share = "" if idle_h is None else f"{idle_h / held_h:.0%} of "
        how = f"{share}{duration(held_h * 3600)} GPU time"
    idle_kwh = receipt["held_idle_kwh"]
    return ("held idle", "unknown" if idle_kwh is None else energy(idle_kwh), how)


def measured_how(quality: Mapping[str, float]) -> str:
    """The shares of a receipt's `quality` in words."""
    said = [f"{percent(quality[q])} {text}" for q, text in _QUALITIES.items() if q in quality]
    return ", ".join(said) or "nothing: no energy was booked for it"
