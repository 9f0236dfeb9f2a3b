"""Faults of a source: kept bounded, logged when they come and when they go."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from wattledger.model import Fault

_AT_MOST = 32

_log = logging.getLogger(__name__)


class FaultLog:
    """The faults of a source's last turn.

    Args:
        source: the source's name.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self.now: tuple[Fault, ...] = ()

    def replace(self, faults: Iterable[Fault]) -> None:
        """Take the faults of this turn; log those that are new and those that are gone."""
        fresh = {(fault.reason, fault.message): fault for fault in faults}
        kept = tuple(fresh.values())[:_AT_MOST]
        if kept == self.now:
            return
        before = {(fault.reason, fault.message) for fault in self.now}
        after = {(fault.reason, fault.message) for fault in kept}
        for fault in kept:
            if (fault.reason, fault.message) not in before:
                _log.warning("%s: %s%s", self._source, fault.message, _remedy(fault))
        for fault in self.now:
            if (fault.reason, fault.message) not in after:
                _log.info("%s: no longer: %s", self._source, fault.message)
        self.now = kept


def _remedy(fault: Fault) -> str:
    return f"; {fault.hint}" if fault.hint else ""
