"""Signals of the past as integers: 40 bytes each, and as they are told while that is kept."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator, Sequence

from wattledger.grid.relay_reply import Voice, signals_fields
from wattledger.grid.source import Source
from wattledger.model import GridSignal

_WIDTH = 5  # from, to, µg/kWh, µL/kWh (-1: not known), estimated


class Rows:
    """Signals of one source that were fetched together, oldest first.

    Args:
        source: whose.
        signals: which.
        fetched_ns: wall clock, when.
    """

    __slots__ = ("_numbers", "_source", "_told", "fetched_ns")

    def __init__(self, source: Source, signals: Iterable[GridSignal], fetched_ns: int) -> None:
        self._source = source
        self.fetched_ns = fetched_ns
        self._told: list[bytes] | None = None
        numbers = array("q")
        for one in signals:
            ewif_ul = -1 if one.ewif_ul_per_kwh is None else one.ewif_ul_per_kwh
            numbers.extend(
                (
                    one.valid_from_ns,
                    one.valid_to_ns,
                    one.intensity_ug_per_kwh,
                    ewif_ul,
                    one.estimated,
                )
            )
        self._numbers = numbers

    def __len__(self) -> int:
        return len(self._numbers) // _WIDTH

    def within(self, start_ns: int, end_ns: int) -> Iterator[tuple[int, int]]:
        """Those that are valid for a part of a span: when each begins, and its place."""
        starts, ends = self._numbers[0::_WIDTH], self._numbers[1::_WIDTH]
        for place, (from_ns, to_ns) in enumerate(zip(starts, ends, strict=True)):
            if from_ns < end_ns and to_ns > start_ns:
                yield from_ns, place

    def signal(self, place: int) -> GridSignal:
        """One of them."""
        source = self._source
        from_ns, to_ns, intensity_ug, ewif_ul, estimated = self._numbers[
            place * _WIDTH : (place + 1) * _WIDTH
        ]
        return GridSignal(
            intensity_ug_per_kwh=intensity_ug,
            zone=source.zone,
            source=source.name,
            basis=source.basis,
            valid_from_ns=from_ns,
            valid_to_ns=to_ns,
            estimated=bool(estimated),
            fetched_at_ns=self.fetched_ns,
            cadence_ns=source.cadence_ns,
            ewif_ul_per_kwh=None if ewif_ul < 0 else ewif_ul,
        )

    def told(self) -> Sequence[bytes]:
        """Each as JSON. Kept until `hush`."""
        told = self._told
        if told is None:
            source = self._source
            voice = Voice(source.name, source.basis, source.cadence_ns, False, False)
            signals = map(self.signal, range(len(self)))
            rows = signals_fields(source.zone, voice, signals)["signals"]
            told = self._told = [json.dumps(row, separators=(",", ":")).encode() for row in rows]
        return told

    def hush(self) -> None:
        """Give the memory of what was told back."""
        self._told = None

    @property
    def is_told(self) -> bool:
        """Whether it is kept as JSON."""
        return self._told is not None
