"""Embodied carbon of spans: each run's, by the time that it held GPUs in them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fakes import START_WALL_NS, FakeClock
from ledgers import CPU, GPU, batch, key, opened
from wattledger.ledger import LedgerReader
from wattledger.model.jobs import Held, JobRun, job_payee
from wattledger.model.sums import Sums
from wattledger.units import NS_PER_S, slot_of

SLOT_S = slot_of(START_WALL_NS)
ALICE = JobRun(
    job_payee("slurm", "1", START_WALL_NS), uid=1, labels={"user": "alice", "account": "x"}
)
BOB = JobRun(job_payee("slurm", "2", START_WALL_NS), uid=2, labels={"user": "bob"})


@pytest.fixture
def reader(tmp_path: Path) -> LedgerReader:
    """Alice held a GPU for a minute in one slot, for two in the next; Bob a CPU's energy only."""
    path, clock = tmp_path / "l.sqlite", FakeClock()
    ledger = opened(path, clock)
    first, second = (key(SLOT_S + 300 * n, GPU.name, ALICE.payee) for n in range(2))
    energy = {first: 10, second: 10, key(SLOT_S, CPU.name, BOB.payee): 5}
    held = {first: Held(60_000, 60_000, 10), second: Held(120_000, 0, 0)}
    made = batch(energy, runs=(ALICE, BOB), held=held)
    sums = {ALICE.payee: Sums(embodied_fg=3 * 10**15), BOB.payee: Sums(embodied_fg=10**15)}
    ledger.commit(replace(made, sums=sums), clock.now())
    ledger.close()
    return LedgerReader(path)


SPANS = [((0, 2**62), 3.0), ((0, (SLOT_S + 300) * NS_PER_S), 1.0), ((0, SLOT_S * NS_PER_S), None)]


@pytest.mark.parametrize(("span", "grams"), SPANS)
def test_by_job_and_user(reader: LedgerReader, span: tuple[int, int], grams: float | None) -> None:
    for by, group in (("job", "slurm/1"), ("user", "alice")):
        for uid in (None, 1):
            rows = {row.group: row.sums.embodied_g for row in reader.totals(*span, by, uid)}
            assert rows.get(group) == grams
    rows = {row.group: row.sums.embodied_g for row in reader.totals(*span, "job")}
    assert rows.get("slurm/2") is None  # it held nothing


def test_a_span_by_device_or_day_has_none(reader: LedgerReader) -> None:
    for by in ("all", "device", "kind", "payee", "hour", "day"):
        assert [row.sums.embodied_fg for row in reader.totals(0, 2**62, by)] == [0] * len(
            reader.totals(0, 2**62, by)
        )


def test_of_waste(reader: LedgerReader) -> None:
    [row] = reader.waste(0, 2**62, "user").rows
    assert (row.group, row.sums.embodied_g) == ("alice", 3.0)
    [row] = reader.waste(0, 2**62, "account", 1).rows
    assert (row.group, row.sums.embodied_g) == ("x", 3.0)


def test_of_a_whole_job(reader: LedgerReader) -> None:
    for job_id, grams in (("1", 3.0), ("2", 1.0)):
        detail = reader.job("slurm", job_id)
        assert detail is not None and detail.sums.embodied_g == grams
        assert detail.runs[0].sums.embodied_g == grams
