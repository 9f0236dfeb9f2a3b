"""The feed: which intensity to price an instant with."""

from wattledger.grid.feed.asked import HISTORY, REMEMBERED
from wattledger.grid.feed.feed import MARGINAL, Feed

__all__ = ["HISTORY", "MARGINAL", "REMEMBERED", "Feed"]
