"""The seams of this room: what the feed asks of each source, and what some can do besides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from wattledger.model import Basis, GridSignal


class Source(Protocol):
    """One provider for one zone. Used from the feed's thread only; `latest` may block.

    `zone` and `basis` are those of every signal it gives, so that a signal remembered from an
    earlier run is only taken up by the source that would give it again.
    """

    @property
    def name(self) -> str:
        """The `source` label; unique among the configured sources."""
        ...

    @property
    def zone(self) -> str:
        """The zone as the provider names it."""
        ...

    @property
    def basis(self) -> Basis:
        """What its intensities count."""
        ...

    @property
    def cadence_ns(self) -> int:
        """How often the provider publishes."""
        ...

    def latest(self, now_wall_ns: int) -> list[GridSignal]:
        """One request: the newest signals, at least one.

        Raises:
            GridError: none came; `outcome` says how it ended.
        """
        ...


@runtime_checkable
class History(Protocol):
    """A source that can be asked for the past. May block, for several requests."""

    def between(self, start_ns: int, end_ns: int, now_wall_ns: int) -> list[GridSignal]:
        """What is published by now for a span: measured where it is, else marked as estimated.

        Args:
            start_ns: wall clock.
            end_ns: wall clock, exclusive.
            now_wall_ns: wall clock; the signals' `fetched_at_ns`.

        Returns:
            Every signal that covers a part of the span, oldest first, no two from the same start.
            Gaps are gaps; an empty list is one gap.

        Raises:
            GridError: the provider could not be asked to the end.
            ValueError: the span is empty.
        """
        ...


@runtime_checkable
class Outlook(Protocol):
    """A source that publishes a forecast. May block."""

    def forecast(self, now_wall_ns: int) -> list[GridSignal]:
        """The present period and those to come, oldest first, at least one; all estimated.

        Raises:
            GridError: none came.
        """
        ...


class HistorySource(Source, History, Protocol):
    """A source that knows its past."""


@runtime_checkable
class Relay(Protocol):
    """A source that passes on what others say, under their names and on their bases.

    `Source.basis` is that of the one it prefers, once `heard`. May block.
    """

    @property
    def heard(self) -> bool:
        """Whether it is known yet what it prefers."""
        ...

    def may_give(self, source: str, zone: str, basis: Basis) -> bool:
        """Whether a signal so labelled may be one of its; never a marginal one."""
        ...

    def voices(self, now_wall_ns: int) -> Sequence[HistorySource]:
        """Those behind it that know their past, in order of preference, each by its own name.

        Raises:
            GridError: it did not say.
        """
        ...
