"""The cards a scenario may name, with constants measured or published elsewhere.

Sources:
- sensor periods and windows, support of the 1-s average: result workbook of Yang, Adamek and
  Armour, "Part-time Power Measurements", SC24 (arXiv 2312.02741, JimZeyuYang/GPU_Power_Benchmark);
  H200 and GH200 average assumed as H100; GH200 sees 20 % of the time (same authors);
- idle and load power: captures in utkuozdemir/nvidia_gpu_exporter
  (`internal/integration/testdata`) and NVIDIA/dcgm-exporter issues; where no load was captured,
  the power limit; the RTX 4090's idle is a 4080 SUPER's, GH200's figures are H100's with the
  module's limit (NVIDIA data sheet: 450 to 1000 W);
- counter ticks: 20 to 100 ms by model (alumet-dev/alumet `plugins/nvidia-nvml`), about 100 ms
  (ml-energy/zeus); Volta 20, the others 100 assumed;
- power limits: the captures; V100, RTX 4090: NVIDIA data sheets.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Model:
    """What one kind of card is and how its sensors behave.

    Attributes:
        name: as the driver gives it.
        architecture: NVML_DEVICE_ARCH_*.
        brand: NVML_BRAND_*.
        pci_device_id: device and vendor, as in `nvmlPciInfo_t`.
        memory_mib: of the board.
        idle_w: drawn when nothing runs.
        load_w: drawn under full load.
        min_limit_w: lowest power limit that can be set.
        max_limit_w: highest, and the default.
        tick_ms: the energy counter moves this often.
        power_tick_ms: the power sensor moves this often.
        window_ms: the instant power is the mean over this long.
        average: fields for the 1-s average answer.
        usage_averages: `nvmlDeviceGetPowerUsage` is the 1-s average, not the instant power.
        module: energy and power are those of the whole module and answer in its scope only.
        mig_slices: MIG instances at most; 0: no MIG.
        sm_count: multiprocessors.
    """

    name: str
    architecture: int
    brand: int
    pci_device_id: int
    memory_mib: int
    idle_w: int
    load_w: int
    min_limit_w: int
    max_limit_w: int
    tick_ms: int
    power_tick_ms: int
    window_ms: int
    average: bool
    usage_averages: bool
    module: bool = False
    mig_slices: int = 0
    sm_count: int = 0


_TESLA, _GEFORCE, _NVIDIA = 2, 5, 14  # NVML_BRAND_*
_VOLTA, _TURING, _AMPERE, _ADA, _HOPPER = 5, 6, 7, 8, 9  # NVML_DEVICE_ARCH_*

MODELS: dict[str, Model] = {
    "V100": Model(
        "Tesla V100-SXM2-32GB", _VOLTA, _TESLA, 0x1DB510DE, 32768, 44, 300, 150, 300,
        tick_ms=20, power_tick_ms=20, window_ms=10, average=False, usage_averages=False,
        sm_count=80,
    ),
    "T4": Model(
        "Tesla T4", _TURING, _NVIDIA, 0x1EB810DE, 15360, 12, 70, 60, 70,
        tick_ms=100, power_tick_ms=100, window_ms=100, average=False, usage_averages=False,
        sm_count=40,
    ),
    "A100": Model(
        "NVIDIA A100-SXM4-80GB", _AMPERE, _NVIDIA, 0x20B210DE, 81920, 56, 400, 100, 400,
        tick_ms=100, power_tick_ms=101, window_ms=25, average=False, usage_averages=False,
        mig_slices=7, sm_count=108,
    ),
    "H100 SXM": Model(
        "NVIDIA H100 80GB HBM3", _HOPPER, _NVIDIA, 0x233010DE, 81559, 70, 632, 200, 700,
        tick_ms=100, power_tick_ms=100, window_ms=25, average=True, usage_averages=True,
        mig_slices=7, sm_count=132,
    ),
    "H200": Model(
        "NVIDIA H200", _HOPPER, _NVIDIA, 0x233510DE, 143771, 78, 627, 200, 700,
        tick_ms=100, power_tick_ms=100, window_ms=25, average=True, usage_averages=True,
        mig_slices=7, sm_count=132,
    ),
    "GH200": Model(
        "NVIDIA GH200 480GB", _HOPPER, _NVIDIA, 0x234210DE, 97871, 70, 632, 450, 1000,
        tick_ms=100, power_tick_ms=100, window_ms=20, average=True, usage_averages=True,
        module=True, mig_slices=7, sm_count=132,
    ),
    "L40S": Model(
        "NVIDIA L40S", _ADA, _NVIDIA, 0x26B910DE, 46068, 26, 350, 100, 350,
        tick_ms=100, power_tick_ms=100, window_ms=100, average=True, usage_averages=True,
        sm_count=142,
    ),
    "RTX 4090": Model(
        "NVIDIA GeForce RTX 4090", _ADA, _GEFORCE, 0x268410DE, 24564, 26, 450, 150, 600,
        tick_ms=100, power_tick_ms=100, window_ms=100, average=True, usage_averages=True,
        sm_count=128,
    ),
}  # fmt: skip
