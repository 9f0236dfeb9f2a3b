"""The last rendered page and whether it may still be served."""

from __future__ import annotations

from wattledger.ports import Clock
from wattledger.units import NS_PER_S, format_duration
from wattledger_exporters.prometheus import Page

MIN_STALE_NS = 60 * NS_PER_S
STALE_COMMITS = 3


class PageStore:
    """Holds the last page: one thread publishes, the server's thread reads.

    A page older than 60 s and than three commit intervals is not served: the counters would look
    alive while the daemon's sampling hangs.

    Attributes:
        stale_after_ns: how old a page may become.
    """

    def __init__(self, clock: Clock, commit_interval_ns: int) -> None:
        self._clock = clock
        self._page: Page | None = None
        self.stale_after_ns = max(MIN_STALE_NS, STALE_COMMITS * commit_interval_ns)

    def publish(self, page: Page) -> None:
        """From now on this page is served."""
        self._page = page

    def current(self) -> tuple[Page | None, str]:
        """The page and an empty text, or None and a sentence that says why there is none."""
        page = self._page
        if page is None:
            return None, "The daemon is starting: the first page comes with its first commit."
        hang = self.hang()
        return (None, hang) if hang else (page, "")

    def hang(self) -> str:
        """That the sampling loop hangs, as a sentence; empty: it turns, or is about to.

        A page is rendered by every turn, whether or not its commit succeeds.
        """
        page = self._page
        if page is None:
            return ""
        age_ns = self._clock.now().monotonic_ns - page.rendered_ns
        if age_ns > self.stale_after_ns:
            age = format_duration(age_ns // NS_PER_S * NS_PER_S)
            return (
                f"The last page is {age} old: the daemon's sampling hangs. Its log says why; "
                "/api/v1/status shows the last state that is known."
            )
        return ""
