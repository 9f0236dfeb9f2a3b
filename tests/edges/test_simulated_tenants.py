"""The simulated driver's processes, utilisation and MIG instances."""

from __future__ import annotations

import os

from fakes import FakeClock
from simulation import NVML, ONE, code_of, driver_of

BUSY = ONE + (
    'processes = [{ pid = "self", memory_mib = 10 }, { pid = 7, sm_util = 30 },'
    ' { pid = 8, type = "graphics", sm_util = 0 }, { pid = 9, at_s = 5, for_s = 10 }]\n'
)


def test_process_lists() -> None:
    clock = FakeClock()
    driver = driver_of(BUSY, clock)
    handle = driver.nvmlDeviceGetHandleByIndex(0)
    compute = driver.nvmlDeviceGetComputeRunningProcesses(handle)

    assert [(p.pid, p.usedGpuMemory) for p in compute] == [(os.getpid(), 10 << 20), (7, 1 << 30)]
    assert set(vars(compute[0])) == {name for name, _ in NVML.c_nvmlProcessInfo_t._fields_}
    assert compute[0].gpuInstanceId == 0xFFFFFFFF
    assert [p.pid for p in driver.nvmlDeviceGetGraphicsRunningProcesses(handle)] == [8]
    assert driver.nvmlDeviceGetMPSComputeRunningProcesses(handle) == []
    clock.advance(6)
    assert [p.pid for p in driver.nvmlDeviceGetComputeRunningProcesses_v2(handle)][2:] == [9]
    clock.advance(10)
    assert len(driver.nvmlDeviceGetComputeRunningProcesses_v3(handle)) == 2


def test_utilisation() -> None:
    clock = FakeClock()
    driver = driver_of(BUSY, clock)
    handle = driver.nvmlDeviceGetHandleByIndex(0)
    rates = driver.nvmlDeviceGetUtilizationRates(handle)
    rows = driver.nvmlDeviceGetProcessUtilization(handle, 0)

    assert isinstance(rates, NVML.c_nvmlUtilization_t) and 30 <= rates.gpu <= 60
    assert isinstance(rows[0], NVML.c_nvmlProcessUtilizationSample_t)
    assert [row.pid for row in rows] == [os.getpid(), 7]  # the one without use has no row
    assert [row.smUtil for row in rows] == [rates.gpu // 3, 30]
    seen = max(row.timeStamp for row in rows)
    assert code_of(driver.nvmlDeviceGetProcessUtilization, handle, seen) == 6
    clock.advance(0.2)
    assert driver.nvmlDeviceGetProcessUtilization(handle, seen)


def test_an_idle_card_is_at_zero_per_cent() -> None:
    driver = driver_of('[[gpu]]\nmodel = "A100"\nprocesses = [{ pid = 7 }]\n')
    handle = driver.nvmlDeviceGetHandleByIndex(0)

    assert driver.nvmlDeviceGetUtilizationRates(handle).gpu == 0
    assert code_of(driver.nvmlDeviceGetProcessUtilization, handle, 0) == 6


MIG = (
    '[[gpu]]\nmodel = "A100"\nmig = { instances = [{ profile = "3g.40gb", processes = '
    '[{ pid = 7 }] }, { profile = "1g.10gb", processes = [{ pid = 8 }] }] }\n'
)


def test_mig_instances_have_a_name_and_tenants_but_no_meter() -> None:
    driver = driver_of(MIG)
    parent = driver.nvmlDeviceGetHandleByIndex(0)
    child = driver.nvmlDeviceGetMigDeviceHandleByIndex(parent, 1)
    uuid = driver.nvmlDeviceGetUUID(child)
    attributes = driver.nvmlDeviceGetAttributes(child)

    assert driver.nvmlDeviceGetCount() == 1
    assert driver.nvmlDeviceGetMigMode(parent) == [1, 1]
    assert driver.nvmlDeviceGetMaxMigDeviceCount(parent) == 7
    assert uuid.startswith("MIG-") and len(uuid) == 40
    assert driver.nvmlDeviceGetName(child) == "NVIDIA A100-SXM4-80GB MIG 1g.10gb"
    assert [bool(driver.nvmlDeviceIsMigDeviceHandle(h)) for h in (parent, child)] == [False, True]
    assert driver.nvmlDeviceGetGpuInstanceId(child) == 2
    assert driver.nvmlDeviceGetComputeInstanceId(child) == 0
    assert (attributes.computeInstanceSliceCount, attributes.memorySizeMB) == (1, 10_240)
    again = driver.nvmlDeviceGetHandleByUUID(uuid)
    assert driver.nvmlDeviceGetUUID(again) == uuid
    above = driver.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(child)
    assert driver.nvmlDeviceGetUUID(above) == driver.nvmlDeviceGetUUID(parent)

    listed = driver.nvmlDeviceGetComputeRunningProcesses
    assert [(p.pid, p.gpuInstanceId) for p in listed(parent)] == [(7, 1), (8, 2)]
    assert [p.pid for p in listed(child)] == [8]

    unsupported = NVML.NVML_ERROR_NOT_SUPPORTED
    assert code_of(driver.nvmlDeviceGetTotalEnergyConsumption, child) == unsupported
    assert code_of(driver.nvmlDeviceGetPowerUsage, child) == unsupported
    assert driver.nvmlDeviceGetFieldValues(child, [83])[0].nvmlReturn == unsupported
    assert code_of(driver.nvmlDeviceGetUtilizationRates, parent) == unsupported
    assert code_of(driver.nvmlDeviceGetProcessUtilization, parent, 0) == unsupported
    assert code_of(driver.nvmlDeviceGetMigDeviceHandleByIndex, parent, 2) == 6
    assert code_of(driver.nvmlDeviceGetGpuInstanceId, parent) == unsupported
    assert driver.nvmlDeviceGetTotalEnergyConsumption(parent) > 0


def test_a_card_without_mig_says_so() -> None:
    driver = driver_of('[[gpu]]\nmodel = "V100"\n')
    handle = driver.nvmlDeviceGetHandleByIndex(0)

    assert code_of(driver.nvmlDeviceGetMigMode, handle) == NVML.NVML_ERROR_NOT_SUPPORTED
    assert driver.nvmlDeviceGetMaxMigDeviceCount(handle) == 0
