"""Each fault does what it says, for as long as it says, to whom it says."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from fakes import FakeClock
from wattledger.meters.nvml.binding import real_driver
from wattledger.meters.simulated import SimulatedNvml, parse_scenario

NVML = real_driver()
THREE = (
    '[[gpu]]\nmodel = "H100 SXM"\ncount = 3\nprocesses = [{ pid = 7 }]\n'
    'waveform = { kind = "constant", watts = 300 }\nsensor = { tick_ms = 20 }\n'
)


class Rig:
    """A driver with faults and a clock in hand."""

    def __init__(self, fault: str, clock: FakeClock | None = None) -> None:
        self.clock = clock or FakeClock()
        self.slept: list[float] = []
        text = f"{THREE}\n[[fault]]\n{fault}\n"
        self.driver = SimulatedNvml(parse_scenario(text, "t.toml"), self.clock, self._sleep)

    def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.clock.advance(seconds)

    def init(self) -> list[Any]:
        self.driver.nvmlInit()
        return [self.driver.nvmlDeviceGetHandleByIndex(i) for i in range(3)]

    def energy_mj(self, handle: Any) -> int:
        return self.driver.nvmlDeviceGetTotalEnergyConsumption(handle)


def code_of(call: Any, *arguments: Any) -> int:
    try:
        call(*arguments)
    except NVML.NVMLError as error:
        return int(error.value)
    return 0


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("library_missing", NVML.NVML_ERROR_LIBRARY_NOT_FOUND),
        ("driver_mismatch", NVML.NVML_ERROR_LIB_RM_VERSION_MISMATCH),
        ("unknown_error", NVML.NVML_ERROR_UNKNOWN),
    ],
)
def test_faults_of_the_initialisation_pass(kind: str, code: int) -> None:
    rig = Rig(f'kind = "{kind}"\nfor_s = 30')

    assert code_of(rig.driver.nvmlInit) == code
    assert rig.driver.initialisations == 0
    rig.clock.advance(30)
    assert rig.init()


@pytest.mark.parametrize("kind", ["library_missing", "driver_mismatch"])
def test_they_leave_alone_who_is_initialised(kind: str) -> None:
    rig = Rig(f'kind = "{kind}"\nat_s = 1')
    handles = rig.init()
    rig.clock.advance(5)

    assert rig.energy_mj(handles[0]) > 0
    assert code_of(rig.driver.nvmlInit) != 0


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("unknown_error", NVML.NVML_ERROR_UNKNOWN),
        ("no_permission", NVML.NVML_ERROR_NO_PERMISSION),
        ("reset_required", NVML.NVML_ERROR_RESET_REQUIRED),
        ("lost", NVML.NVML_ERROR_GPU_IS_LOST),
    ],
)
def test_faults_of_one_card_leave_the_others_alone(kind: str, code: int) -> None:
    rig = Rig(f'kind = "{kind}"\ngpu = 1\nat_s = 10\nfor_s = 5')
    handles = rig.init()
    uuid = rig.driver.nvmlDeviceGetUUID(handles[1])
    rig.clock.advance(12)

    assert code_of(rig.energy_mj, handles[1]) == code
    assert code_of(rig.driver.nvmlDeviceGetFieldValues, handles[1], [83]) == code
    assert code_of(rig.driver.nvmlDeviceGetHandleByUUID, uuid) == code
    assert code_of(rig.driver.nvmlDeviceGetHandleByIndex, 1) == code
    assert rig.driver.nvmlDeviceGetCount() == 3
    assert rig.energy_mj(handles[0]) == pytest.approx(300_000 * 1012, rel=1e-4)
    rig.clock.advance(3)
    assert code_of(rig.energy_mj, handles[1]) == (code if kind == "lost" else 0)
    assert rig.energy_mj(rig.driver.nvmlDeviceGetHandleByUUID(uuid)) > 0


def test_a_lost_card_needs_a_new_handle_and_went_on_counting() -> None:
    rig = Rig('kind = "lost"\ngpu = 0\nat_s = 10\nfor_s = 5')
    old = rig.init()[0]
    before = rig.energy_mj(old)
    rig.clock.advance(20)

    assert code_of(rig.energy_mj, old) == NVML.NVML_ERROR_GPU_IS_LOST
    new = rig.driver.nvmlDeviceGetHandleByIndex(0)
    assert rig.energy_mj(new) - before == pytest.approx(6_000_000, abs=6_001)


def test_a_removed_card_closes_the_ranks_and_may_appear_later() -> None:
    rig = Rig('kind = "removed"\ngpu = 1\nfor_s = 10')
    rig.driver.nvmlInit()
    gpus = rig.driver.scenario.gpus

    assert rig.driver.nvmlDeviceGetCount() == 2
    second = rig.driver.nvmlDeviceGetHandleByIndex(1)
    assert rig.driver.nvmlDeviceGetUUID(second) == gpus[2].uuid
    assert code_of(rig.driver.nvmlDeviceGetHandleByUUID, gpus[1].uuid) == NVML.NVML_ERROR_NOT_FOUND
    rig.clock.advance(10)
    assert rig.driver.nvmlDeviceGetCount() == 3
    assert rig.driver.nvmlDeviceGetIndex(second) == 2
    assert rig.driver.nvmlDeviceGetHandleByUUID(gpus[1].uuid)


def test_other_indices_same_cards() -> None:
    rig = Rig('kind = "reorder"\nat_s = 5\nindices = [2, 0, 1]')
    handles = rig.init()
    uuids = [rig.driver.nvmlDeviceGetUUID(h) for h in handles]
    rig.clock.advance(5)

    again = [rig.driver.nvmlDeviceGetHandleByIndex(i) for i in range(3)]
    assert [rig.driver.nvmlDeviceGetUUID(h) for h in again] == [uuids[2], uuids[0], uuids[1]]
    assert [rig.driver.nvmlDeviceGetUUID(h) for h in handles] == uuids
    assert [rig.driver.nvmlDeviceGetIndex(h) for h in handles] == [1, 2, 0]


def test_a_reset_counter_begins_at_zero() -> None:
    rig = Rig('kind = "reset_counter"\ngpu = 2\nat_s = 10.005')
    handles = rig.init()
    rig.clock.advance(10.005)

    assert rig.energy_mj(handles[2]) == 0
    rig.clock.advance(10)
    assert 0 <= 3_000_000 - rig.energy_mj(handles[2]) <= 6_000  # a tick of 20 ms at 300 W
    assert rig.energy_mj(handles[1]) > 300_000_000
    assert rig.driver.true_energy_uj(2) == rig.driver.true_energy_uj(1)


@pytest.mark.parametrize(("catch_up", "moved_mj"), [("true", 9_000_000), ("false", 6_000_000)])
def test_a_frozen_counter(catch_up: str, moved_mj: int) -> None:
    rig = Rig(f'kind = "frozen_counter"\ngpu = 0\nat_s = 10\nfor_s = 10\ncatch_up = {catch_up}')
    handle = rig.init()[0]
    start = rig.energy_mj(handle)
    shown = set()
    rig.clock.advance(10)
    for _ in range(10):
        shown.add(rig.energy_mj(handle) - start)
        rig.clock.advance(1)
    rig.clock.advance(10)

    assert shown == {3_000_000}
    assert rig.energy_mj(handle) - start == moved_mj  # whole ticks of 20 ms


def test_no_energy_counter_for_a_while() -> None:
    rig = Rig('kind = "no_energy"\ngpu = 0\nat_s = 1\nfor_s = 1')
    handle = rig.init()[0]
    rig.clock.advance(1.5)

    assert code_of(rig.energy_mj, handle) == NVML.NVML_ERROR_NOT_SUPPORTED
    energy, power = rig.driver.nvmlDeviceGetFieldValues(handle, [83, 186])
    assert (energy.nvmlReturn, power.nvmlReturn) == (NVML.NVML_ERROR_NOT_SUPPORTED, 0)
    rig.clock.advance(1)
    assert rig.energy_mj(handle) > 0


def test_a_hanging_call_blocks_to_the_end_and_then_answers() -> None:
    rig = Rig('kind = "hang"\ngpu = 1\nat_s = 10\nfor_s = 30')
    handles = rig.init()
    rig.clock.advance(15)

    assert rig.energy_mj(handles[0]) and rig.slept == []
    assert rig.energy_mj(handles[1]) == pytest.approx(300_000 * 1040, rel=1e-4)
    assert rig.slept == [25.0]
    assert rig.energy_mj(handles[1]) and rig.slept == [25.0]


def test_a_hanging_driver_blocks_the_initialisation_too() -> None:
    rig = Rig('kind = "hang"\nfor_s = 3')
    rig.driver.nvmlInit()

    assert rig.slept == [3.0]


def test_missed_samples_leave_a_gap() -> None:
    rig = Rig('kind = "missed_samples"\ngpu = 0\nat_s = 1\nfor_s = 0.5')
    handles = rig.init()
    rig.clock.advance(2)
    stamps = [s.timeStamp for s in rig.driver.nvmlDeviceGetSamples(handles[0], 0, 0)[1]]
    whole = rig.driver.nvmlDeviceGetSamples(handles[1], 0, 0)[1]

    steps = {b - a for a, b in pairwise(stamps)}
    assert len(whole) == 120 and len(stamps) == 95
    assert steps == {20_000, 520_000}


def test_mig_switched_on_in_flight() -> None:
    rig = Rig('kind = "mig_on"\ngpu = 0\nat_s = 5')
    handle = rig.init()[0]
    assert rig.driver.nvmlDeviceGetMigMode(handle) == [0, 0]
    rig.clock.advance(5)

    assert rig.driver.nvmlDeviceGetMigMode(handle) == [1, 1]
    assert code_of(rig.driver.nvmlDeviceGetUtilizationRates, handle) == 3
    assert rig.energy_mj(handle) > 0


def test_a_dead_process_is_listed() -> None:
    rig = Rig('kind = "zombie_pid"\ngpu = 0')
    handles = rig.init()

    listed = [[p.pid for p in rig.driver.nvmlDeviceGetComputeRunningProcesses(h)] for h in handles]
    assert listed == [[7, 1 << 22], [7], [7]]


def test_illegal_and_stale_utilisation() -> None:
    over = Rig('kind = "util_over_100"\ngpu = 0\nvalue = 4294967295')
    handle = over.init()[0]
    assert over.driver.nvmlDeviceGetUtilizationRates(handle).gpu == 0xFFFFFFFF
    assert over.driver.nvmlDeviceGetProcessUtilization(handle, 0)[0].smUtil == 0xFFFFFFFF

    stale = Rig('kind = "stale_util"\ngpu = 0\nage_s = 9')
    handle = stale.init()[0]
    now_us = stale.clock.wall_ns // 1000
    for last_seen_us in (0, now_us):
        row = stale.driver.nvmlDeviceGetProcessUtilization(handle, last_seen_us)[0]
        assert 9_000_000 <= now_us - row.timeStamp <= 9_200_000


def test_a_driver_load_ends_what_was_before() -> None:
    rig = Rig('kind = "driver_reload"\nat_s = 10\nfor_s = 5\ndriver_version = "575.57.08"')
    handle = rig.init()[0]
    rig.clock.advance(12)

    assert code_of(rig.energy_mj, handle) == NVML.NVML_ERROR_UNKNOWN
    rig.driver.nvmlShutdown()
    assert code_of(rig.driver.nvmlInit) == NVML.NVML_ERROR_DRIVER_NOT_LOADED
    rig.clock.advance(13)
    new = rig.init()[0]
    assert rig.driver.nvmlSystemGetDriverVersion() == "575.57.08"
    assert rig.energy_mj(new) == pytest.approx(3_000_000, abs=6_001)  # ten seconds since the load


def test_after_a_load_the_old_initialisation_stays_dead() -> None:
    rig = Rig('kind = "driver_reload"\nat_s = 10')
    handle = rig.init()[0]
    rig.clock.advance(60)

    assert code_of(rig.energy_mj, handle) == NVML.NVML_ERROR_UNKNOWN
    assert code_of(rig.driver.nvmlDeviceGetCount) == NVML.NVML_ERROR_UNKNOWN
    rig.driver.nvmlShutdown()
    assert rig.init()


def test_faults_count_from_the_process_or_from_boot() -> None:
    """FakeClock's machine has been up for 1000 s."""
    fault = 'kind = "reset_counter"\ngpu = 0\nat_s = {}\nsince = "{}"'
    of_boot, of_process = Rig(fault.format(990, "boot")), Rig(fault.format(990, "start"))

    assert of_boot.energy_mj(of_boot.init()[0]) == pytest.approx(3_000_000, abs=6_001)
    assert of_process.energy_mj(of_process.init()[0]) == pytest.approx(300_000_000, abs=6_001)


def test_a_reset_while_frozen_is_not_negative() -> None:
    clock = FakeClock()
    rig = Rig(
        'kind = "frozen_counter"\ngpu = 0\nat_s = 1\nfor_s = 10\n'
        '[[fault]]\nkind = "reset_counter"\ngpu = 0\nat_s = 5',
        clock,
    )
    handle = rig.init()[0]
    clock.advance(7)

    assert rig.energy_mj(handle) == 0
    clock.advance(5)
    assert rig.energy_mj(handle) == pytest.approx(2_100_000, abs=6_001)


def test_the_last_of_several_resets_counts() -> None:
    rig = Rig(
        'kind = "reset_counter"\ngpu = 0\nat_s = 2\n'
        '[[fault]]\nkind = "reset_counter"\ngpu = 0\nat_s = 6'
    )
    handle = rig.init()[0]
    rig.clock.advance(10)

    assert rig.energy_mj(handle) == pytest.approx(1_200_000, abs=6_001)


@pytest.mark.parametrize("at_ms", range(10_001, 10_021, 3))
def test_a_reset_counter_never_shows_more_than_was_used_since(at_ms: int) -> None:
    """Wherever in the tick the reset falls: the part of the tick before it is gone."""
    rig = Rig(f'kind = "reset_counter"\ngpu = 0\nat_s = {at_ms / 1000}')
    handle = rig.init()[0]
    rig.clock.advance(at_ms / 1000)
    for _ in range(8):
        rig.clock.advance(0.005)
        used_uj = rig.driver.true_energy_uj(0) - 300 * (1_000_000 + at_ms) * 1_000
        assert rig.energy_mj(handle) * 1_000 <= used_uj
