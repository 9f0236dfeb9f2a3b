"""The sums beside the books, commit by commit: from the committed ones and what a commit adds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from wattledger.model import Batch, DeviceInfo, EntryKey, Kind, Payee, PayeeKind, Price, Quality
from wattledger.model.embodied import NO_RATES, Embodied, rates_of
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
    written comes again as a whole. The time that hardware was there is kept until it is written.
    """

    def __init__(self, embodied: Embodied, boottime_ns: int) -> None:
        """Args: embodied: what is known of the hardware. boottime_ns: when the time begins."""
        self._embodied = embodied
        self._devices: tuple[DeviceInfo, ...] = ()
        self.rates = NO_RATES
        self._until_ms = boottime_ns // NS_PER_MS
        self._gpu_fg = 0
        self._host_fg = 0

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
        for payee, fg in self._charged(batch, kind_of).items():
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

    def _pass_time(self, boottime_ns: int) -> None:
        now_ms = boottime_ns // NS_PER_MS
        passed_ms, self._until_ms = max(0, now_ms - self._until_ms), now_ms
        self._gpu_fg += passed_ms * sum(self.rates.gpus.values())
        self._host_fg += passed_ms * (self.rates.host or 0)

    def _charged(self, batch: Batch, kind_of: Callable[[str], Kind]) -> dict[Payee, int]:
        """What jobs bear: by the time that they held GPUs; without GPUs, by the CPUs' energy.

        Time that no daemon saw is nobody's, as it is not in the node's sums.
        """
        charged: dict[Payee, int] = {}
        held = self.rates.held
        if not held:
            return charged
        for key, time in batch.held.items():
            fg = held.get(key.device, 0) * time.held_ms
            if fg and key.payee.kind is PayeeKind.JOBS and key.quality is not Quality.RECOVERED:
                charged[key.payee] = charged.get(key.payee, 0) + fg
        if self._host_fg and all(kind_of(device) is Kind.CPU for device in held):
            whole_uj, by_run = 0, dict[Payee, int]()
            for key, uj in batch.energy_uj.items():
                if key.device in held and key.quality is not Quality.RECOVERED:
                    whole_uj += uj
                    if key.payee.kind is PayeeKind.JOBS:
                        by_run[key.payee] = by_run.get(key.payee, 0) + uj
            for payee, uj in by_run.items():
                charged[payee] = charged.get(payee, 0) + self._host_fg * uj // whole_uj
        return charged
