"""One meter out of several that measure the same: the best that answers, now."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from wattledger.errors import MeterUnavailable
from wattledger.model import DeviceInfo, Fault, MeterReport
from wattledger.ports import Clock, Meter
from wattledger.units import NS_PER_S, seconds

_log = logging.getLogger(__name__)


class FirstOf:
    """Reads the first of its meters that answers; implements `wattledger.ports.Meter`.

    The one in use is read each turn. Better ones are asked again after the time they named, at
    the latest after `retry_ns`, and taken as soon as they bring a reading; when the one in use
    cannot read, the next is taken in the same turn. A meter left behind is closed. Devices that
    only the meter before knew stay in the report, with `present=False`.

    Each refusal is a fault of that meter (`permanent`) in the report of the turn it was asked in.

    Args:
        name: the name of the whole, for the log and the watchdog: `cpu`.
        meters: best first.
        clock: says when to ask again.
        retry_ns: how long a meter that does not answer is left alone at most.
    """

    def __init__(
        self, name: str, meters: Sequence[Meter], clock: Clock, retry_ns: int = 60 * NS_PER_S
    ) -> None:
        if not meters:
            raise ValueError("no meters to choose from")
        self.name = name
        self._meters = tuple(meters)
        self._clock = clock
        self._retry_ns = retry_ns
        self._chosen: Meter | None = None
        self._retry_at_ns: dict[str, int] = {}
        self._refused: dict[str, MeterUnavailable] = {}
        self._known: dict[str, DeviceInfo] = {}

    @property
    def active(self) -> str:
        """The name of the meter in use; empty while none answers."""
        return self._chosen.name if self._chosen is not None else ""

    @property
    def interval_ns(self) -> int:
        """The interval of the meter in use, or of the best one while none is."""
        return (self._chosen or self._meters[0]).interval_ns

    def read(self) -> MeterReport:
        """One turn of the best meter that answers.

        Raises:
            MeterUnavailable: none answers; with the reason of the last resort.
        """
        now_ns = self._clock.now().monotonic_ns
        faults: list[Fault] = []
        for meter in self._meters:
            if now_ns < self._retry_at_ns.get(meter.name, 0):
                continue
            try:
                report = meter.read()
            except MeterUnavailable as error:
                self._refuse(meter, error, now_ns)
                faults.append(
                    Fault(meter.name, error.reason, error.message, error.hint, permanent=True)
                )
                continue
            if meter is not self._chosen and report.faults and not report.readings:
                faults += report.faults  # it is there, but brings nothing yet
                self._retry_at_ns[meter.name] = now_ns + self._retry_ns
                meter.close()
                continue
            if meter is not self._chosen:
                self._switch(meter)
            return replace(
                report,
                devices=self._all_devices(report.devices),
                faults=(*faults, *report.faults),
            )
        raise self._none(now_ns)

    def close(self) -> None:
        """Close every meter; the next `read` chooses anew."""
        for meter in self._meters:
            meter.close()
        self._retry_at_ns.clear()

    def _refuse(self, meter: Meter, error: MeterUnavailable, now_ns: int) -> None:
        wait_ns = min(round(error.retry_after_s * NS_PER_S), self._retry_ns)
        self._retry_at_ns[meter.name] = now_ns + wait_ns
        self._refused[meter.name] = error

    def _switch(self, meter: Meter) -> None:
        """Take a meter, close the one before, say so in one line."""
        before = self._chosen
        if before is not None:
            before.close()
        self._chosen = meter
        self._refused.pop(meter.name, None)
        better = self._meters[: self._meters.index(meter)]
        if better:
            # That better ones were never there is a fact of the machine, which the start and
            # `doctor` tell; that one is lost is an event.
            level = logging.INFO if before is None else logging.WARNING
            why = _sentence(self._refused, better)
            _log.log(level, "%s: measuring with %s, since %s", self.name, meter.name, why)
        elif before is not None:
            _log.info("%s: measuring with %s again, which now answers", self.name, meter.name)
        else:
            _log.info("%s: measuring with %s", self.name, meter.name)

    def _all_devices(self, devices: tuple[DeviceInfo, ...]) -> tuple[DeviceInfo, ...]:
        """The active meter's devices, and those that only another meter knew, as gone."""
        here = {device.name: device for device in devices}
        if self._known.keys() != here.keys():
            for name, device in self._known.items():
                if name not in here:
                    self._known[name] = replace(device, present=False)
        self._known.update(here)
        return tuple(self._known.values())

    def _none(self, now_ns: int) -> MeterUnavailable:
        """The error for a turn in which nothing answered."""
        self._chosen = None
        last = self._refused.get(self._meters[-1].name)
        wait_ns = min(self._retry_at_ns.values()) - now_ns
        return MeterUnavailable(
            last.reason if last is not None else "no_reading",
            f"no meter of {self.name} answers: {_sentence(self._refused, self._meters)}",
            retry_after_s=seconds(wait_ns),
        )


def _sentence(refused: dict[str, MeterUnavailable], meters: Sequence[Meter]) -> str:
    """Why these meters do not answer and what to do, each with its own remedy."""
    return "; ".join(
        f"{meter.name}: {refused[meter.name]}" if meter.name in refused else f"{meter.name}: silent"
        for meter in meters
    )
