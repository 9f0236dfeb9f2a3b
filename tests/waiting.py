"""Waiting for what another thread or process brings about."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def wait_until(
    condition: Callable[[], Any], timeout_s: float = 60.0, what: str = "", pause_s: float = 0.05
) -> Any:
    """The first true value of a condition; fails the test when there is none in time."""
    deadline = time.monotonic() + timeout_s
    while True:
        if value := condition():
            return value
        assert time.monotonic() < deadline, f"did not happen in {timeout_s} s: {what or condition}"
        time.sleep(pause_s)
