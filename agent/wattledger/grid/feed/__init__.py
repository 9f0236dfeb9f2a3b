"""The feed: which intensity to price an instant with."""

from wattledger.grid.feed.asked import HISTORY, RELAY_SHARES, REMEMBERED
from wattledger.grid.feed.feed import MARGINAL, Behind, Feed

__all__ = ["HISTORY", "MARGINAL", "RELAY_SHARES", "REMEMBERED", "Behind", "Feed"]
