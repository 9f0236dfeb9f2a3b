"""Conditional requests: what a server marked is sent again only where it has changed.

RFC 9110, section 13.1: a reply's ETag and Last-Modified go back as If-None-Match and
If-Modified-Since, and 304 says that the body that is kept here still holds.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from typing import NamedTuple

MOST_REPLIES = 8
MOST_BYTES = 32 * 1024  # of one body; a longer one is fetched whole each time
_ETAG = re.compile(r'(W/)?"[\x21\x23-\x7e]{0,256}"')
_DATE = re.compile(r"[A-Za-z0-9,: +-]{1,64}", re.ASCII)


class _Kept(NamedTuple):
    etag: str
    last_modified: str
    body: bytes


class Validators:
    """The newest few replies that carried a validator. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, _Kept] = OrderedDict()

    def condition(self, url: str) -> tuple[dict[str, str], bytes | None]:
        """The headers that make a request conditional, and the body that 304 stands for."""
        with self._lock:
            kept = self._kept.get(url)
            if kept is None:
                return {}, None
            self._kept.move_to_end(url)
        headers = {"If-None-Match": kept.etag, "If-Modified-Since": kept.last_modified}
        return {name: value for name, value in headers.items() if value}, kept.body

    def keep(self, url: str, etag: str, last_modified: str, body: bytes) -> None:
        """Take up a whole reply; one without a usable validator replaces nothing but its own."""
        etag = etag if _ETAG.fullmatch(etag) else ""
        last_modified = last_modified if _DATE.fullmatch(last_modified) else ""
        with self._lock:
            self._kept.pop(url, None)
            if (etag or last_modified) and len(body) <= MOST_BYTES:
                self._kept[url] = _Kept(etag, last_modified, body)
                if len(self._kept) > MOST_REPLIES:
                    self._kept.popitem(last=False)

    def forget(self, url: str) -> None:
        """The body was of no use: the next request fetches it whole."""
        with self._lock:
            self._kept.pop(url, None)
