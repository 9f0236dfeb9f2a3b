"""How dirty: carbon intensity from providers, the country table, and the feed that chooses.

    provider ── client ── source ── GridSignal ─► feed.at(instant) ─► GridChoice
                                    table ───────►

A new provider is one file with one class and one row in `kinds.KINDS`.
"""

from wattledger.grid.kinds import KINDS, SourceConfig, SourceKind, build_sources, keyless

__all__ = ["KINDS", "SourceConfig", "SourceKind", "build_sources", "keyless"]
