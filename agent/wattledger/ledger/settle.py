"""Corrections in the tables: beside the entries, which stay as they were booked.

    final price = the booked one ∘ what its source published since ∘ what was restated

What is written for an entry is absolute, and the sums grow by what the rows change: within one
transaction, so that the same correction written again changes nothing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from wattledger.model import Amounts, Basis, FallbackLevel, PayeeKind, Price
from wattledger.model.restating import Restatement, Stale, factors_at, restated_price
from wattledger.model.settling import (
    HistoryVersion,
    PricedSlot,
    Settled,
    SettledBy,
    Settlement,
)

Footprint = Callable[[int, Price], Amounts]
PriceId = Callable[[Price], int]


class Correction(NamedTuple):
    """What is known better of an entry: the columns of `settled` after its key.

    Attributes:
        settled_price_id: what was published since; that of the books where nothing was.
        final_price_id: that, with what was restated.
        energy_uj: the energy it is about: that of the entry, as it was then.
        settled_uj: of it, what was published; all or nothing, but for hours.
        restated_uj: of it, what was restated; likewise.
        co2e_diff_ug: floor(energy at the final price) − floor(energy at the booked one).
        co2e_taken_ug: of another basis: that at the booked one, which the other basis gives up.
        water_grid_diff_ul: as the CO2e.
        water_onsite_diff_ul: as the CO2e.
    """

    settled_price_id: int
    final_price_id: int
    energy_uj: int
    settled_uj: int
    restated_uj: int
    co2e_diff_ug: int
    co2e_taken_ug: int
    water_grid_diff_ul: int
    water_onsite_diff_ul: int


SUM_COLUMNS = (
    "settled_uj, co2e_diff_ug, water_grid_diff_ul, water_onsite_diff_ul, restated_uj, moved_uj"
)
"""Of the tables of sums, in the order of `Settled`."""
COLUMNS = ", ".join(Correction._fields)
SAME_ENTRY = (
    "settled.slot_s = entry.slot_s AND settled.device_id = entry.device_id "
    "AND settled.payee_id = entry.payee_id AND settled.quality = entry.quality "
    "AND settled.price_id = entry.price_id"
)
_KNOWN = ", ".join(f"settled.{column}" for column in Correction._fields)
_ENTRIES = f"""
SELECT entry.device_id, entry.payee_id, payee.kind, entry.quality, entry.price_id, entry.energy_uj,
       {_KNOWN}
FROM entry JOIN payee ON payee.id = entry.payee_id LEFT JOIN settled ON {SAME_ENTRY}
WHERE entry.slot_s = ? AND entry.payee_id % ? = ?
"""  # noqa: S608
_UPSERT = (
    f"INSERT OR REPLACE INTO settled (slot_s, device_id, payee_id, quality, price_id, {COLUMNS}) "  # noqa: S608
    f"VALUES ({', '.join('?' * (5 + len(Correction._fields)))})"
)
_HISTORY = ", ".join(HistoryVersion._fields)
_PRICED = f"""
SELECT entry.slot_s, entry.price_id, sum(entry.energy_uj),
       iif(min(settled.energy_uj IS entry.energy_uj AND settled.settled_uj IS entry.energy_uj)
           AND min(settled.settled_price_id) = max(settled.settled_price_id),
           min(settled.settled_price_id), NULL),
       count(*)
FROM entry LEFT JOIN settled ON {SAME_ENTRY}
WHERE entry.slot_s >= ? AND entry.slot_s < ? GROUP BY 1, 2 ORDER BY 1, 2
"""  # noqa: S608


class Corrector:
    """Writes corrections within one transaction; the sums come with `finish`."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        price_id: PriceId,
        footprint: Footprint,
        restatements: Sequence[Restatement],
    ) -> None:
        """Args: restatements: those in force, in the order in which they were made."""
        self.connection = connection
        self._price_id = price_id
        self._footprint = footprint
        self._restatements = restatements
        self._prices: dict[int, Price] = {}
        self._nodes: dict[Basis, Settled] = {}
        self._runs: dict[tuple[int, Basis], Settled] = {}

    def settle(self, one: Settlement) -> None:
        """Prices the entries of a slot anew, with what is restated there.

        Entries that are gone (rolled up) stay as they are; those settled at that price already,
        too.

        Raises:
            ValueError: it changes what none may; see `check_settlement`.
        """
        check_settlement(one)
        booked_id, settled_id = self._price_id(one.price), self._price_id(one.settled)
        found = self.connection.execute(
            _ENTRIES + " AND entry.price_id = ?", (one.slot_s, one.parts, one.part, booked_id)
        ).fetchall()
        rows = [
            change
            for row in found
            if (change := self._corrected(one.slot_s, row, settled_id)) is not None
        ]
        if rows:
            self.connection.executemany(_UPSERT, rows)
            self.connection.execute(
                "INSERT OR IGNORE INTO settled_slot VALUES (?, ?, ?, ?)",
                (one.slot_s, booked_id, _history_id(self.connection, one.history), settled_id),
            )

    def restate_slot(self, place: Stale) -> None:
        """Brings the entries of a slot to what is restated there."""
        key = place.start_s, place.parts, place.part
        found = self.connection.execute(_ENTRIES, key).fetchall()
        changes = (self._corrected(place.start_s, row, None) for row in found)
        self.connection.executemany(_UPSERT, [change for change in changes if change is not None])

    def _corrected(
        self, slot_s: int, row: tuple[Any, ...], settled_id: int | None
    ) -> tuple[int | str, ...] | None:
        """The row that an entry's correction becomes; None: it stays as it is.

        Args:
            slot_s: Unix seconds.
            row: of `_ENTRIES`.
            settled_id: the price published since; None: as known before.
        """
        device, payee, kind, quality, booked_id, energy_uj = row[:6]
        before = None if row[6] is None else Correction(*row[6:])
        published = settled_id is not None or (before is not None and before.settled_uj > 0)
        if settled_id is None:
            settled_id = booked_id if before is None else before.settled_price_id
        final_id = self.final_id(slot_s, settled_id)
        if before is None and not published and final_id == booked_id:
            return None
        settled_uj = energy_uj if published else 0
        after = self.correction(booked_id, settled_id, final_id, energy_uj, settled_uj)
        if before == after:
            return None
        self.grow(payee, kind, booked_id, before, after)
        return (slot_s, device, payee, quality, booked_id, *after)

    def final_id(self, at_s: int, settled_id: int) -> int:
        """The price that is final for what is settled at a price, at an instant."""
        factors = factors_at(at_s, self._restatements)
        if not factors:
            return settled_id
        return self._price_id(restated_price(self.price(settled_id), factors))

    def correction(
        self, booked_id: int, settled_id: int, final_id: int, energy_uj: int, settled_uj: int
    ) -> Correction:
        """What a final price changes of an energy."""
        booked, final = self.price(booked_id), self.price(final_id)
        return correction(
            (booked_id, booked),
            settled_id,
            (final_id, final),
            energy_uj,
            settled_uj,
            self._footprint,
        )

    def grow(
        self,
        payee: int,
        kind: str,
        booked_id: int,
        before: Correction | None,
        after: Correction | None,
    ) -> None:
        """Counts a changed correction in the sums; None: there is none."""
        for sign, one in ((Settled.less, before), (Settled.plus, after)):
            if one is None:
                continue
            bases = self.price(booked_id).basis, self.price(one.final_price_id).basis
            for basis, part in shares(*bases, one):
                self._nodes[basis] = sign(self._nodes.get(basis, Settled()), part)
                if kind == PayeeKind.JOBS:
                    key = payee, basis
                    self._runs[key] = sign(self._runs.get(key, Settled()), part)

    def price(self, price_id: int) -> Price:
        """A price by its row."""
        if price_id not in self._prices:
            self._prices[price_id] = load_price(self.connection, price_id)
        return self._prices[price_id]

    def finish(self) -> None:
        """Writes what the sums have become; absolute, since a part may fall."""
        nodes = load_settled(self.connection)
        self.connection.executemany(
            f"INSERT OR REPLACE INTO settled_total (basis, {SUM_COLUMNS}) "  # noqa: S608
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            [(b, *nodes.get(b, Settled()).plus(grown)) for b, grown in self._nodes.items()],
        )
        for (payee, basis), grown in self._runs.items():
            row = self.connection.execute(
                f"SELECT {SUM_COLUMNS} FROM settled_run WHERE (payee_id, basis) = (?, ?)",  # noqa: S608
                (payee, basis),
            ).fetchone()
            self.connection.execute(
                f"INSERT OR REPLACE INTO settled_run (payee_id, basis, {SUM_COLUMNS}) "  # noqa: S608
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (payee, basis, *Settled(*(row or ())).plus(grown)),
            )


def shares(booked: Basis, final: Basis, one: Correction) -> Iterator[tuple[Basis, Settled]]:
    """What a correction changes of each basis."""
    waters = one.water_grid_diff_ul, one.water_onsite_diff_ul
    moved_uj = 0
    if booked is not final:
        moved_uj = one.energy_uj
        yield booked, Settled(co2e_ug=-one.co2e_taken_ug, moved_uj=-moved_uj)
    co2e_ug = one.co2e_diff_ug + one.co2e_taken_ug
    yield final, Settled(one.settled_uj, co2e_ug, *waters, one.restated_uj, moved_uj)


def correction(
    booked: tuple[int, Price],
    settled_id: int,
    final: tuple[int, Price],
    energy_uj: int,
    settled_uj: int,
    footprint: Footprint,
) -> Correction:
    """What a final price changes of an energy: the differences of the floors.

    Args:
        booked: the price of the books, and its row.
        settled_id: the row of the one that was published since.
        final: the final price, and its row.
        energy_uj: in µJ.
        settled_uj: how much of it was published.
        footprint: as handed to `open_ledger`.
    """
    before, after = footprint(energy_uj, booked[1]), footprint(energy_uj, final[1])
    return Correction(
        settled_id,
        final[0],
        energy_uj,
        settled_uj,
        energy_uj if final[0] != settled_id else 0,
        after.co2e_ug - before.co2e_ug,
        before.co2e_ug if final[1].basis is not booked[1].basis else 0,
        after.water_grid_ul - before.water_grid_ul,
        after.water_onsite_ul - before.water_onsite_ul,
    )


def check_settlement(one: Settlement) -> None:
    """Sees that a settlement changes only what one may.

    Raises:
        ValueError: it changes PUE or WUE, the EWIF of a site that names its own, or the basis of
            what a source priced.
    """
    for name in fixed_factors(one.price):
        if getattr(one.price, name) != getattr(one.settled, name):
            raise ValueError(f"a settlement of slot {one.slot_s} would change {name}")
    if one.settled.basis is Basis.MARGINAL:
        raise ValueError(f"a settlement of slot {one.slot_s} would be marginal")


def fixed_factors(booked: Price) -> tuple[str, ...]:
    """What a settlement may not change of a price.

    The basis may change where no source priced it, but the table: it is settled by the source that
    the table stood in for.
    """
    basis = () if booked.level == FallbackLevel.TABLE else ("basis",)
    ewif = ("ewif_ul_per_kwh", "ewif_source") if booked.ewif_source == "config" else ()
    return ("pue_ppm", "wue_ul_per_kwh", *basis, *ewif)


def _history_id(connection: sqlite3.Connection, history: HistoryVersion) -> int:
    places = ", ".join("?" * len(history))
    find = f"SELECT id FROM history WHERE ({_HISTORY}) = ({places})"  # noqa: S608
    row = connection.execute(find, history).fetchone()
    if row is None:
        insert = f"INSERT INTO history ({_HISTORY}) VALUES ({places})"  # noqa: S608
        return connection.execute(insert, history).lastrowid or 0
    return int(row[0])


def load_settled(connection: sqlite3.Connection) -> SettledBy:
    """What is known better since the epoch, by what the intensities count."""
    found = connection.execute(f"SELECT basis, {SUM_COLUMNS} FROM settled_total")  # noqa: S608
    return MappingProxyType({Basis(basis): Settled(*numbers) for basis, *numbers in found})


def load_price(connection: sqlite3.Connection, price_id: int) -> Price:
    """A price by its row."""
    columns = ", ".join(Price._fields)
    row = connection.execute(
        f"SELECT {columns} FROM price WHERE id = ?",  # noqa: S608
        (price_id,),
    ).fetchone()
    return Price(*row)._replace(basis=Basis(row[3]), estimated=bool(row[4]))


def load_prices(connection: sqlite3.Connection) -> dict[int, Price]:
    """Every price by its row."""
    columns = ", ".join(Price._fields)
    return {
        row[0]: Price(*row[1:])._replace(basis=Basis(row[4]), estimated=bool(row[5]))
        for row in connection.execute(f"SELECT id, {columns} FROM price")  # noqa: S608
    }


def priced_slots(connection: sqlite3.Connection, since_s: int, until_s: int) -> list[PricedSlot]:
    """What the slots that begin in [since, until) were priced with; hours are left out.

    Raises:
        sqlite3.Error: the ledger cannot be read.
    """
    prices: dict[int, Price] = {}

    def price(price_id: int) -> Price:
        if price_id not in prices:
            prices[price_id] = load_price(connection, price_id)
        return prices[price_id]

    return [
        PricedSlot(
            slot_s, price(booked), energy_uj, None if settled is None else price(settled), entries
        )
        for slot_s, booked, energy_uj, settled, entries in connection.execute(
            _PRICED, (since_s, until_s)
        )
    ]
