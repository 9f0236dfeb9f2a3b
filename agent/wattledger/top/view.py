"""What `wattledger top` shows, as plain data. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wattledger.model import Kind

View = Mapping[str, Any]
KINDS = tuple(kind.value for kind in Kind)


def view(status: View, jobs: View) -> dict[str, Any]:
    """What is shown, as plain data.

    Args:
        status: of `/api/v1/status`.
        jobs: of `/api/v1/jobs`, those that run.

    Returns:
        Power of the last commit's window by kind (kinds of which nothing is known are left out),
        the devices that are there, each with those of the jobs that hold it, and the jobs, those
        that draw most first.
    """
    present = sorted((d for d in status["devices"] if d["present"]), key=_place)
    power_w: dict[str, float] = {}
    for device in present:
        if device["power_w"] is not None:
            kind = device["kind"]
            power_w[kind] = power_w.get(kind, 0.0) + device["power_w"]
    runs = sorted(jobs["jobs"], key=lambda run: (-(run["power_w"] or 0.0), -_kwh(run), _name(run)))
    holders: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        for held in run["devices"]:
            part = {"job": _name(run), "share": held["share"], "exact": held["exact"]}
            holders.setdefault(held["device"], []).append(part)
    total_w = sum(power_w.values()) if power_w else None
    grid, pue = status["grid"], status["site"]["pue"]["value"]
    shown = ("device", "kind", "index", "model", "quality", "power_w")
    return {
        "books_complete_until": status["books_complete_until"],
        "simulated": status["simulated"],
        "released_until": status["released_until"],
        "power_w": {**power_w, "total": total_w},
        "co2e_g_per_h": None
        if total_w is None
        else total_w / 1000 * pue * grid["intensity_g_per_kwh"],
        "grid": {name: grid[name] for name in ("intensity_g_per_kwh", "zone", "source", "basis")},
        "pue": pue,
        "devices": [
            {**{name: d[name] for name in shown}, "held_by": holders.get(d["device"], [])}
            for d in present
        ],
        "jobs": [_job(run) for run in runs],
        "more_jobs": jobs["next_cursor"] is not None,
        "restricted_to_uid": jobs["restricted_to_uid"],
    }


def _place(device: View) -> tuple[int, int, str]:
    index = device["index"] or ""
    number = int(index) if index.isascii() and index.isdigit() else 0
    return KINDS.index(device["kind"]), number, device["device"]


def _name(run: View) -> str:
    return f"{run['manager']}/{run['job_id']}"


def _kwh(run: View) -> float:
    return float(run["totals"]["energy_kwh"]["total"])


def _job(run: View) -> dict[str, Any]:
    labels, totals = run["labels"], run["totals"]
    held_h = totals["held_device_hours"]
    return {
        "manager": run["manager"],
        "job_id": run["job_id"],
        "user": labels.get("user") or ("" if run["uid"] is None else f"uid {run['uid']}"),
        "name": labels.get("name") or labels.get("unit") or labels.get("pod") or "",
        "duration_s": run["duration_s"],
        "power_w": run["power_w"],
        "energy_kwh": _kwh(run),
        "co2e_g": totals["co2e_g"],
        "held_idle_kwh": totals["held_idle_kwh"],
        "held_idle_share": totals["held_idle_device_hours"] / held_h if held_h else None,
        "devices": [held["device"] for held in run["devices"]],
    }
