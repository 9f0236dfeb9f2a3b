"""The web configuration: whether it is in force, what is to be mended, how long it lasts."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from wattledger.config import Config
from wattledger.doctor.finding import Finding
from wattledger.errors import ConfigError, ListenError
from wattledger_exporters.when import iso

_LASTS = timedelta(days=7)


def of_status(status: Mapping[str, Any]) -> Iterator[Finding]:
    """As the daemon tells."""
    web = status.get("web")  # an older daemon does not tell
    if not web:
        return
    if web["message"]:
        said = f"the web configuration has faults, the one before is in force: {web['message']}"
        yield Finding("web", "problem", said, "mend the file; it is read again by itself")
    for concern in web.get("concerns", ()):  # an older daemon does not tell them
        yield Finding("web", "problem", concern["message"], concern["hint"])
    yield from _certificate(web["certificate_until"], status["now"])


def of_config(config: Config) -> Iterator[Finding]:
    """As the file is now, for a daemon that is not running."""
    if not config.http.web_config:
        yield from _open_port(config)
        return
    from wattledger_exporters.web_config import load_web_config

    path = Path(config.http.web_config)
    try:
        web = load_web_config(path)
    except ConfigError as error:
        # Keys are for the daemon's user only, as they should be: nothing is said of the file then.
        hidden = "Permission denied" in error.message
        hint = "run doctor as root, or as the daemon's user" if hidden else error.hint
        yield Finding("web", "note" if hidden else "problem", error.message, hint)
        return
    for concern in web.concerns:
        yield Finding("web", "problem", concern.message, concern.hint)
    if not web.asks_who:
        yield from _open_port(config)
    yield from _certificate(iso(web.certificate_until_ns), iso(time.time_ns()))


def _open_port(config: Config) -> Iterator[Finding]:
    """Where the settings would have a daemon listen that asks nobody who comes."""
    from wattledger_exporters.http.listeners import parse_listen, resolve
    from wattledger_exporters.web_concerns import OF_A_NODE, beyond_loopback, open_port

    try:
        host, port = parse_listen(config.http.listen)
        address = resolve(host or "::", port)[1][0]
    except ListenError:
        return  # nor does a daemon start that is to listen there
    if beyond_loopback(address):
        path = Path(config.http.web_config) if config.http.web_config else None
        yield Finding("web", "problem", *open_port(address, port, OF_A_NODE, path))


def _certificate(until: str | None, now: str | None) -> Iterator[Finding]:
    if until is None or now is None:
        return
    left = datetime.fromisoformat(until) - datetime.fromisoformat(now)
    if left >= _LASTS:
        yield Finding("web", "ok", f"the server's TLS certificate ends at {until}")
        return
    ends = "has ended" if left <= timedelta() else "ends"
    said = f"the server's TLS certificate {ends} at {until}"
    yield Finding("web", "problem", said, "put a new one in its place; no restart is needed")
