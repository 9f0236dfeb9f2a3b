"""The simulated driver has pynvml's surface, shapes and manners."""

from __future__ import annotations

import ctypes
import inspect
import threading
from itertools import pairwise

import pytest

from fakes import START_WALL_NS, FakeClock
from simulation import NVML, ONE, code_of, driver_of
from wattledger.meters.simulated import SimulatedNvml, parse_scenario

# ── surface ─────────────────────────────────────────────────────────────────────────────────────


def test_each_function_is_pynvmls_with_as_many_arguments() -> None:
    names = [name for name in dir(SimulatedNvml) if name.startswith("nvml")]

    assert len(names) > 40
    for name in names:
        real = len(inspect.signature(getattr(NVML, name)).parameters)
        ours = len(inspect.signature(getattr(SimulatedNvml, name)).parameters) - 1
        assert ours == real, name


def test_constants_and_errors_are_pynvmls_and_nothing_else_is() -> None:
    driver = driver_of()

    assert driver.NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION == 83
    assert driver.NVMLError_NotSupported is NVML.NVMLError_NotSupported
    assert driver.NVMLError is NVML.NVMLError
    for name in ("nvmlDeviceSetPersistenceMode", "nvmlLib", "ctypes", "NVML_NO_SUCH_CONSTANT"):
        with pytest.raises(AttributeError):
            getattr(driver, name)
    for name in dir(NVML):
        if name.startswith("NVML") and callable(getattr(NVML, name)):
            assert issubclass(getattr(NVML, name), Exception), name


def test_the_packed_layouts_are_those_of_the_structs() -> None:
    field, sample = NVML.c_nvmlFieldValue_t, NVML.c_nvmlSample_t

    assert ctypes.sizeof(field) == 40 and ctypes.sizeof(sample) == 16
    assert [getattr(field, name).offset for name, _ in field._fields_] == [0, 4, 8, 16, 24, 28, 32]
    assert sample.sampleValue.offset == 8


def test_what_a_device_is() -> None:
    driver = driver_of(ONE.replace("[[gpu]]", "[[gpu]]\ncount = 2\nminor = 4\npersistence = false"))
    handle = driver.nvmlDeviceGetHandleByIndex(1)
    pci = driver.nvmlDeviceGetPciInfo(handle)

    assert driver.nvmlSystemGetDriverVersion() == "570.133.20"
    assert driver.nvmlSystemGetNVMLVersion() == "12.570.133.20"
    assert driver.nvmlSystemGetCudaDriverVersion() == 12_080
    assert driver.nvmlDeviceGetCount() == 2
    assert driver.nvmlDeviceGetName(handle) == "NVIDIA H100 80GB HBM3"
    assert driver.nvmlDeviceGetIndex(handle) == 1
    assert driver.nvmlDeviceGetMinorNumber(handle) == 5
    assert driver.nvmlDeviceGetPersistenceMode(handle) == 0
    assert driver.nvmlDeviceGetArchitecture(handle) == NVML.NVML_DEVICE_ARCH_HOPPER
    assert driver.nvmlDeviceGetBrand(handle) == NVML.NVML_BRAND_NVIDIA
    assert driver.nvmlDeviceGetEnforcedPowerLimit(handle) == 700_000
    assert driver.nvmlDeviceGetPowerManagementLimit(handle) == 700_000
    assert driver.nvmlDeviceGetPowerManagementDefaultLimit(handle) == 700_000
    assert driver.nvmlDeviceGetPowerManagementLimitConstraints(handle) == [200_000, 700_000]
    assert isinstance(pci, NVML.nvmlPciInfo_t)
    assert (pci.busId, pci.busIdLegacy, pci.bus) == ("00000000:04:00.0", "0000:04:00.0", 4)
    assert len(driver.nvmlDeviceGetSerial(handle)) == 13


def test_a_card_is_found_by_uuid_and_by_pci_address() -> None:
    driver = driver_of(ONE.replace("[[gpu]]", "[[gpu]]\ncount = 3"))
    uuids = [driver.nvmlDeviceGetUUID(driver.nvmlDeviceGetHandleByIndex(i)) for i in range(3)]

    assert len(set(uuids)) == 3
    for index, uuid in enumerate(uuids):
        for handle in (
            driver.nvmlDeviceGetHandleByUUID(uuid),
            driver.nvmlDeviceGetHandleByUUID(uuid.encode()),
            driver.nvmlDeviceGetHandleByPciBusId(f"0000:0{1 + 3 * index}:00.0"),
            driver.nvmlDeviceGetHandleByPciBusId(f"00000000:0{1 + 3 * index}:00.0"),
        ):
            assert driver.nvmlDeviceGetIndex(handle) == index
    assert code_of(driver.nvmlDeviceGetHandleByUUID, "GPU-0") == NVML.NVML_ERROR_NOT_FOUND
    assert code_of(driver.nvmlDeviceGetHandleByPciBusId, "0:0") == NVML.NVML_ERROR_NOT_FOUND
    assert code_of(driver.nvmlDeviceGetHandleByIndex, 3) == NVML.NVML_ERROR_INVALID_ARGUMENT
    assert code_of(driver.nvmlDeviceGetHandleByIndex, -1) == NVML.NVML_ERROR_INVALID_ARGUMENT


# ── lifetime ────────────────────────────────────────────────────────────────────────────────────


def test_initialisation_is_counted_and_handles_end_with_it() -> None:
    driver = SimulatedNvml(parse_scenario(ONE, "test.toml"), FakeClock())
    assert code_of(driver.nvmlDeviceGetCount) == NVML.NVML_ERROR_UNINITIALIZED
    assert code_of(driver.nvmlShutdown) == NVML.NVML_ERROR_UNINITIALIZED

    driver.nvmlInit()
    driver.nvmlInitWithFlags(NVML.NVML_INIT_FLAG_NO_ATTACH)
    handle = driver.nvmlDeviceGetHandleByIndex(0)
    driver.nvmlShutdown()
    assert code_of(driver.nvmlDeviceGetUUID, handle) == 0
    driver.nvmlShutdown()
    assert code_of(driver.nvmlDeviceGetUUID, handle) == NVML.NVML_ERROR_UNINITIALIZED
    assert driver.initialisations == 0

    driver.nvmlInit()
    assert code_of(driver.nvmlDeviceGetUUID, handle) == NVML.NVML_ERROR_INVALID_ARGUMENT
    assert code_of(driver.nvmlDeviceGetUUID, object()) == NVML.NVML_ERROR_INVALID_ARGUMENT


def test_error_strings() -> None:
    driver = driver_of()

    assert driver.nvmlErrorString(0) == "Success"
    assert driver.nvmlErrorString(15) == "GPU is lost"


def test_threads_share_one_driver() -> None:
    driver = SimulatedNvml(parse_scenario(ONE, "test.toml"), FakeClock())
    gate, failures = threading.Barrier(8), []

    def work() -> None:
        gate.wait()
        try:
            for _ in range(200):
                driver.nvmlInit()
                driver.nvmlDeviceGetCount()
                driver.nvmlShutdown()
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    assert driver.initialisations == 0


# ── field values ────────────────────────────────────────────────────────────────────────────────


def test_field_values_have_pynvmls_shape() -> None:
    clock = FakeClock()
    driver = driver_of(clock=clock)
    handle = driver.nvmlDeviceGetHandleByIndex(0)
    energy, average, instant, also, limit = driver.nvmlDeviceGetFieldValues(
        handle, [83, (185, 0), 186, (191, 0), 190]
    )

    assert isinstance(energy, NVML.c_nvmlFieldValue_t)
    assert [f.fieldId for f in (energy, average, instant, also)] == [83, 185, 186, 191]
    assert {f.nvmlReturn for f in (energy, average, instant, also, limit)} == {0}
    assert energy.valueType == NVML.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG
    assert energy.value.ullVal == also.value.ullVal
    assert energy.value.ullVal == driver.nvmlDeviceGetTotalEnergyConsumption(handle)
    assert average.valueType == NVML.NVML_VALUE_TYPE_UNSIGNED_INT
    assert average.value.uiVal == driver.nvmlDeviceGetPowerUsage(handle)
    assert limit.value.uiVal == 700_000
    for field in (energy, average, instant):
        assert 0 <= START_WALL_NS // 1000 - field.timestamp <= 100_000  # µs, of the last tick


def test_a_fields_own_error_comes_with_the_field() -> None:
    driver = driver_of('[[gpu]]\nmodel = "A100"\nsensor = { counter = false }\n')
    handle = driver.nvmlDeviceGetHandleByIndex(0)
    fields = driver.nvmlDeviceGetFieldValues(handle, [83, 185, 186, (186, 1), (186, 2), 4711])

    unsupported = NVML.NVML_ERROR_NOT_SUPPORTED
    assert [f.nvmlReturn for f in fields] == [unsupported, unsupported, 0] + [unsupported] * 3
    assert code_of(driver.nvmlDeviceGetTotalEnergyConsumption, handle) == unsupported
    assert driver.nvmlDeviceGetPowerUsage(handle) == fields[2].value.uiVal


def test_a_superchip_answers_in_module_scope() -> None:
    driver = driver_of('[[gpu]]\nmodel = "GH200"\n')
    handle = driver.nvmlDeviceGetHandleByIndex(0)
    fields = driver.nvmlDeviceGetFieldValues(handle, [83, (186, 0), (186, 1), (191, 1)])

    assert [bool(f.nvmlReturn) for f in fields] == [False, True, False, False]
    assert code_of(driver.nvmlDeviceGetSamples, handle, 0, 0) == NVML.NVML_ERROR_NOT_SUPPORTED
    assert driver.nvmlDeviceGetSamples(handle, 7, 0)[1]


def test_average_and_instant_differ_as_their_windows_do() -> None:
    """A 300-ms square: the 25-ms window sees one level, the second's mean both."""
    clock = FakeClock()
    driver = driver_of(ONE + "sensor = { noise_w = 0 }\n", clock)
    handle = driver.nvmlDeviceGetHandleByIndex(0)
    instants, averages = set(), set()
    for _ in range(30):
        clock.advance(0.1)
        average, instant = driver.nvmlDeviceGetFieldValues(handle, [185, 186])
        instants.add(instant.value.uiVal)
        averages.add(average.value.uiVal)

    assert {60_000, 600_000} <= instants
    assert min(averages) >= 276_000 and max(averages) <= 384_000  # 330 W ± 54 W


def test_noise_is_small_centred_and_reproducible() -> None:
    text = '[[gpu]]\nmodel = "H100 SXM"\nwaveform = { kind = "constant", watts = 300 }\n'
    runs = []
    for _ in range(2):
        clock = FakeClock()
        driver = driver_of(text + "sensor = { noise_w = 2 }\n", clock)
        handle = driver.nvmlDeviceGetHandleByIndex(0)
        readings = []
        for _ in range(400):
            clock.advance(0.1)
            readings.append(driver.nvmlDeviceGetFieldValues(handle, [186])[0].value.uiVal)
        runs.append(readings)

    assert runs[0] == runs[1]
    mean = sum(runs[0]) / 400
    spread = (sum((r - mean) ** 2 for r in runs[0]) / 400) ** 0.5
    assert abs(mean - 300_000) < 400 and 1_600 < spread < 2_400


def test_power_rises_with_its_time_constant() -> None:
    clock = FakeClock()
    text = (
        '[[gpu]]\nmodel = "RTX 4090"\nwaveform = { kind = "square", low_w = 50, high_w = 450, '
        "period_s = 10 }\n"
        "sensor = { rise_ms = 250, window_ms = 1, power_tick_ms = 1, noise_w = 0 }\n"
    )
    driver = driver_of(text, clock)  # FakeClock begins at the start of a cycle
    handle = driver.nvmlDeviceGetHandleByIndex(0)
    clock.advance(0.25)
    power_mw = driver.nvmlDeviceGetFieldValues(handle, [186])[0].value.uiVal

    assert power_mw == pytest.approx(50_000 + 400_000 * (1 - 0.3679), abs=1_500)


def test_timestamps_of_the_call_where_asked() -> None:
    driver = driver_of(ONE + 'sensor = { timestamps = "call" }\n')
    fields = driver.nvmlDeviceGetFieldValues(driver.nvmlDeviceGetHandleByIndex(0), [83, 186])

    assert {f.timestamp for f in fields} == {START_WALL_NS // 1000}


def test_a_trembling_or_stepped_wall_clock_moves_no_past_tick() -> None:
    clock = FakeClock()
    driver = driver_of(ONE + "sensor = { tick_ms = 10000 }\n", clock)
    handle = driver.nvmlDeviceGetHandleByIndex(0)
    clock.advance(0.001)
    stamps = {driver.nvmlDeviceGetFieldValues(handle, [83])[0].timestamp}
    for jump_s in (0.0002, -0.0003, 3600.0, -7200.0):
        clock.step_wall(jump_s)
        stamps.add(driver.nvmlDeviceGetFieldValues(handle, [83])[0].timestamp)

    assert len(stamps) == 1
    clock.advance(10)
    assert driver.nvmlDeviceGetFieldValues(handle, [83])[0].timestamp < min(stamps)  # an hour back


def test_ticks_keep_their_distance_while_the_clock_trembles() -> None:
    """Microseconds of jitter between two clock reads do not reach the stamps."""
    clock = FakeClock()
    driver = driver_of(clock=clock)
    handle = driver.nvmlDeviceGetHandleByIndex(0)
    stamps = []
    for jitter_s in (0.0, 3e-6, -5e-6, 2e-6, 4e-6):
        clock.advance(0.1)
        clock.step_wall(jitter_s)
        stamps.append(driver.nvmlDeviceGetFieldValues(handle, [83])[0].timestamp)

    assert {b - a for a, b in pairwise(stamps)} == {100_000}


# ── samples ─────────────────────────────────────────────────────────────────────────────────────


def test_the_sample_buffer() -> None:
    clock = FakeClock()
    driver = driver_of(clock=clock)
    handle = driver.nvmlDeviceGetHandleByIndex(0)
    kind, samples = driver.nvmlDeviceGetSamples(handle, NVML.NVML_TOTAL_POWER_SAMPLES, 0)
    stamps = [sample.timeStamp for sample in samples]

    assert kind == NVML.NVML_VALUE_TYPE_UNSIGNED_INT
    assert isinstance(samples[0], NVML.c_nvmlSample_t)
    assert len(samples) == 120
    assert {b - a for a, b in pairwise(stamps)} == {20_000}
    assert 0 <= START_WALL_NS // 1000 - stamps[-1] <= 20_000

    last = stamps[-1]
    again = code_of(driver.nvmlDeviceGetSamples, handle, 0, last)
    assert again == NVML.NVML_ERROR_NOT_FOUND
    clock.advance(1)
    fresh = driver.nvmlDeviceGetSamples(handle, 0, last)[1]
    assert [s.timeStamp for s in fresh] == [last + 20_000 * n for n in range(1, 51)]


def test_the_samples_add_up_to_the_energy() -> None:
    """Each is the mean of its 20 ms: a square wave is integrated without error."""
    clock = FakeClock()
    driver = driver_of(ONE + "sensor = { noise_w = 0 }\n", clock)
    handle = driver.nvmlDeviceGetHandleByIndex(0)
    last = driver.nvmlDeviceGetSamples(handle, 0, 0)[1][-1].timeStamp
    energy_mj = 0.0
    for _ in range(30):
        clock.advance(1)
        for sample in driver.nvmlDeviceGetSamples(handle, 0, last)[1]:
            energy_mj += sample.sampleValue.uiVal * 0.02
            last = sample.timeStamp

    assert energy_mj == pytest.approx(30 * 330_000, rel=1e-5)
