"""`wattledger.measure`: blocks, functions, coroutines, threads; and metering that fails."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import wattledger
from wattledger import MeasuredReceipt

SCENARIO = """
[[gpu]]
model = "H100 SXM"
waveform = { kind = "constant", watts = 300 }
[[gpu]]
model = "H100 SXM"
waveform = { kind = "constant", watts = 200 }
processes = [{ pid = 4194303, memory_mib = 100 }]
"""


class Place:
    """Where no daemon is, and two simulated GPUs are."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "sys").mkdir()
        (path / "scenario.toml").write_text(SCENARIO)
        self.config = path / "wattledger.toml"
        self.config.write_text(
            f'meters.nvml = {{ backend = "simulated", scenario = "{path}/scenario.toml" }}\n'
            f'path.sysfs = "{path}/sys"\n'
            'site = { price_per_kwh = 0.5, currency = "CHF" }\n'
        )

    def measure(self, name: str = "step", **options: Any) -> wattledger.Measure:
        options = {"config": self.config, "socket": self.path / "none"} | options
        return wattledger.measure(name, **options)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("place"))  # one: its meters are opened once


def receipt_of(measured: wattledger.Measure) -> MeasuredReceipt:
    assert measured.receipt is not None
    return measured.receipt


def busy(seconds: float = 0.15) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


# ── blocks ──────────────────────────────────────────────────────────────────────────────────────


def test_a_block_has_its_receipt_when_it_has_ended(place: Place) -> None:
    with place.measure("epoch 1", gpus=[0]) as m:
        assert m.receipt is None
        busy(0.3)
    receipt = receipt_of(m)
    assert (receipt.name, receipt.complete, receipt.measured_by) == ("epoch 1", True, "direct")
    assert receipt.energy_kwh["gpu"] > 0
    assert receipt.energy_kwh["cpu"] > 0
    assert receipt.co2e_g > 0
    assert receipt.water_l["total"] > 0
    assert receipt.duration_s >= 0.3
    assert receipt.cost is not None and receipt.cost["currency"] == "CHF"
    assert receipt.grid[0]["zone"] == "WORLD"
    assert str(receipt).startswith("wattledger: epoch 1 took ")
    assert "epoch 1" in repr(receipt)


def test_a_receipt_is_what_the_command_line_writes(place: Place) -> None:
    with place.measure() as m:
        busy()
    fields = receipt_of(m).json()
    assert json.loads(json.dumps(fields)) == fields
    assert all(getattr(m.receipt, name) == value for name, value in fields.items())
    fields["energy_kwh"]["total"] = -1.0
    assert receipt_of(m).energy_kwh["total"] >= 0
    with pytest.raises(AttributeError, match="has no 'joules'; it has name, "):
        _ = receipt_of(m).joules


def test_what_a_block_raises_is_raised_and_its_receipt_says_1(place: Place) -> None:
    with pytest.raises(ZeroDivisionError), place.measure() as m:
        _ = 1 / 0
    assert receipt_of(m).exit_code == 1
    assert "exit code" not in str(receipt_of(m))
    assert "Something was raised in it." in str(receipt_of(m))


def test_a_block_has_no_exit_code_to_tell(place: Place) -> None:
    with place.measure() as m:
        pass
    said = str(receipt_of(m))
    assert "exit code" not in said and "raised" not in said
    assert said.startswith("wattledger: step took ")


def test_a_block_in_a_block_is_a_step_of_it(place: Place) -> None:
    with place.measure("outer") as outer:
        busy()
        with place.measure("inner") as inner:
            busy()
    outside, inside = receipt_of(outer), receipt_of(inner)
    assert inside.step_of == {"manager": "run", "job_id": outside.job_id}
    assert outside.step_of is None
    assert int(outside.exact["energy_uj"]) >= int(inside.exact["energy_uj"]) > 0
    assert outside.duration_s >= inside.duration_s


def test_one_object_serves_again_and_measures_anew(place: Place) -> None:
    m = place.measure()
    with m:
        busy()
    first = receipt_of(m)
    with m:
        pass
    assert receipt_of(m).job_id != first.job_id


def test_one_object_entered_again_before_it_was_left_goes_on(place: Place) -> None:
    m = place.measure()
    with m:
        with m:
            busy()
        assert m.receipt is None
    assert receipt_of(m).duration_s > 0


def test_children_count_and_a_forked_child_does_not_end_the_parents_block(place: Place) -> None:
    with place.measure() as m:
        child = os.fork()
        if not child:
            try:
                m.__exit__(None, None, None)
                busy(0.3)
            finally:
                os._exit(0)
        os.waitpid(child, 0)
    assert receipt_of(m).energy_kwh["cpu"] > 0


def test_a_forked_child_measures_with_meters_of_its_own(place: Place) -> None:
    with place.measure():
        pass
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            with place.measure("child") as m:
                busy()
            os.write(writer, json.dumps(receipt_of(m).json()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as read:
        receipt = json.loads(read.read())
    os.waitpid(child, 0)
    assert (receipt["name"], receipt["complete"]) == ("child", True)
    assert receipt["energy_kwh"]["total"] > 0


def test_threads_measure_at_the_same_time(place: Place) -> None:
    receipts: list[MeasuredReceipt] = []
    gate = threading.Barrier(4)

    def work(number: int) -> None:
        with place.measure(f"thread {number}", on_receipt=receipts.append):
            gate.wait()
            busy(0.05)
            gate.wait()

    threads = [threading.Thread(target=work, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(receipt.name for receipt in receipts) == [f"thread {n}" for n in range(4)]
    assert len({receipt.job_id for receipt in receipts}) == 4


def test_a_step_in_a_loop_opens_the_meters_once(place: Place) -> None:
    def meters() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name == "meter-cpu"]

    with place.measure():
        before = meters()
    for _ in range(5):
        with place.measure():
            pass
    assert meters() == before


# ── functions ───────────────────────────────────────────────────────────────────────────────────


def test_a_function_keeps_its_face_and_what_it_returns(place: Place) -> None:
    seen: list[MeasuredReceipt] = []

    @place.measure("", on_receipt=seen.append)
    def train(epochs: int, *, rate: float = 1.0) -> str:
        """Trains."""
        return f"{epochs} {rate}"

    assert train(3, rate=0.5) == "3 0.5"
    assert (train.__name__, train.__doc__) == ("train", "Trains.")
    assert [receipt.name for receipt in seen] == [train.__qualname__]
    assert train.receipt is seen[0]  # type: ignore[attr-defined]
    train(1)
    assert len({receipt.job_id for receipt in seen}) == 2


def test_a_function_that_calls_itself_is_measured_at_each_call(place: Place) -> None:
    seen: list[MeasuredReceipt] = []

    @place.measure("down", on_receipt=seen.append)
    def down(n: int) -> int:
        return n and down(n - 1)

    down(2)
    assert len(seen) == 3
    assert [receipt.step_of is None for receipt in seen] == [False, False, True]


def test_a_coroutine_is_measured_from_its_start_to_its_end(place: Place) -> None:
    seen: list[MeasuredReceipt] = []

    @place.measure("fetch", on_receipt=seen.append)
    async def fetch(answer: int) -> int:
        await asyncio.sleep(0.2)
        return answer

    async def main() -> list[int]:
        async with place.measure("all") as m:
            answers = await asyncio.gather(fetch(1), fetch(2))
        assert receipt_of(m).duration_s >= 0.2
        return list(answers)

    assert asyncio.run(main()) == [1, 2]
    assert all(receipt.duration_s >= 0.2 for receipt in seen)
    assert len(seen) == 2


def test_generators_and_classes_are_refused_with_a_way_out(place: Place) -> None:
    def numbers() -> Iterator[int]:
        yield 1

    async def later() -> Any:
        yield 1

    for function in (numbers, later):
        with pytest.raises(TypeError, match=r"is a generator.*write `with"):
            place.measure()(function)
    with pytest.raises(TypeError, match="decorate its methods"):
        place.measure()(Place)


def test_brackets_may_be_left_out() -> None:
    @wattledger.measure
    def answer() -> int:
        return 42

    assert answer.__name__ == "answer"
    assert answer.receipt is None  # type: ignore[attr-defined]


# ── metering that fails ─────────────────────────────────────────────────────────────────────────


def test_settings_that_cannot_be_read_are_told_once_and_raise_nothing(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    done = []
    for _ in range(3):
        with place.measure("unlucky", config=place.path / "missing.toml") as m:
            done.append(1)
        assert m.receipt is None
    assert len(done) == 3
    told = [r for r in caplog.records if "unlucky is not measured" in r.getMessage()]
    assert [r.levelno for r in told] == [logging.WARNING]


def test_a_gpu_that_is_not_to_be_had_is_left_out_and_told(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    with place.measure(gpus=[1]) as m:  # somebody's process is on it
        busy()
    receipt = receipt_of(m)
    assert (receipt.complete, receipt.energy_kwh["gpu"]) == (False, 0.0)
    assert receipt.energy_kwh["cpu"] > 0
    assert "Without the GPUs that were asked for" in str(receipt)
    assert any("measured without these GPUs" in r.getMessage() for r in caplog.records)


def test_the_daemons_sentence_ends_once(
    tmp_path: Path, place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    refusal = b'{"error": "GPU 1 is lent to somebody.", "hint": "Wait."}'
    reply = b"HTTP/1.1 409 Conflict\r\nContent-Length: %d\r\n\r\n%s" % (len(refusal), refusal)

    class Refuses(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(65536)
            self.request.sendall(reply)

    with socketserver.UnixStreamServer(str(tmp_path / "s"), Refuses) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        measured = place.measure(gpus=[1], socket=tmp_path / "s")
        measured.__enter__()
        thread.join()
    measured.__exit__(None, None, None)
    why = "GPU 1 is lent to somebody"
    assert f"Without the GPUs that were asked for: {why}.\n" in f"{receipt_of(measured)}\n"
    assert any(r.getMessage().startswith(f"{why}; measured") for r in caplog.records)


def test_nothing_is_loaded_before_it_is_asked_for() -> None:
    code = (
        "import sys, wattledger\n"
        "print(sorted(name for name in sys.modules if name.startswith('wattledger')))\n"
        "wattledger.measure\n"
        "print('wattledger.measured' in sys.modules, 'wattledger.sampler' in sys.modules)\n"
        "try: wattledger.nonsense\n"
        "except AttributeError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "['wattledger']",
        "True False",
        "module 'wattledger' has no attribute 'nonsense'",
    ]
