"""MIG: what a GPU is cut into, and on which instance each process is."""

from __future__ import annotations

from pathlib import Path

import pytest

from fake_nvml import FakeGpu, FakeInstance, FakeNvml
from fakes import FakeClock
from wattledger.meters.nvml.meter import NvmlMeter
from wattledger.meters.nvml.survey import survey
from wattledger.model.measuring import GpuNames, MigInstance

UUID = "GPU-a"
THREE, FOUR = MigInstance("MIG-3", 2, 3), MigInstance("MIG-4", 1, 4)


class Cut:
    """A GPU with a 3g and a 4g instance, and a meter over it."""

    def __init__(self, **more: object) -> None:
        self.clock = FakeClock()
        self.three = FakeInstance(*THREE, pids=[7])
        self.four = FakeInstance(*FOUR, pids=[8, 9])
        self.gpu = FakeGpu(UUID, mig=1, instances=[self.three, self.four], minor=3, **more)  # type: ignore[arg-type]
        self.driver = FakeNvml(self.clock, self.gpu)
        self.meter = NvmlMeter(self.driver, self.clock, sysfs=Path("/nonexistent"), procfs=None)
        self.parent_knows()

    def parent_knows(self) -> None:
        """The parent lists the processes of all instances."""
        self.gpu.pids = [pid for one in self.gpu.instances for pid in one.pids]

    def turn(self) -> dict[int, str | None] | None:
        """A second; process → instance, None: it is not told."""
        report = self.meter.read()
        self.clock.advance(1)
        listed = report.listed.get(UUID)
        count = report.processes.get(UUID)
        assert count == (None if listed is None else len(listed))
        assert UUID not in report.used or not self.meter.facts()[0].mig, "use is not told with MIG"
        return None if listed is None else {p.pid: p.instance for p in listed}

    def turns(self, count: int) -> dict[int, str | None] | None:
        return [self.turn() for _ in range(count)][-1]

    def names(self) -> GpuNames:
        (names,) = self.meter.gpu_names()
        return names


ALL = {7: "MIG-3", 8: "MIG-4", 9: "MIG-4"}


def test_processes_are_on_their_instances_from_the_first_turn() -> None:
    c = Cut()
    assert c.turn() == ALL
    assert c.names() == GpuNames(UUID, 0, 3, (THREE, FOUR), 7)
    (facts,) = c.meter.facts()
    assert (facts.mig, facts.slices, facts.instances, facts.minor) == (True, 7, (THREE, FOUR), 3)
    (seen,) = survey(c.driver, sysfs=Path("/nonexistent"))
    assert seen.instances == (THREE, FOUR)


def test_who_comes_and_goes_is_seen_at_the_parents_next_list() -> None:
    c = Cut()
    c.turn()
    c.three.pids, c.four.pids = [7, 17], [9]
    c.parent_knows()
    assert c.turns(10) == {7: "MIG-3", 9: "MIG-4", 17: "MIG-3"}


def test_the_parents_word_on_the_instance_is_not_taken() -> None:
    """The fake's parent names no instance; a driver that names a wrong one changes nothing."""
    c = Cut()
    c.turn()
    ask = c.driver.nvmlDeviceGetComputeRunningProcesses

    def wrong(handle: FakeGpu | FakeInstance) -> list[object]:
        rows = ask(handle)
        if isinstance(handle, FakeGpu):
            for row in rows:
                row.gpuInstanceId = FOUR.gpu_instance
        return rows

    c.driver.nvmlDeviceGetComputeRunningProcesses = wrong  # type: ignore[method-assign]
    c.three.pids.append(17)
    c.parent_knows()
    assert c.turns(10) == {**ALL, 17: "MIG-3"}


@pytest.mark.parametrize("code", [0, 3, 4])
def test_a_parent_that_does_not_tell_of_all_is_done_without(code: int) -> None:
    """To the unprivileged it lists nobody, or answers NO_PERMISSION; some do not support it."""
    c = Cut(process_error=code)
    c.gpu.pids = []
    assert c.turn() == ALL
    assert c.turns(20) == ALL
    c.driver.calls.clear()
    c.three.pids, c.four.pids = [17], [8]
    assert c.turns(20) == {8: "MIG-4", 17: "MIG-3"}
    assert c.driver.calls.count("compute") <= 8


def test_a_process_that_no_instance_lists_is_told_without_one() -> None:
    c = Cut()
    c.turn()
    c.gpu.pids = [*c.gpu.pids, 99]
    assert c.turns(10) == {**ALL, 99: None}
    c.driver.calls.clear()
    c.turns(300)
    assert c.driver.calls.count("mig_handle") <= 2 * 7, "it is not looked for for ever"


def test_an_instance_made_later_is_found_with_its_first_process() -> None:
    c = Cut()
    c.gpu.instances = [c.four]
    c.parent_knows()
    assert c.turns(70) == {8: "MIG-4", 9: "MIG-4"}
    before = c.meter.gpu_names()
    c.gpu.instances = [c.three, c.four]
    c.parent_knows()
    c.turns(12)
    assert c.names().instances == (THREE, FOUR)
    assert c.turns(2) == ALL
    assert before[0].instances == (FOUR,), "what others were given does not change"


def test_an_instance_without_a_process_is_found_in_minutes() -> None:
    c = Cut()
    c.gpu.instances = [c.four]
    c.parent_knows()
    c.turn()
    c.gpu.instances = [c.three, c.four]
    c.turns(310)
    assert c.names().instances == (THREE, FOUR)


def test_an_instance_that_was_taken_apart() -> None:
    c = Cut()
    c.turn()
    c.three.error = 2  # its handle is void
    c.gpu.instances = [c.four]
    c.parent_knows()
    assert c.turns(80) == {8: "MIG-4", 9: "MIG-4"}
    assert c.names().instances == (FOUR,)


@pytest.mark.parametrize("code", [3, 4, 999])
def test_an_instance_whose_list_is_not_told_leaves_the_gpu_untold(code: int) -> None:
    c = Cut()
    c.three.process_error = code
    assert c.turns(3) is None
    c.three.process_error = 0
    assert c.turns(70) == ALL


def test_instances_that_cannot_be_told_leave_the_gpu_untold() -> None:
    c = Cut()
    c.four.error = 999
    assert c.turns(3) is None
    assert c.names().instances == ()
    (facts,) = c.meter.facts()
    assert facts.instances is None
    c.four.error = 0
    assert c.turns(70) == ALL


def test_instances_of_others_are_left_out() -> None:
    c = Cut()
    handle = c.driver.nvmlDeviceGetMigDeviceHandleByIndex

    def mine_only(gpu: FakeGpu, index: int) -> FakeInstance:
        if index == 0:
            raise c.driver.NVMLError(4)
        return handle(gpu, index)

    c.driver.nvmlDeviceGetMigDeviceHandleByIndex = mine_only  # type: ignore[method-assign, assignment]
    c.gpu.pids = [8, 9]
    assert c.turns(30) == {8: "MIG-4", 9: "MIG-4"}
    assert c.names().instances == (FOUR,)
    assert c.names().slices == 7, "of the whole GPU all the same"


def test_nobody_is_on_a_gpu_without_instances() -> None:
    c = Cut()
    c.gpu.instances = []
    c.parent_knows()
    assert c.turns(30) == {}


def test_mig_is_switched_on_and_off_while_the_meter_runs() -> None:
    c = Cut()
    c.gpu.mig = 0
    c.gpu.pids = [1]
    assert [c.turn() for _ in range(50)][-1] == {1: None}
    assert c.names().instances == ()
    c.gpu.mig = 1
    c.parent_knows()
    assert c.turns(90) == ALL
    c.gpu.mig = 0
    c.gpu.pids = [1]
    c.three.error = c.four.error = 2
    assert c.turns(90) == {1: None}
    assert c.names().instances == ()


def test_names_are_the_same_tuple_while_nothing_changes() -> None:
    c = Cut()
    c.turns(2)
    names = c.meter.gpu_names()
    c.turns(400)
    assert c.meter.gpu_names() is names


def test_a_gpu_that_left_keeps_its_own_name_only() -> None:
    """Its index and its device node may be another's by then."""
    c = Cut()
    other = FakeGpu("GPU-b", minor=4)
    c.driver.gpus.append(other)
    c.turn()
    assert [(n.uuid, n.nvml_index, n.minor) for n in c.meter.gpu_names()] == [
        (UUID, 0, 3),
        ("GPU-b", 1, 4),
    ]
    c.gpu.present = False
    for _ in range(70):
        c.meter.read()
        c.clock.advance(1)
    assert c.meter.gpu_names() == (GpuNames(UUID, -1), GpuNames("GPU-b", 0, 4))
    c.gpu.present = True
    for _ in range(70):
        c.meter.read()
        c.clock.advance(1)
    assert c.meter.gpu_names()[0].instances == (THREE, FOUR)


@pytest.mark.parametrize("moving", [False, True])
def test_driver_calls_with_mig_stay_within_the_budget(moving: bool) -> None:
    """Seven instances on each of eight GPUs: at start each is asked once, then in turn."""
    clock = FakeClock()
    gpus = [
        FakeGpu(
            f"GPU-{g}",
            mig=1,
            instances=[FakeInstance(f"MIG-{g}-{i}", i, 1, pids=[100 * g + i]) for i in range(7)],
        )
        for g in range(8)
    ]
    driver = FakeNvml(clock, *gpus)
    meter = NvmlMeter(driver, clock, sysfs=Path("/nonexistent"), procfs=None)

    def turn(second: int) -> int:
        before = len(driver.calls)
        for gpu in gpus:
            if moving and second % 20 == 0:
                gpu.instances[second // 20 % 7].pids = [10_000 + second]
            gpu.pids = [pid for one in gpu.instances for pid in one.pids]
        report = meter.read()
        assert all(len(listed) == 7 for listed in report.listed.values())
        clock.advance(1)
        return len(driver.calls) - before

    for second in range(60):
        turn(second)
    driver.calls.clear()
    worst = max(turn(second) for second in range(60, 1260))
    assert worst <= 8 * 8, "what is asked seldom is spread over the turns"
    assert len(driver.calls) / 8 / 1200 <= (1.6 if moving else 1.5)
