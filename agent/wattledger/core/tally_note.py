"""The commands that are measured, as text for the ledger, so that a restarted daemon goes on."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from wattledger.core.entries import HeldTime
from wattledger.core.tally import Tallies
from wattledger.model import Amounts, Basis, EntryKey, Kind, Payee, Price, Quality
from wattledger.model.jobbooks import Cell
from wattledger.model.jobs import RUN, Held, JobRun, job_payee
from wattledger.model.receipts import GridPart, ReceiptKey
from wattledger.model.running import KnownRun
from wattledger.model.sums import NO_SUMS, Sums, of_plain, sums_of, to_plain

_TARIFF = slice(7, 10)
"""Where an older program kept a part's tariff, of which there was one for each slot."""


class Command(NamedTuple):
    """A command that is measured.

    Attributes:
        run: as the last survey told.
        outer: the job or the command inside which it runs and which pays; None: it pays itself.
        gpus: those that it claims.
        since_ns: wall clock from which on it is measured.
    """

    run: JobRun
    outer: Payee | None
    gpus: tuple[str, ...]
    since_ns: int

    @property
    def known(self) -> KnownRun:
        """What is needed to find its processes again."""
        return KnownRun(self.run, self.outer is not None, self.gpus)


class _Tariff(NamedTuple):
    """See `model.sums.Factors`."""

    pue_ppm: int
    market_ug_per_kwh: int | None
    cost_u_per_kwh: int | None
    currency: str


def write(commands: Iterable[Command], tallies: Tallies) -> str:
    """The commands and what they have cost; empty: there are none."""
    commands = list(commands)
    if not commands:
        return ""
    prices: dict[Price, int] = {}
    open_: dict[Payee, list[list[Any]]] = {}
    entries = tallies.entries
    for key in dict.fromkeys((*entries.energy_uj, *entries.held)):
        held = entries.held.get(key, HeldTime())
        open_.setdefault(key.payee, []).append(
            [
                key.slot_s,
                key.device,
                key.quality,
                prices.setdefault(key.price, len(prices)),
                entries.energy_uj.get(key, 0),
                held.held_ns,
                held.idle_ns,
                held.idle_uj,
            ]
        )
    runs = [
        {
            "payee": command.run.payee[2:],
            "uid": command.run.uid,
            "labels": dict(command.run.labels),
            "root": command.run.cgroup,
            "ticks": command.run.inode,
            "boot": command.run.boot_id,
            "cpu": command.run.cpu_ns,
            "seen": command.run.last_seen_ns,
            "outer": command.outer and command.outer[1:],
            "gpus": command.gpus,
            "since": command.since_ns,
            "embodied_fg": str(tallies.embodied_fg.get(command.run.payee, 0)),
            "open": open_.get(command.run.payee, []),
            "closed": [
                [key.kind, key.quality, [*key.grid], *cell.amounts, *cell.held]
                for key, cell in tallies.closed.get(command.run.payee, {}).items()
            ],
            "weights": [
                [[*part], weight]
                for part, weight in tallies.closed_weights.get(command.run.payee, {}).items()
            ],
            "sums": to_plain(tallies.closed_sums.get(command.run.payee, NO_SUMS)),
        }
        for command in commands
    ]
    note = {"prices": list(prices), "kinds": tallies.kinds, "runs": runs}
    return json.dumps(note, separators=(",", ":"))


def read(note: str) -> tuple[list[Command], Tallies]:
    """What `write` wrote; nothing where that cannot be read."""
    commands: list[Command] = []
    tallies = Tallies()
    try:
        whole = json.loads(note) if note else {"prices": [], "kinds": {}, "runs": []}
        prices = [_price(row) for row in whole["prices"]]
        tallies.kinds.update({name: Kind(kind) for name, kind in whole["kinds"].items()})
        for one in whole["runs"]:
            payee = job_payee(RUN, str(one["payee"][0]), int(one["payee"][1]))
            outer = one["outer"]
            run = JobRun(
                payee=payee,
                uid=one["uid"],
                labels={str(name): str(text) for name, text in one["labels"].items()},
                cgroup=str(one["root"]),
                inode=int(one["ticks"]),
                boot_id=str(one["boot"]),
                cpu_ns=int(one["cpu"] or 0),
                last_seen_ns=int(one["seen"]),
            )
            commands.append(
                Command(
                    run,
                    job_payee(str(outer[0]), str(outer[1]), int(outer[2])) if outer else None,
                    tuple(map(str, one["gpus"])),
                    int(one["since"]),
                )
            )
            tallies.embodied_fg[payee] = int(one.get("embodied_fg", 0))
            for slot_s, device, quality, price, energy_uj, *held in one["open"]:
                key = EntryKey(int(slot_s), str(device), payee, Quality(quality), prices[price])
                if energy_uj:
                    tallies.entries.energy_uj[key] = int(energy_uj)
                if any(held):
                    tallies.entries.held[key] = HeldTime(*map(int, held))
            cells, beside = tallies.closed.setdefault(payee, {}), NO_SUMS
            for row in one["closed"]:
                place, cell = _receipt_key(row), _cell(row)
                cells[place] = cells.get(place, Cell()).plus(cell)
                beside = beside.plus(_sums_of_part(row[2], cell.amounts.energy_uj))
            weights = tallies.closed_weights.setdefault(payee, {})
            for told, weight in one["weights"]:
                part = _grid_part(told)
                weights[part] = weights.get(part, 0) + int(weight)
            beside = of_plain(one["sums"]) if "sums" in one else beside
            if beside != NO_SUMS:
                tallies.closed_sums[payee] = beside
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        return [], Tallies()
    return commands, tallies


def _price(row: list[Any]) -> Price:
    price = Price(*row)
    return price._replace(basis=Basis(price.basis))


def _receipt_key(row: list[Any]) -> ReceiptKey:
    return ReceiptKey(Kind(row[0]), Quality(row[1]), _grid_part(row[2]))


def _grid_part(row: list[Any]) -> GridPart:
    if len(row) > len(GridPart._fields):
        row = [*row[: _TARIFF.start], *row[_TARIFF.stop :]]
    part = GridPart(*row)
    return part._replace(basis=Basis(part.basis))


def _sums_of_part(row: list[Any], energy_uj: int) -> Sums:
    """What a cell cost that was kept by its tariff; nothing is known of any other."""
    if len(row) <= len(GridPart._fields):
        return NO_SUMS
    return sums_of([(_Tariff(row[4], *row[_TARIFF]), energy_uj)])


def _cell(row: list[Any]) -> Cell:
    return Cell(Amounts(*map(int, row[3:7])), Held(*map(int, row[7:10])))
