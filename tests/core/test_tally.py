"""Steps folded into who pays for them, tallies of commands, and their note in the ledger."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes import SITE, START_WALL_NS, table_choice
from wattledger.core import tally_note
from wattledger.core.attribution import attribute
from wattledger.core.books import PendingBooks
from wattledger.core.footprint import footprint, price_of
from wattledger.core.holding import payer_of
from wattledger.core.tally import Settled, Tallies, settle
from wattledger.core.tally_note import Command
from wattledger.model import (
    IDLE,
    SYSTEM,
    Amounts,
    EnergyInterval,
    Kind,
    Payee,
    Price,
    Quality,
    Usage,
)
from wattledger.model.jobs import RUN, Held, JobRun, job_payee
from wattledger.model.market import Contract, Market
from wattledger.model.sums import NO_SUMS, sums_of
from wattledger.units import NS_PER_S, SLOT_NS, slot_of

JOBS = [job_payee("slurm", str(number), START_WALL_NS) for number in range(3)]
RUNS = [job_payee(RUN, f"{number:x}", START_WALL_NS) for number in range(6)]
GPU = "GPU-1"


def price_at(slot_s: int) -> Price:
    return price_of(table_choice(400.0 + slot_s % 7), SITE)


def interval(
    energy_uj: int,
    start_s: float = 0,
    duration_s: float = 1,
    device: str = GPU,
    quality: Quality = Quality.METERED,
) -> EnergyInterval:
    start_ns = START_WALL_NS + round(start_s * NS_PER_S)
    return EnergyInterval(
        device, start_ns, start_ns + round(duration_s * NS_PER_S), energy_uj, quality
    )


@st.composite
def forests(draw: st.DrawFn) -> dict[Payee, Payee]:
    """Steps of jobs and of commands, as deep as you like; some commands pay for themselves."""
    steps: dict[Payee, Payee] = {}
    for number, run in enumerate(RUNS):
        outer = draw(st.sampled_from([None, *JOBS, *RUNS[:number]]))
        if outer is not None:
            steps[run] = outer
    return steps


weights = st.dictionaries(st.sampled_from([*JOBS, *RUNS]), st.integers(1, 10**12), max_size=9)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    given, floor = draw(weights), draw(weights)
    return Usage(
        GPU,
        tuple(given.items()),
        max(1, sum(given.values()) + draw(st.integers(0, 10**12))),
        draw(st.sampled_from([IDLE, SYSTEM])),
        draw(st.integers(0, 10**9)),
        tuple(floor.items()),
        max(1, sum(floor.values()) + draw(st.integers(0, 10**6))),
        held=draw(st.booleans()),
    )


def folded(usage: Usage, steps: dict[Payee, Payee]) -> Usage:
    """The usage as it would be if nobody had wrapped any command."""

    def fold(pairs: tuple[tuple[Payee, int], ...]) -> tuple[tuple[Payee, int], ...]:
        sums: dict[Payee, int] = {}
        for payee, weight in pairs:
            payer = payer_of(payee, steps)
            sums[payer] = sums.get(payer, 0) + weight
        return tuple(sums.items())

    return replace(usage, weights=fold(usage.weights), floor_weights=fold(usage.floor_weights))


@given(forests(), usages(), st.integers(0, 10**12))
def test_steps_change_nothing_for_the_books(
    steps: dict[Payee, Payee], usage: Usage, energy_uj: int
) -> None:
    one = interval(energy_uj)
    settled = settle(one, usage, steps)

    # Exactly what it is without steps, for everybody.
    assert dict(settled.attributed.shares) == dict(attribute(one, folded(usage, steps)).shares)
    assert not any(payee in steps for payee, _ in settled.attributed.shares)
    # With steps apart it is the same energy, for each payer as for the whole.
    by_payer: dict[Payee, int] = {}
    for payee, share_uj in settled.members:
        by_payer[payer_of(payee, steps)] = by_payer.get(payer_of(payee, steps), 0) + share_uj
    assert by_payer == dict(settled.attributed.shares)
    assert sum(share_uj for _, share_uj in settled.members) == energy_uj
    # And nobody is far from their own part: rounding moves some µJ, not more.
    alone = dict(attribute(one, usage).shares)
    for payee, share_uj in settled.members:
        assert abs(share_uj - alone.get(payee, 0)) <= 2 * len(alone) + 2


def energy_of(tallies: Tallies, payee: Payee) -> int:
    return sum(cell.amounts.energy_uj for cell in tallies.cells(payee).values())


booked = st.lists(
    st.tuples(
        usages(),
        st.integers(0, 10**10),
        st.floats(0, 2000),
        st.floats(0.1, 900),
        st.sampled_from([Quality.METERED, Quality.RECOVERED, Quality.ESTIMATED]),
        st.sampled_from(["used", "idle", "not told", "restart"]),
    ),
    max_size=6,
)


@given(forests(), booked)
def test_a_tally_is_its_own_shares_and_those_inside_it(
    steps: dict[Payee, Payee],
    events: list[tuple[Usage, int, float, float, Quality, str]],
) -> None:
    tallies = Tallies()
    paid: dict[Payee, int] = {}
    own: dict[Payee, int] = {}
    for usage, energy_uj, start_s, duration_s, quality, then in events:
        settled = settle(interval(energy_uj, start_s, duration_s, quality=quality), usage, steps)
        tallies.book(settled, Kind.GPU, price_at, steps)
        for payee, share_uj in settled.attributed.shares:
            paid[payee] = paid.get(payee, 0) + share_uj
        for payee, share_uj in settled.members:
            own[payee] = own.get(payee, 0) + share_uj
        if then in ("used", "idle"):
            tallies.decide(GPU, used=then == "used")
        elif then == "restart":  # what waits to be decided is lost, as it is for the ledger
            cells = {run: tallies.cells(run) for run in RUNS}
            commands = [Command(JobRun(run), steps.get(run), (), 1) for run in RUNS]
            _, tallies = tally_note.read(tally_note.write(commands, tallies))
            assert {run: tallies.cells(run) for run in RUNS} == cells

    for run in RUNS:
        inside = [one for one in RUNS if run in chain(one, steps)]
        assert energy_of(tallies, run) == sum(own.get(one, 0) for one in inside)
        payer = payer_of(run, steps)
        if payer == run:
            assert energy_of(tallies, run) == paid.get(run, 0)
        else:
            assert energy_of(tallies, run) <= paid.get(payer, 0)
        for cell in tallies.cells(run).values():
            assert 0 <= cell.held.idle_ms <= cell.held.held_ms
            assert 0 <= cell.held.idle_uj <= cell.amounts.energy_uj


def chain(run: Payee, steps: dict[Payee, Payee]) -> list[Payee]:
    found = [run]
    while run in steps:
        run = steps[run]
        found.append(run)
    return found


def test_a_tally_is_rounded_as_the_ledger_rounds() -> None:
    """For a command that pays for itself the receipt is its row in the ledger, to the µg."""
    tallies, books = Tallies(), PendingBooks()
    usage = Usage(GPU, ((RUNS[0], 1), (JOBS[0], 2)), 3, held=True)
    for number in range(1000):  # over four slots
        settled = settle(interval(333_333 + number, number), usage, {})
        tallies.book(settled, Kind.GPU, price_at, {})
        books.book(settled.attributed, price_at, settled.usage)
    batch = books.batch(devices=(), checkpoints={}, signals=(), notes={}, books_ns=0)
    entries = [
        footprint(energy_uj, key.price)
        for key, energy_uj in batch.energy_uj.items()
        if key.payee == RUNS[0]
    ]
    assert len(entries) >= 4
    cells = tallies.cells(RUNS[0])
    whole = Amounts()
    for cell in cells.values():
        whole = whole.plus(cell.amounts)
    ledger = Amounts()
    for amounts in entries:
        ledger = ledger.plus(amounts)
    assert whole == ledger and whole.co2e_ug > 0
    held_ms = sum(held.held_ms for key, held in batch.held.items() if key.payee == RUNS[0])
    assert sum(cell.held.held_ms for cell in cells.values()) == held_ms
    assert len(tallies.entries.energy_uj) <= 2  # the others are closed


def test_idle_is_told_after_the_fact_and_reaches_closed_slots_too() -> None:
    tallies = Tallies()
    usage = Usage(GPU, ((RUNS[0], 1),), 1, held=True)
    tallies.book(settle(interval(500, 0), usage, {}), Kind.GPU, price_at, {})
    tallies.book(settle(interval(700, 900), usage, {}), Kind.GPU, price_at, {})
    tallies.decide(GPU, used=False)
    tallies.book(settle(interval(900, 1800), usage, {}), Kind.GPU, price_at, {})
    tallies.decide(GPU, used=True)
    held = Held()
    for cell in tallies.cells(RUNS[0]).values():
        held = held.plus(cell.held)
    assert held == Held(3000, 2000, 1200)


def test_what_is_dropped_leaves_nothing_behind() -> None:
    tallies = Tallies()
    usage = Usage(GPU, ((RUNS[0], 1), (RUNS[1], 1)), 2, held=True)
    for number in range(3):
        tallies.book(settle(interval(500, 400 * number), usage, {}), Kind.GPU, price_at, {})
    kept = tallies.cells(RUNS[1])
    tallies.drop(RUNS[0])
    tallies.decide(GPU, used=False)
    assert tallies.cells(RUNS[0]) == {}
    assert {k: c.amounts for k, c in tallies.cells(RUNS[1]).items()} == {
        k: c.amounts for k, c in kept.items()
    }


def test_an_hour_of_slots_at_once_is_kept_small() -> None:
    """A gap that is booked in one go is one interval over many slots."""
    tallies = Tallies()
    usage = Usage(GPU, ((RUNS[0], 1),), 1)
    settled: Settled = settle(interval(10**9, 0, 3600), usage, {})
    tallies.book(settled, Kind.GPU, price_at, {})
    after = settle(interval(5, 3600 + SLOT_NS // NS_PER_S), usage, {})
    tallies.book(after, Kind.GPU, price_at, {})
    assert len(tallies.entries.energy_uj) <= 3
    assert energy_of(tallies, RUNS[0]) == 10**9 + 5


def test_the_intensities_of_a_command_are_those_of_its_prices() -> None:
    """Also of slots that were closed, and over a restart."""
    tallies, usage = Tallies(), Usage(GPU, ((RUNS[0], 1),), 1)
    expected = 0
    for number in range(5):
        start_s = number * SLOT_NS // NS_PER_S
        piece = interval(1_000 + number, start_s)
        tallies.book(settle(piece, usage, {}), Kind.GPU, price_at, {})
        price = price_at(slot_of(piece.start_ns))
        expected += piece.energy_uj * price.intensity_ug_per_kwh
        run = JobRun(RUNS[0], boot_id="boot-1")
        note = tally_note.write([Command(run, None, (), START_WALL_NS)], tallies)
        _, tallies = tally_note.read(note)
    cells, weights, _ = tallies.sums(RUNS[0])
    assert {key.grid for key in cells} == set(weights) and sum(weights.values()) == expected
    tallies.drop(RUNS[0])
    assert tallies.sums(RUNS[0]) == ({}, {}, NO_SUMS)


def test_a_week_of_changing_signals_contracts_and_prices_keeps_a_tally_as_small_as_an_hour() -> (
    None
):
    """Its money and its market-based CO2e are exact all the same, also over a restart."""
    usage, market = Usage(GPU, ((RUNS[0], 1),), 1), Market((Contract("wind", 600_000, 10**7),))
    command = Command(JobRun(RUNS[0], boot_id="boot-1"), None, (), START_WALL_NS)
    slot_s = SLOT_NS // NS_PER_S
    first_s = START_WALL_NS // NS_PER_S

    def changing(at_s: int) -> Price:
        number = (at_s - first_s) // slot_s
        choice = table_choice(200.0 + number / 7)
        days_price = replace(SITE, market=market, price_per_kwh=0.2 + number // 288 / 100)
        return price_of(choice, replace(days_price, currency="EUR" if number < 1000 else "CHF"))

    tallies, booked, sizes = Tallies(), [], []
    for number in range(7 * 288):
        piece = interval(10**10 + number, number * slot_s)
        tallies.book(settle(piece, usage, {}), Kind.GPU, changing, {})
        booked.append((changing(slot_of(piece.end_ns)), piece.energy_uj))
        if number in (12, 1500, 7 * 288 - 1):
            note = tally_note.write([command], tallies)
            sizes.append(len(note))
            _, tallies = tally_note.read(note)
    cells, weights, sums = tallies.sums(RUNS[0])
    assert len({price.market_ug_per_kwh for price, _ in booked}) == len(booked)
    assert (len(cells), len(weights)) == (1, 1)
    assert sums == sums_of(booked) and sorted(sums.costs) == ["CHF", "EUR"]
    assert sizes[-1] < sizes[0] + 200  # the digits of its sums, and a currency


def test_a_note_of_an_older_program_is_read_with_what_its_cells_cost() -> None:
    """It kept a cell for each tariff; and the one before it knew neither tariffs nor sources."""
    usage = Usage(GPU, ((RUNS[0], 1),), 1)
    tallies = Tallies()
    for number in range(4):
        piece = interval(1000 + number, number * SLOT_NS // NS_PER_S)
        tallies.book(settle(piece, usage, {}), Kind.GPU, price_at, {})
    command = Command(JobRun(RUNS[0]), None, (), START_WALL_NS)
    note = json.loads(tally_note.write([command], tallies))
    (run,) = note["runs"]
    ((kind, quality, part, *amounts),), ((_, weight),) = run["closed"], run["weights"]
    del run["sums"]
    tariffs = [(100_000_000 + number, 250_000, "EUR") for number in range(2)]
    run["closed"] = [
        [kind, quality, [*part[:7], *tariff, *part[7:]], *amounts] for tariff in tariffs
    ]
    run["weights"] = [[[*part[:7], *tariff, *part[7:]], weight] for tariff in tariffs]
    _, of_old = tally_note.read(json.dumps(note))
    ((key, cell),), sums = of_old.closed[RUNS[0]].items(), of_old.closed_sums[RUNS[0]]
    assert [*key.grid] == part and cell.amounts.energy_uj == 2 * amounts[0]
    assert of_old.closed_weights[RUNS[0]] == {key.grid: 2 * weight}
    prices = [
        price_at(0)._replace(market_ug_per_kwh=market_ug, cost_u_per_kwh=cost_u, currency=currency)
        for market_ug, cost_u, currency in tariffs
    ]
    assert sums == sums_of((price, amounts[0]) for price in prices)
    assert sums.costs["EUR"].energy_uj == 2 * amounts[0] > 0

    run["closed"] = [[kind, quality, part[:5], *amounts]]
    run["weights"] = [[part[:5], weight]]
    _, of_older = tally_note.read(json.dumps(note))
    ((key, cell),) = of_older.closed[RUNS[0]].items()
    assert [*key.grid[:5]] == part[:5] and cell.amounts.energy_uj == amounts[0]
    assert RUNS[0] not in of_older.closed_sums


@pytest.mark.parametrize(
    "note",
    ["{", "[]", "null", '{"runs":[{}]}', '{"prices":[],"kinds":{},"runs":[{"payee":["x"]}]}'],
)
def test_a_note_that_cannot_be_read_is_no_note(note: str) -> None:
    commands, tallies = tally_note.read(note)
    assert commands == [] and tallies.closed == {} and not tallies.entries.energy_uj


def test_the_note_keeps_all_that_is_needed_to_go_on() -> None:
    run = JobRun(
        RUNS[2],
        uid=1000,
        labels={"name": 'a "name"\n', "user": "ada"},
        cgroup="pid:4711",
        inode=99,
        boot_id="boot-1",
        cpu_ns=123,
        last_seen_ns=START_WALL_NS + 5,
    )
    command = Command(run, JOBS[1], ("GPU-7",), START_WALL_NS + 1)
    commands, _ = tally_note.read(tally_note.write([command], Tallies()))
    assert commands == [command]
    assert commands[0].known.step and commands[0].known.gpus == ("GPU-7",)
    assert tally_note.write([], Tallies()) == ""
