"""What single commands cost: steps folded into who pays for them, and a tally for each command.

A step is a command inside a job (`model.jobs.Survey.steps`). It has a part of its own in the usage
of a device, so that its receipt can be written; the books know its job only, and know exactly what
they would know if there were no steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import NamedTuple

from wattledger.core.attribution import attribute, largest_remainder
from wattledger.core.entries import Entries
from wattledger.core.footprint import footprint
from wattledger.core.holding import payer_of
from wattledger.model import (
    AttributedInterval,
    EnergyInterval,
    EntryKey,
    Kind,
    Payee,
    Price,
    Quality,
    Usage,
)
from wattledger.model.jobbooks import Cell
from wattledger.model.jobs import RUN, Held
from wattledger.model.receipts import GridPart, ReceiptKey
from wattledger.model.sums import NO_SUMS, Sums, sums_of
from wattledger.units import NS_PER_MS, SLOT_S, slot_of

MAX_OPEN = 20_000

Shares = tuple[tuple[Payee, int], ...]
ReceiptCells = dict[ReceiptKey, Cell]
GridWeights = dict[GridPart, int]


class Settled(NamedTuple):
    """An interval and who pays for it.

    Attributes:
        attributed: for the books: nobody in it is a step.
        usage: by what that was found.
        members: the same energy with steps apart; sums to the interval with `==`, and each payer
            with its steps to the payer's share.
        apart: the usage with steps apart.
    """

    attributed: AttributedInterval
    usage: Usage
    members: Shares
    apart: Usage


def settle(interval: EnergyInterval, usage: Usage, steps: Mapping[Payee, Payee]) -> Settled:
    """Split an interval over its payees, and what a job pays over it and its steps.

    Args:
        interval: what was measured.
        usage: who used the device, steps apart.
        steps: step → the job or the run inside which it runs.
    """
    alone = attribute(interval, usage)
    if not any(payee in steps for payee, _ in (*usage.weights, *usage.floor_weights)):
        return Settled(alone, usage, alone.shares, usage)
    folded = replace(
        usage,
        weights=_folded(usage.weights, steps),
        floor_weights=_folded(usage.floor_weights, steps),
    )
    booked = attribute(interval, folded)
    apart: dict[Payee, list[tuple[Payee, int]]] = {}
    for payee, share_uj in alone.shares:
        apart.setdefault(payer_of(payee, steps), []).append((payee, share_uj))
    members: list[tuple[Payee, int]] = []
    for payer, share_uj in booked.shares:
        # Rounded as one and as many a payer's shares differ by some µJ: the books' one holds.
        those = sorted(apart.get(payer, [(payer, 1)]))
        parts = largest_remainder(share_uj, [weight for _, weight in those])
        members += [(one, part) for (one, _), part in zip(those, parts, strict=True) if part]
    return Settled(booked, folded, tuple(members), usage)


def _folded(weights: Shares, steps: Mapping[Payee, Payee]) -> Shares:
    folded: dict[Payee, int] = {}
    for payee, weight in weights:
        payer = payer_of(payee, steps)
        folded[payer] = folded.get(payer, 0) + weight
    return tuple(folded.items())


class Tallies:
    """What each command has cost: its own shares and those of its steps.

    Entries are rounded as the ledger rounds its own. Those of slots that have passed are closed
    into the cells of a receipt, so that a tally stays small however long the command runs.
    """

    def __init__(self) -> None:
        self.entries = Entries()
        self.closed: dict[Payee, ReceiptCells] = {}
        self.closed_weights: dict[Payee, GridWeights] = {}
        self.closed_sums: dict[Payee, Sums] = {}
        self.embodied_fg: dict[Payee, int] = {}
        self.kinds: dict[str, Kind] = {}
        self._newest_s = 0

    def book(
        self,
        settled: Settled,
        kind: Kind,
        price_at: Callable[[int], Price],
        steps: Mapping[Payee, Payee],
        held: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        """Add what an interval cost each command.

        Args:
            settled: the interval and who pays.
            kind: of its device.
            price_at: the price of a slot, by its start in Unix seconds.
            steps: as for `settle`.
            held: device → what holding it weighs; see `Rates.held`.
        """
        shares = _with_inner(settled.members, steps)
        weights = _with_inner(settled.apart.weights, steps)
        if not shares and not weights:
            return
        interval = settled.attributed.interval
        self.kinds[interval.device] = kind
        usage = replace(settled.apart, weights=weights)
        if interval.device in held and interval.quality is not Quality.RECOVERED:
            fg_per_ms = held[interval.device]
            if usage.held:
                self._charge(interval, fg_per_ms, usage.weights, usage.whole)
            elif kind is Kind.CPU:  # it stands for a host without GPUs, which nobody holds
                self._charge(interval, fg_per_ms, shares, interval.energy_uj)
        self.entries.book(AttributedInterval(interval, shares), price_at, usage)
        slot_s = slot_of(interval.end_ns)
        if slot_s > self._newest_s or len(self.entries.energy_uj) > MAX_OPEN:
            self._newest_s = max(slot_s, self._newest_s)
            self._close(self._newest_s - SLOT_S)

    def _charge(self, interval: EnergyInterval, fg_per_ms: int, parts: Shares, whole: int) -> None:
        """Add to each command its part of what the device's time weighs."""
        weight_fg = (interval.end_ns - interval.start_ns) * fg_per_ms
        for payee, part in parts:
            fg = weight_fg * part // (whole * NS_PER_MS)
            self.embodied_fg[payee] = self.embodied_fg.get(payee, 0) + fg

    def decide(self, device: str, *, used: bool) -> None:
        """Whether a held device was used at all; see `Entries.decide`."""
        self.entries.decide(device, used=used)

    def cells(self, payee: Payee) -> ReceiptCells:
        """What a command has cost so far."""
        return self.sums(payee)[0]

    def sums(self, payee: Payee) -> tuple[ReceiptCells, GridWeights, Sums]:
        """What a command has cost so far, the intensities that priced it, and the sums beside."""
        cells = dict(self.closed.get(payee, {}))
        weights = dict(self.closed_weights.get(payee, {}))
        sums = self.closed_sums.get(payee, NO_SUMS)
        for key in self._keys():
            if key.payee == payee:
                sums = sums.plus(self._add(cells, weights, key))
        embodied_fg = self.embodied_fg.get(payee, 0)
        return cells, weights, sums._replace(embodied_fg=embodied_fg)

    def drop(self, payee: Payee) -> None:
        """Forget a command."""
        self.closed.pop(payee, None)
        self.closed_weights.pop(payee, None)
        self.closed_sums.pop(payee, None)
        self.embodied_fg.pop(payee, None)
        entries = self.entries
        for key in [key for key in self._keys() if key.payee == payee]:
            entries.energy_uj.pop(key, None)
            entries.held.pop(key, None)
        for waiting in entries.undecided.values():
            for key in [key for key in waiting if key.payee == payee]:
                del waiting[key]

    # ── parts ───────────────────────────────────────────────────────────────────────────────────

    def _keys(self) -> list[EntryKey]:
        return list(dict.fromkeys((*self.entries.energy_uj, *self.entries.held)))

    def _close(self, before_s: int) -> None:
        for key in self._keys():
            if key.slot_s < before_s:
                weights = self.closed_weights.setdefault(key.payee, {})
                sums = self._add(self.closed.setdefault(key.payee, {}), weights, key)
                if sums is not NO_SUMS:
                    before = self.closed_sums.get(key.payee, NO_SUMS)
                    self.closed_sums[key.payee] = before.plus(sums)
                self.entries.energy_uj.pop(key, None)
                self.entries.held.pop(key, None)

    def _add(self, cells: ReceiptCells, weights: GridWeights, key: EntryKey) -> Sums:
        """Add an entry to its cell; returns what it adds to the sums beside the cells."""
        price, held = key.price, self.entries.held.get(key)
        part = price.part
        place = ReceiptKey(self.kinds[key.device], key.quality, part)
        energy_uj = self.entries.energy_uj.get(key, 0)
        weights[part] = weights.get(part, 0) + energy_uj * price.intensity_ug_per_kwh
        cell = Cell(
            footprint(energy_uj, price),
            held.whole() if held is not None else Held(),
        )
        if place in cells:
            cell = cells[place].plus(cell)
        whole = cell.held
        if whole.idle_ms > whole.held_ms:  # a slot that was closed and booked again: its fractions
            cell = cell._replace(held=whole._replace(idle_ms=whole.held_ms))
        cells[place] = cell
        if price.cost_u_per_kwh is None and price.market_ug_per_kwh is None:
            return NO_SUMS
        return sums_of([(price, energy_uj)])


def _with_inner(values: Iterable[tuple[Payee, int]], steps: Mapping[Payee, Payee]) -> Shares:
    """For each command the sum of its own value and of those inside it; nobody else."""
    sums: dict[Payee, int] = {}
    for payee, value in values:
        one, depth = payee, 0
        while one.manager == RUN:
            sums[one] = sums.get(one, 0) + value
            outer = steps.get(one)
            if outer is None or depth > len(steps):
                break
            one, depth = outer, depth + 1
    return tuple(sums.items())
