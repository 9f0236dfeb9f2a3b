"""The sums beside the books, commit by commit: from the committed ones and what a commit adds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from wattledger.model import (
    AttributedInterval,
    Batch,
    DeviceInfo,
    EntryKey,
    Kind,
    Payee,
    PayeeKind,
    Price,
    Quality,
)
from wattledger.model.embodied import NO_RATES, Embodied, rates_of
from wattledger.model.paying import Usage
from wattledger.model.sums import NO_SUMS, NODE_NOTE, Sums, read_node, sums_of, write_node
from wattledger.units import NS_PER_MS


def added(parts: Iterable[Mapping[Kind, Sums]]) -> dict[Kind, Sums]:
    """The sum, kind by kind."""
    whole: dict[Kind, Sums] = {}
    for part in parts:
        for kind, sums in part.items():
            whole[kind] = whole.get(kind, NO_SUMS).plus(sums)
    return whole


def of_entries(
    energy_uj: Mapping[EntryKey, int], kind_of: Callable[[str], Kind]
) -> tuple[dict[Kind, Sums], dict[Payee, Sums]]:
    """What entries' increments add to the node's sums and to those of jobs' runs.

    Args:
        energy_uj: entry → µJ.
        kind_of: a device's kind by its name.
    """
    by_kind: dict[Kind, dict[Price, int]] = {}
    by_run: dict[Payee, dict[Price, int]] = {}
    for (_, device, payee, _, price), uj in energy_uj.items():
        if price.cost_u_per_kwh is None and price.market_ug_per_kwh is None:
            continue
        prices = by_kind.setdefault(kind_of(device), {})
        prices[price] = prices.get(price, 0) + uj
        if payee.kind is PayeeKind.JOBS:
            prices = by_run.setdefault(payee, {})
            prices[price] = prices.get(price, 0) + uj
    return (
        {kind: sums_of(prices.items()) for kind, prices in by_kind.items()},
        {payee: sums_of(prices.items()) for payee, prices in by_run.items()},
    )


class Summing:
    """Adds to the sums what each commit brings. Pure: time comes with the calls.

    Prices need no memory here: what is added follows from the batch, and a batch that could not be
    written comes again as a whole. The time that hardware was there, and what jobs bear of it, is
    weighed as it passes and kept until it is written: a reload changes nothing of it.
    """

    def __init__(self, embodied: Embodied, boottime_ns: int) -> None:
        """Args: embodied: what is known of the hardware. boottime_ns: when the time begins."""
        self._embodied = embodied
        self._devices: tuple[DeviceInfo, ...] = ()
        self.rates = NO_RATES
        self._until_ms = boottime_ns // NS_PER_MS
        self._gpu_fg = 0
        self._host_fg = 0
        self._borne_fg: dict[Payee, int] = {}

    def see(self, devices: tuple[DeviceInfo, ...], boottime_ns: int) -> None:
        """The time up to now has passed for the devices before; these are there from now on."""
        if devices != self._devices:
            self._pass_time(boottime_ns)
            self._devices = devices
            self.rates = rates_of(self._embodied, devices)

    def reconfigure(self, embodied: Embodied, boottime_ns: int) -> None:
        """From now on this is known of the hardware."""
        self._pass_time(boottime_ns)
        self._embodied = embodied
        self.rates = rates_of(embodied, self._devices)

    def charge(self, attributed: AttributedInterval, usage: Usage, kind: Kind) -> None:
        """What jobs bear of an interval: by the part of a GPU that they held.

        Without GPUs, by the energy of each CPU. Time that no daemon saw is nobody's, as it is not
        in the node's sums.

        Args:
            attributed: the interval and who pays.
            usage: who held the device.
            kind: of it.
        """
        interval = attributed.interval
        fg_per_ms = self.rates.held.get(interval.device)
        if not fg_per_ms or interval.quality is Quality.RECOVERED:
            return
        if usage.held:
            parts, whole = usage.weights, usage.whole
        elif kind is Kind.CPU and interval.energy_uj:
            parts, whole = attributed.shares, interval.energy_uj
        else:
            return
        weight_fg, whole = (interval.end_ns - interval.start_ns) * fg_per_ms, whole * NS_PER_MS
        borne_fg = self._borne_fg
        for payee, part in parts:
            if part and payee.kind is PayeeKind.JOBS:
                borne_fg[payee] = borne_fg.get(payee, 0) + weight_fg * part // whole

    def complete(self, batch: Batch, committed: Mapping[str, str], boottime_ns: int) -> Batch:
        """A batch with its sums.

        Args:
            batch: what a commit is to write.
            committed: the notes of the committed books.
            boottime_ns: now.
        """
        self._pass_time(boottime_ns)
        kinds = {info.name: info.kind for info in batch.devices}

        def kind_of(device: str) -> Kind:
            return kinds.get(device, Kind.OTHER)

        node, runs = of_entries(batch.energy_uj, kind_of)
        for payee, fg in self._borne_fg.items():
            runs[payee] = runs.get(payee, NO_SUMS).plus(Sums(embodied_fg=fg))
        time = {
            Kind.GPU: Sums(embodied_fg=self._gpu_fg),
            Kind.OTHER: Sums(embodied_fg=self._host_fg),
        }
        note = write_node(added((read_node(committed), node, time)))
        notes = {**batch.notes, NODE_NOTE: note} if note else batch.notes
        return replace(batch, sums=runs, notes=notes)

    def committed(self) -> None:
        """The last batch is written."""
        self._gpu_fg = self._host_fg = 0
        self._borne_fg.clear()

    def _pass_time(self, boottime_ns: int) -> None:
        now_ms = boottime_ns // NS_PER_MS
        passed_ms, self._until_ms = max(0, now_ms - self._until_ms), now_ms
        self._gpu_fg += passed_ms * sum(self.rates.gpus.values())
        self._host_fg += passed_ms * (self.rates.host or 0)
