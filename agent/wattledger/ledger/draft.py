"""One commit in the making: from committed books and a batch to rows and the next books."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TypeVar

from wattledger.errors import LedgerError
from wattledger.ledger import rows
from wattledger.ledger.job_draft import JobDraft, Read
from wattledger.ledger.restate import load_restatements, write_corrections
from wattledger.ledger.run_exports import settle_deliveries
from wattledger.ledger.settle import load_settled
from wattledger.model import (
    Amounts,
    Batch,
    Books,
    DeviceRecord,
    EntryKey,
    Instant,
    Kind,
    Payee,
    PayeeKind,
    Price,
    Total,
    TotalKey,
)
from wattledger.model.jobbooks import Cell
from wattledger.model.jobs import Held, KindBasis

K = TypeVar("K")
Footprint = Callable[[int, Price], Amounts]

NOTHING = Cell()
_NOT_HELD = Held()
_MAX_IDENTITIES = 4096


class Identities:
    """Row numbers of devices, payees and prices: found once, made where missing.

    After a rolled-back transaction they may be wrong, so that it ends with `forget`.
    """

    def __init__(self) -> None:
        self._devices: dict[str, int] = {}
        self._payees: dict[Payee, int] = {}
        self._prices: dict[Price, int] = {}

    def forget(self) -> None:
        """Knows nothing any more."""
        self._devices.clear()
        self._payees.clear()
        self._prices.clear()

    def device(self, connection: sqlite3.Connection, name: str) -> int:
        """The device's row, which must exist."""
        found = self._devices.get(name)
        if found is None:
            row = connection.execute("SELECT id FROM device WHERE name = ?", (name,)).fetchone()
            found = self._devices[name] = int(row[0])
        return found

    def payee(self, connection: sqlite3.Connection, payee: Payee) -> int:
        """The payee's row, made where it is new."""
        found = self._payees.get(payee)
        if found is None:
            if len(self._payees) >= _MAX_IDENTITIES:
                self._payees.clear()
            found = self._payees[payee] = _find_or_insert(
                connection, "payee", "kind, manager, job_id, start_ns", (*payee,)
            )
        return found

    def price(self, connection: sqlite3.Connection, price: Price) -> int:
        """The price's row, made where it is new."""
        found = self._prices.get(price)
        if found is None:
            if len(self._prices) >= _MAX_IDENTITIES:
                self._prices.clear()
            found = self._prices[price] = _find_or_insert(
                connection, "price", ", ".join(Price._fields), (*price,)
            )
        return found


def _find_or_insert(
    connection: sqlite3.Connection, table: str, columns: str, values: tuple[object, ...]
) -> int:
    places = ", ".join("?" * len(values))
    row = connection.execute(
        f"SELECT id FROM {table} WHERE ({columns}) IS ({places})",  # noqa: S608
        values,
    ).fetchone()
    if row is not None:
        return int(row[0])
    cursor = connection.execute(
        f"INSERT INTO {table} ({columns}) VALUES ({places})",  # noqa: S608
        values,
    )
    return cursor.lastrowid or 0


class Draft:
    """A commit in the making.

    Attributes:
        entries: after `write`, each entry touched and its new amounts.
        before: each entry touched and its committed amounts before.
        commits: after `write`, the sequence number that the commit makes true.
        books: after `write`, the state once it is committed.
    """

    def __init__(
        self,
        books: Books,
        batch: Batch,
        now: Instant,
        doubtful: Mapping[EntryKey, Cell] | None,
        jobs: JobDraft,
        read: Read,
    ) -> None:
        """Checks the batch and works out the devices.

        Args:
            books: the committed state.
            batch: what to add.
            now: when.
            doubtful: the committed amounts of entries that an earlier commit, whose outcome
                could not be told, may have changed on disk; None: there was none.
            jobs: the jobs' part of it.
            read: what such commits read of jobs.

        Raises:
            ValueError: an energy is not above 0, or a device was never introduced.
        """
        for key, energy_uj in batch.energy_uj.items():
            if energy_uj <= 0:
                raise ValueError(f"a batch adds energies above 0, not {energy_uj} µJ for {key}")
        self._old = books
        self._batch = batch
        self._now = now
        self._doubtful = doubtful
        self._devices = _devices_after(books, batch)
        for key in (*batch.energy_uj, *batch.held):
            if key.device not in self._devices and key.device not in books.devices:
                raise ValueError(f"{key.device} was booked on before it was introduced")
        self._jobs = jobs
        self._read = read
        self._grown: dict[Payee, dict[KindBasis, Cell]] = {}
        self.entries: dict[EntryKey, Cell] = {}
        self.before: dict[EntryKey, Cell] = {}
        self.commits: int | None = None
        self.books = books

    def write(
        self,
        connection: sqlite3.Connection,
        identities: Identities,
        recent: Mapping[EntryKey, Cell],
        footprint: Footprint,
    ) -> None:
        """Writes all rows; the transaction is the caller's.

        Raises:
            sqlite3.Error: a statement failed.
            OverflowError: an amount no longer fits 64 bits.
            LedgerError: another program has written to the file.
        """
        commits = self._next_sequence(connection)
        self._write_devices(connection)
        increments = self._write_entries(connection, identities, recent, footprint)
        totals = self._write_totals(connection, identities, increments)
        settle_deliveries(connection, self._batch.deliveries)
        jobs = self._jobs.write(
            connection,
            lambda payee: identities.payee(connection, payee),
            self._grown,
            self._read,
            sums=self._batch.sums,
            doubtful=self._doubtful is not None,
            commit=commits,
        )
        batch, old = self._batch, self._old
        settled, restatements = old.settled, old.restatements
        if self._doubtful is not None:
            restatements = load_restatements(connection)
        if batch.settlements or batch.restatements or batch.stale:
            restatements = write_corrections(
                connection,
                batch,
                lambda price: identities.price(connection, price),
                footprint,
                restatements,
            )
        if batch.settlements or batch.stale or self._doubtful is not None:
            settled = load_settled(connection)
        if batch.signals != old.signals or self._doubtful is not None:
            connection.execute("DELETE FROM signal")
            connection.executemany(
                rows.INSERT_SIGNAL, (rows.signal_row(*item) for item in enumerate(batch.signals))
            )
        notes = {**old.notes, **batch.notes}
        if notes != old.notes or self._doubtful is not None:
            connection.executemany(rows.UPSERT_NOTE, notes.items())
        connection.execute(
            "UPDATE meta SET commits = ?, books_ns = ?, clean = 0", (commits, batch.books_ns)
        )
        self.commits = commits
        self.books = replace(
            old,
            totals=MappingProxyType(totals),
            devices=MappingProxyType({**old.devices, **self._devices}),
            signals=batch.signals,
            notes=MappingProxyType(notes),
            books_ns=batch.books_ns,
            commits=commits,
            jobs=jobs,
            settled=settled,
            restatements=restatements,
        )

    def _next_sequence(self, connection: sqlite3.Connection) -> int:
        on_disk = rows.sequence(connection)
        if on_disk != self._old.commits and self._doubtful is None:
            raise LedgerError(
                "the ledger was changed by another program while the daemon had it open",
                "restart wattledger, and leave the file to it alone",
            )
        return on_disk + 1

    def _write_devices(self, connection: sqlite3.Connection) -> None:
        changed = self._devices
        if self._doubtful is not None:
            changed = {**self._old.devices, **changed}
        connection.executemany(rows.UPSERT_DEVICE, map(rows.device_row, changed.values()))

    def _write_entries(
        self,
        connection: sqlite3.Connection,
        identities: Identities,
        recent: Mapping[EntryKey, Cell],
        footprint: Footprint,
    ) -> dict[TotalKey, Amounts]:
        """Writes the entries' new amounts; returns what each total grows by."""
        doubtful, batch = self._doubtful or {}, self._batch
        work = dict.fromkeys((*doubtful, *batch.held), 0) | dict(batch.energy_uj)
        # Sums as lists of integers: with hundreds of entries, tuples made on the way are a third
        # of what a commit costs.
        increments: dict[TotalKey, list[int]] = {}
        grown: dict[Payee, dict[KindBasis, list[int]]] = {}
        upserts = []
        for key, energy_uj in work.items():
            slot_s, device, payee, quality, price = key
            place = (
                slot_s,
                identities.device(connection, device),
                identities.payee(connection, payee),
                quality,
                identities.price(connection, price),
            )
            before = (doubtful and doubtful.get(key)) or recent.get(key)
            if before is None:
                row = connection.execute(rows.SELECT_ENTRY, place).fetchone()
                before = Cell(Amounts(*row[:4]), Held(*row[4:])) if row else NOTHING
            self.before[key] = before
            old = before.amounts
            cumulative_uj = old.energy_uj + energy_uj
            priced = footprint(cumulative_uj, price)
            # No counter falls, even where a later version of the formula yields less.
            after = Amounts(
                cumulative_uj,
                max(priced.co2e_ug, old.co2e_ug),
                max(priced.water_onsite_ul, old.water_onsite_ul),
                max(priced.water_grid_ul, old.water_grid_ul),
            )
            more_held = batch.held.get(key)
            held = before.held if more_held is None else before.held.plus(more_held)
            self.entries[key] = Cell(after, held)
            upserts.append((*place, *_fitting(after, key), *held))
            more = list(map(int.__sub__, after, old))
            _add(increments, TotalKey(device, payee.kind, quality, price.basis), more)
            if payee.kind is PayeeKind.JOBS:
                cells = grown.setdefault(payee, {})
                cell = KindBasis(self._kind(device), price.basis)
                _add(cells, cell, [*more, *(more_held or _NOT_HELD)])
        connection.executemany(rows.UPSERT_ENTRY, upserts)
        self._grown = {
            payee: {
                cell: Cell(Amounts(*numbers[:4]), Held(*numbers[4:]))
                for cell, numbers in cells.items()
            }
            for payee, cells in grown.items()
        }
        return {cell: Amounts(*numbers) for cell, numbers in increments.items()}

    def _kind(self, device: str) -> Kind:
        record = self._devices.get(device) or self._old.devices[device]
        return record.info.kind

    def _write_totals(
        self,
        connection: sqlite3.Connection,
        identities: Identities,
        increments: Mapping[TotalKey, Amounts],
    ) -> dict[TotalKey, Total]:
        totals = dict(self._old.totals)
        for cell, grown in increments.items():
            old = totals.get(cell)
            if old is not None:
                totals[cell] = Total(old.amounts.plus(grown), old.first_booked_ns)
            elif grown.energy_uj:
                totals[cell] = Total(grown, self._now.wall_ns)
        changed = [cell for cell in increments if cell in totals]
        if self._doubtful is not None:
            connection.execute("DELETE FROM total")
            changed = list(totals)
        connection.executemany(
            rows.UPSERT_TOTAL,
            [
                (
                    identities.device(connection, cell.device),
                    cell.payee,
                    cell.quality,
                    cell.basis,
                    *_fitting(totals[cell].amounts, cell),
                    totals[cell].first_booked_ns,
                )
                for cell in changed
            ],
        )
        return totals


def _add(sums: dict[K, list[int]], key: K, numbers: list[int]) -> None:
    known = sums.get(key)
    sums[key] = numbers if known is None else list(map(int.__add__, known, numbers))


def _fitting(amounts: Amounts, what: object) -> Amounts:
    if max(amounts) > rows.MAX_INTEGER:
        raise OverflowError(f"more than 64 bits hold would be booked on {what}")
    return amounts


def _devices_after(books: Books, batch: Batch) -> dict[str, DeviceRecord]:
    """The records that the batch changes."""
    infos = {info.name: info for info in batch.devices}
    names = (infos, batch.unobserved_ms, batch.resets, batch.checkpoints)
    changed: dict[str, DeviceRecord] = {}
    for name in dict.fromkeys(name for group in names for name in group):
        old = books.devices.get(name)
        info = infos.get(name) or (old.info if old else None)
        if info is None:
            raise ValueError(f"{name} is not among the devices of this batch or an earlier one")
        reading = old.last_reading if old else None
        if name in batch.checkpoints:
            reading = rows.storable(batch.checkpoints[name])
        record = DeviceRecord(
            info=info,
            unobserved_ms=(old.unobserved_ms if old else 0) + batch.unobserved_ms.get(name, 0),
            resets=(old.resets if old else 0) + batch.resets.get(name, 0),
            last_reading=reading,
        )
        if record != old:
            changed[name] = record
    return changed
