"""The settings of `[embodied]`."""

from __future__ import annotations

from dataclasses import dataclass

from wattledger.model.embodied import GPU_KG, HOST_GPUS, HOST_KG, LIFETIME_NS
from wattledger.setting import DurationNs, KgByModel, Kilograms, setting

_KNOWN = ", ".join(f"`{pattern}` {kg:g}" for pattern, kg in GPU_KG)


@dataclass(frozen=True, slots=True)
class EmbodiedSettings:
    """What making the hardware emitted, by the time that it is there, and for jobs held."""

    enabled: bool = setting(
        True, "Count it: always a figure of its own, never inside the CO2e of the energy."
    )
    gpu_kg: KgByModel | None = setting(
        None,
        "kgCO2e of a GPU: a number, or by model as a table of patterns. Where none fits: "
        f"{_KNOWN}; of other models nothing is known and nothing is counted.",
        '{ "*H100*" = 164, "*L40S*" = 120 }',
    )
    host_kg: Kilograms | None = setting(
        None,
        f"kgCO2e of the node without its GPUs. Not set: {HOST_KG / HOST_GPUS:g} for each GPU on "
        f"such a board (a server for eight is {HOST_KG:g}), else not counted. Jobs bear it by "
        "the GPUs they hold, where there are none by each CPU's energy.",
        "1500",
    )
    lifetime: DurationNs = setting(
        DurationNs(LIFETIME_NS), "Over which it is spread: 4 years of 365 days."
    )
