"""The seam of this room: what the feed asks of each source."""

from __future__ import annotations

from typing import Protocol

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
