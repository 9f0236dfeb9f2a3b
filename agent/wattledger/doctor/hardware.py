"""Whose making is counted as embodied carbon, and of what nothing is known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from wattledger.config import Config
from wattledger.config.site_market import embodied
from wattledger.doctor.finding import Finding
from wattledger.meters.nvml.facts import GpuFacts
from wattledger.model import DeviceInfo, Kind
from wattledger.model.embodied import rates_of
from wattledger_exporters.http.api import embodied_rates


def of_status(status: Mapping[str, Any]) -> Iterator[Finding]:
    """By a running daemon."""
    rates = status.get("embodied")
    if rates is None:  # of a daemon that counts none
        return
    known = [
        f"{name} {grams:.3g} g/h ({source})"
        for name, grams, source in (
            ("GPUs", rates["gpus_g_per_h"], rates["gpus_source"]),
            ("host", rates["host_g_per_h"], rates["host_source"]),
        )
        if grams is not None
    ]
    if known:
        yield Finding("site", "ok", f"embodied carbon is counted: {', '.join(known)}")
    for model in rates["unknown_models"]:
        yield Finding(
            "site",
            "note",
            f"nobody told what making a {model or 'GPU without a name'} emitted: its embodied "
            "carbon is not counted",
            f'write its kgCO2e in the settings: [embodied] gpu_kg = {{ "{model or "*"}" = … }}',
        )


def of_config(config: Config, gpus: list[GpuFacts]) -> Iterator[Finding]:
    """By the settings and the GPUs that are here, while no daemon runs."""
    infos = (DeviceInfo(gpu.uuid, Kind.GPU, "nvml", model=gpu.model) for gpu in gpus)
    yield from of_status({"embodied": embodied_rates(rates_of(embodied(config), infos))})
