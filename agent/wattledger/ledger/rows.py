"""Rows and records: how the model's types lie in the tables, and the committed state at open."""

from __future__ import annotations

import sqlite3
from types import MappingProxyType

from wattledger.ledger.database import Damaged
from wattledger.ledger.restate import load_restatements
from wattledger.ledger.run_rows import load_jobs
from wattledger.ledger.settle import load_settled
from wattledger.ledger.sums_check import load_notes
from wattledger.model import (
    Amounts,
    Basis,
    Books,
    CounterReading,
    DeviceInfo,
    DeviceRecord,
    GridSignal,
    Instant,
    Kind,
    PayeeKind,
    Quality,
    Total,
    TotalKey,
)

MAX_INTEGER = 2**63 - 1  # SQLite's INTEGER

SqlValue = int | str | None

_DEVICE_COLUMNS = (
    "name, kind, meter, hardware_index, model, pci, present, unobserved_ms, resets, "
    "raw_uj, range_uj, max_power_uw, tick_ns, boot_id, driver_load, "
    "at_monotonic_ns, at_boottime_ns, at_wall_ns"
)
UPSERT_DEVICE = (
    f"INSERT INTO device ({_DEVICE_COLUMNS}) VALUES ({', '.join('?' * 18)}) "  # noqa: S608
    "ON CONFLICT (name) DO UPDATE SET "
    + ", ".join(f"{c} = excluded.{c}" for c in _DEVICE_COLUMNS.split(", ")[1:])
)
_AMOUNTS = "energy_uj, co2e_ug, water_onsite_ul, water_grid_ul"
_HELD = "held_ms, held_idle_ms, held_idle_uj"
_SET_AMOUNTS = ", ".join(f"{column} = excluded.{column}" for column in _AMOUNTS.split(", "))
# Columns are named throughout: a newer schema that this program may write can have more.
UPSERT_TOTAL = (
    f"INSERT INTO total (device_id, payee_kind, quality, basis, {_AMOUNTS}, first_booked_ns) "  # noqa: S608
    f"VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET {_SET_AMOUNTS}"
)
UPSERT_ENTRY = (
    f"INSERT INTO entry (slot_s, device_id, payee_id, quality, price_id, {_AMOUNTS}, {_HELD}) "  # noqa: S608
    f"VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET {_SET_AMOUNTS}, "
    + ", ".join(f"{column} = excluded.{column}" for column in _HELD.split(", "))
)
SELECT_ENTRY = (
    f"SELECT {_AMOUNTS}, {_HELD} FROM entry WHERE slot_s = ? "  # noqa: S608
    "AND device_id = ? AND payee_id = ? AND quality = ? AND price_id = ?"
)
INSERT_SIGNAL = (
    "INSERT INTO signal (position, intensity_ug_per_kwh, zone, source, basis, valid_from_ns, "
    "valid_to_ns, estimated, fetched_at_ns, cadence_ns, ewif_ul_per_kwh) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
UPSERT_NOTE = (
    "INSERT INTO note (name, body) VALUES (?, ?) ON CONFLICT DO UPDATE SET body = excluded.body"
)


def device_row(record: DeviceRecord) -> tuple[SqlValue, ...]:
    """A device's row for `UPSERT_DEVICE`."""
    info, last = record.info, record.last_reading
    row = (
        info.name,
        info.kind.value,
        info.meter,
        info.index,
        info.model,
        info.pci,
        int(info.present),
        record.unobserved_ms,
        record.resets,
    )
    if last is None:
        return (*row, *(None,) * 9)
    return (
        *row,
        last.raw_uj,
        last.range_uj,
        last.max_power_uw,
        last.tick_ns,
        last.boot_id,
        last.driver_load,
        *last.at,
    )


def storable(reading: CounterReading | None) -> CounterReading | None:
    """The reading, or None where it does not fit a row.

    A broken driver may show anything; a checkpoint lost costs an unobserved gap at the next
    start, a commit that can never be written costs the books.
    """
    if reading is None:
        return None
    numbers = (reading.raw_uj, reading.max_power_uw, reading.tick_ns, *reading.at)
    fits = all(-MAX_INTEGER <= number <= MAX_INTEGER for number in numbers)
    ranged = reading.range_uj is None or 0 < reading.range_uj <= MAX_INTEGER
    return reading if fits and ranged and reading.raw_uj >= 0 else None


def signal_row(position: int, signal: GridSignal) -> tuple[SqlValue, ...]:
    """A signal's row for `INSERT_SIGNAL`."""
    return (
        position,
        signal.intensity_ug_per_kwh,
        signal.zone,
        signal.source,
        signal.basis.value,
        signal.valid_from_ns,
        signal.valid_to_ns,
        int(signal.estimated),
        signal.fetched_at_ns,
        signal.cadence_ns,
        signal.ewif_ul_per_kwh,
    )


def sequence(connection: sqlite3.Connection) -> int:
    """How many commits the file holds: tells whether one reached it."""
    row = connection.execute("SELECT commits FROM meta").fetchone()
    if row is None:
        raise Damaged("the table meta is empty")
    return int(row[0])


def load(connection: sqlite3.Connection, linger_ns: int = 0) -> Books:
    """The committed state. Reads the small tables only, never the entries.

    Args:
        connection: to the ledger.
        linger_ns: how long an ended job stays among those in memory.

    Raises:
        Damaged: what must be there is not.
        ValueError: a name that this version does not know, in a newer program's ledger.
        sqlite3.Error: it could not be read.
    """
    meta = connection.execute("SELECT epoch, epoch_start_ns, books_ns, commits FROM meta")
    row = meta.fetchone()
    if row is None:
        raise Damaged("the table meta is empty")
    epoch, epoch_start_ns, books_ns, commits = row
    totals = {
        TotalKey(name, PayeeKind(payee), Quality(quality), Basis(basis)): Total(
            Amounts(*amounts), first_booked_ns
        )
        for name, payee, quality, basis, *amounts, first_booked_ns in connection.execute(
            "SELECT device.name, payee_kind, quality, basis, energy_uj, co2e_ug, water_onsite_ul, "
            "water_grid_ul, first_booked_ns FROM total JOIN device ON device.id = device_id"
        )
    }
    found = connection.execute(f"SELECT {_DEVICE_COLUMNS} FROM device ORDER BY id")  # noqa: S608
    devices = {record.info.name: record for record in map(_device, found)}
    signals = tuple(
        GridSignal(intensity, zone, source, Basis(basis), start, end, bool(guess), *rest)
        for intensity, zone, source, basis, start, end, guess, *rest in connection.execute(
            "SELECT intensity_ug_per_kwh, zone, source, basis, valid_from_ns, valid_to_ns, "
            "estimated, fetched_at_ns, cadence_ns, ewif_ul_per_kwh FROM signal ORDER BY position"
        )
    )
    return Books(
        epoch=epoch,
        epoch_start_ns=epoch_start_ns,
        totals=MappingProxyType(totals),
        devices=MappingProxyType(devices),
        signals=signals,
        notes=MappingProxyType(load_notes(connection)),
        books_ns=books_ns,
        commits=commits,
        jobs=load_jobs(connection, books_ns, linger_ns),
        settled=load_settled(connection),
        restatements=load_restatements(connection),
    )


def _device(row: tuple[str | int | None, ...]) -> DeviceRecord:
    name, kind, meter, index, model, pci, present, unobserved_ms, resets, *reading = row
    raw_uj, range_uj, max_power_uw, tick_ns, boot_id, driver_load, *at = reading
    return DeviceRecord(
        info=DeviceInfo(
            str(name), Kind(str(kind)), str(meter), str(index), str(model), str(pci), bool(present)
        ),
        unobserved_ms=_int(unobserved_ms),
        resets=_int(resets),
        last_reading=None
        if raw_uj is None
        else CounterReading(
            device=str(name),
            at=Instant(*map(_int, at)),
            raw_uj=_int(raw_uj),
            range_uj=None if range_uj is None else _int(range_uj),
            max_power_uw=_int(max_power_uw),
            tick_ns=_int(tick_ns),
            boot_id=str(boot_id),
            driver_load=str(driver_load),
        ),
    )


def _int(value: str | int | None) -> int:
    if not isinstance(value, int):
        raise Damaged(f"{value!r} stands where a number must")
    return value
