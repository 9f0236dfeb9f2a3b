"""`wattledger grid serve`: one relay from its settings, its life from start to end."""

from __future__ import annotations

import argparse
import contextlib
import logging
import resource
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from wattledger.clock import SystemClock
from wattledger.config import Config, load_config
from wattledger.config.check import check_tokens
from wattledger.errors import ConfigError
from wattledger.ports import Clock
from wattledger.relay.app import WAIT_S, RelayApp
from wattledger.relay.memory import Memory, memory_path
from wattledger.relay.places import Place, places_of
from wattledger.systemd import Notifier, Signals
from wattledger_exporters.http import Server
from wattledger_exporters.http.connection import Limits

log = logging.getLogger(__name__)

MOST_CONNECTIONS = 4_096
_OWN_DESCRIPTORS = 128
_FIRST_S = 11.0  # a request's deadline and some
_ALIVE_S = 10.0
_END_S = 1.0


class Relay:
    """A relay that has not started.

    Args:
        places: its zones.
        clock: time.
        listen: `host:port`.
        web_config: as of the daemon; None: plain HTTP without passwords.
        connections: at the same time.
        wait_s: how long an answer may wait for a source.
    """

    def __init__(
        self,
        places: Mapping[str, Place],
        clock: Clock,
        *,
        listen: str,
        web_config: Path | None = None,
        connections: int = MOST_CONNECTIONS,
        wait_s: float = WAIT_S,
    ) -> None:
        self._places = places
        self._server = Server(
            lambda web: RelayApp(places, clock, web, wait_s),
            listen=listen,
            web_config=web_config,
            limits=Limits(connections=connections),
            shows="its zones' intensities",
        )

    @property
    def url(self) -> str:
        """Where it listens."""
        return self._server.url

    def start(self, first_s: float = _FIRST_S) -> None:
        """Listen, then ask each zone's source that is due, waiting for so long at the most.

        Raises:
            ConfigError: the web configuration has faults.
            ListenError: the address cannot be listened on.
        """
        # Who cannot listen asks nobody: a service is started again and again.
        self._server.start()
        for place in self._places.values():
            place.start()
        deadline = time.monotonic() + first_s
        for place in self._places.values():
            place.wait_for_first(max(0.0, deadline - time.monotonic()))

    def answers(self, timeout_s: float) -> bool:
        """Whether requests are answered."""
        return self._server.answers(timeout_s)

    def stop(self) -> None:
        """End; nothing that hangs is waited for."""
        for place in self._places.values():
            place.stop()
        self._server.stop(_END_S)


def serve_command(options: argparse.Namespace, configure_log: Callable[[str], None]) -> int:
    """Serve until SIGTERM; the exit code.

    Args:
        options: the command line's.
        configure_log: sets the log up at a level.

    Raises:
        ConfigError: the settings, a token's file or the web configuration have faults.
        ListenError: the address cannot be listened on.
    """
    config = load_config(options.config)
    check_tokens(config)
    configure_log(config.log.level)
    stop = threading.Event()
    signals = Signals(
        {
            signal.SIGTERM: stop.set,
            signal.SIGINT: stop.set,
            # Nothing is lost by a restart, so nothing is read again.
            signal.SIGHUP: lambda: log.warning("SIGHUP: other settings need a restart"),
        }
    )
    clock = SystemClock()
    places = places_of(config, clock, Memory(memory_path(), clock))
    relay = Relay(
        places,
        clock,
        listen=_listen(options.listen),
        web_config=_web_config(config),
        connections=_connections(),
    )
    signals.start()
    notifier = Notifier()
    relay.start()
    zones = ", ".join(sorted(places))
    log.info("passing on the grid signals of %s at %s", zones, relay.url)
    notifier.ready(f"relaying {zones}")
    answering = True
    while not stop.wait(_ALIVE_S):
        before, answering = answering, relay.answers(_ALIVE_S)
        if answering:
            notifier.alive()
        elif before:
            log.error("requests are not answered: the watchdog is not fed")
    notifier.stopping()
    relay.stop()
    log.info("the relay has ended")
    return 0


def _listen(text: str) -> str:
    from wattledger.config.load import parse_listen

    try:
        return parse_listen(text)
    except ValueError as error:
        raise ConfigError([("--listen", str(error))]) from error


def _web_config(config: Config) -> Path | None:
    return Path(config.http.web_config) if config.http.web_config else None


def _connections() -> int:
    """How many clients there may be at a time; the soft limit of descriptors is raised to that."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_CONNECTIONS + _OWN_DESCRIPTORS
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            soft = most
    if soft == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return max(16, min(MOST_CONNECTIONS, soft - _OWN_DESCRIPTORS))
