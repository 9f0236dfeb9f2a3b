"""Asking a scripted server as a grid source does, with a token that must show nowhere."""

from __future__ import annotations

import pytest

from grid_server import GridServer, Script
from wattledger.errors import GridError
from wattledger.grid.client import HttpClient
from wattledger.grid.outcome import Outcome
from wattledger.grid.secret import Secret

CANARY = "canary-7f3a9c"
LOOPBACK = {"127.0.0.1", "localhost"}


def ask(server: GridServer, deadline_s: float = 5.0, **options: object) -> object:
    client = HttpClient(deadline_s=deadline_s, **options)  # type: ignore[arg-type]
    return client.get_json(
        f"{server.url}/x?zone=GB",
        allow_hosts=LOOPBACK,
        secret_headers={"auth-token": Secret(CANARY)},
    )


def outcome(script: Script, deadline_s: float = 5.0) -> GridError:
    """What a script ends in; the token is in none of it."""
    with GridServer(script) as server, pytest.raises(GridError) as caught:
        ask(server, deadline_s)
    error = caught.value
    assert error.outcome in list(Outcome)
    assert error.hint
    assert CANARY not in f"{error!s} {error!r} {error.args} {error.__cause__!r}"
    return error
