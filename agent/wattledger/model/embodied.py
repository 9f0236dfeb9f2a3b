"""What making the hardware emitted, spread over its life: embodied carbon.

M = TE × (time / lifetime) × share                  ISO/IEC 21031:2024 (SCI)

TE of GPUs, cradle to gate, kgCO2e each:
164    HGX H100, 1,312 for a baseboard of 8: NVIDIA, "Product Carbon Footprint Summary for
NVIDIA HGX H100"; the H200, on the same board, is taken for the same
127.6  A100 SXM 40 GB: Falk et al. 2025, arXiv 2509.00093
181    A100 PCIe: Hubblo for ADEME
TE of a host without its GPUs: 5,700 kgCO2e, a server for eight of them (EcoLogits, after
Boavizta's API); an eighth is taken for each GPU on such a board that the node sees, since a
smaller host is made of less and a virtual machine has a part of one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import NamedTuple

from wattledger.model.measuring import DeviceInfo, Kind
from wattledger.model.sums import FG_PER_UG
from wattledger.units import NS_PER_MS, grams

GPU_KG: tuple[tuple[str, float], ...] = (
    ("*[!G]H100*HBM3*", 164.0),
    ("*[!G]H200", 164.0),
    ("*A100-SXM*", 127.6),
    ("*A100*PCIE*", 181.0),
)
"""Patterns of models, compared in upper case, and kgCO2e each; the first that fits holds."""
HOST_KG = 5700.0
HOST_GPUS = 8
_MS_PER_H = 3_600_000
YEAR_NS = 365 * 86_400_000 * NS_PER_MS
LIFETIME_NS = 4 * YEAR_NS
_ON_BOARDS = tuple(pattern for pattern, _ in GPU_KG[:3])


@dataclass(frozen=True, slots=True)
class Embodied:
    """What is known of the hardware's making.

    Attributes:
        enabled: False: nothing is counted.
        gpus_ug: (pattern of models, µgCO2e each) of the settings; they come before `GPU_KG`.
        host_ug: of the host without its GPUs; None: its part of `HOST_KG` for
            each GPU that it fits.
        lifetime_ns: over which it is spread.
    """

    enabled: bool = True
    gpus_ug: tuple[tuple[str, int], ...] = ()
    host_ug: int | None = None
    lifetime_ns: int = LIFETIME_NS

    def gpu_fg_per_ms(self, model: str) -> tuple[int, str] | None:
        """What a GPU's time weighs, and who says so; None: nobody does."""
        for source, table in (("config", self.gpus_ug), ("default", _DEFAULT_UG)):
            for pattern, ug in table:
                if fnmatchcase(model.upper(), pattern.upper()):
                    return self._rate(ug), source
        return None

    def host_fg_per_ms(self, models: Iterable[str]) -> tuple[int, str] | None:
        """What the host's time weighs, and who says so; None: nobody does.

        Args:
            models: of its GPUs that are present.
        """
        if self.host_ug is not None:
            return self._rate(self.host_ug), "config"
        boards = sum(any(fnmatchcase(m.upper(), one) for one in _ON_BOARDS) for m in models)
        return (boards * self._rate(_HOST_UG), "default") if boards else None

    def _rate(self, ug: int) -> int:
        return ug * FG_PER_UG * NS_PER_MS // self.lifetime_ns


_DEFAULT_UG = tuple((pattern, round(kg * 1e9)) for pattern, kg in GPU_KG)
_HOST_UG = round(HOST_KG * 1e9 / HOST_GPUS)
NO_EMBODIED = Embodied(enabled=False)


class Rates(NamedTuple):
    """What the time of this node's hardware weighs, in 10⁻¹⁵ g per ms.

    Attributes:
        gpus: GPU that is present → its own; absent: not known.
        host: of the rest of the node; None: not known.
        held: device → what holding all of it weighs: of a GPU its own and its part of the host,
            as far as either is known; where there are no GPUs, of each CPU its part of the host.
        unknown: models of present GPUs of which nobody says anything.
        sources: who says so: `gpu`, `host` → `config`, `default` or both with a plus.
    """

    gpus: Mapping[str, int] = MappingProxyType({})
    host: int | None = None
    held: Mapping[str, int] = MappingProxyType({})
    unknown: tuple[str, ...] = ()
    sources: Mapping[str, str] = MappingProxyType({})


NO_RATES = Rates()


def grams_per_hour(fg_per_ms: int) -> float:
    """A rate for people."""
    return grams(fg_per_ms * _MS_PER_H) / FG_PER_UG


def rates_of(embodied: Embodied, devices: Iterable[DeviceInfo]) -> Rates:
    """What the time of devices weighs.

    The host is charged to its GPUs in equal parts: that is what its jobs share. Where there is no
    GPU, or none any more, to its CPUs.

    Args:
        embodied: what is known.
        devices: of this node, those that have left included.
    """
    if not embodied.enabled:
        return NO_RATES
    known = [info for info in devices if info.kind in (Kind.GPU, Kind.CPU)]
    cards = [info for info in known if info.kind is Kind.GPU]
    present = [info for info in cards if info.present]
    found = {info.name: embodied.gpu_fg_per_ms(info.model) for info in cards}
    host = embodied.host_fg_per_ms(info.model for info in present)
    part = host[0] // len(present) if host is not None and present else 0
    held = {name: part + (0 if one is None else one[0]) for name, one in found.items()}
    if not present and host is not None:
        cpus = [info for info in known if info.kind is Kind.CPU and info.present]
        held |= {info.name: host[0] // len(cpus) for info in cpus}
    said: dict[str, str] = {}
    if sources := sorted({one[1] for one in found.values() if one is not None}):
        said["gpu"] = "+".join(sources)
    if host is not None:
        said["host"] = host[1]
    return Rates(
        {info.name: one[0] for info in present if (one := found[info.name]) is not None},
        None if host is None else host[0],
        {name: fg for name, fg in held.items() if fg},
        tuple(sorted({info.model for info in present if found[info.name] is None})),
        said,
    )
