"""Requests to the application itself, by a user over the Unix socket or by a client over TCP."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import snapshots
from fakes import FakeClock
from serving import FakeDaemon, page_of
from wattledger_exporters.http import PageStore
from wattledger_exporters.http.app import App
from wattledger_exporters.http.connection import Peer
from wattledger_exporters.http.operators import SYSTEM, Directory
from wattledger_exporters.web_config import LiveWebConfig, WebConfig

ALICE, BOB, DAEMON = 1001, 1002, 900


class Asker:
    """Asks an application over a fake daemon."""

    def __init__(
        self,
        operators_group: str = "",
        directory: Directory = SYSTEM,
        web: LiveWebConfig | None = None,
    ) -> None:
        self.clock = FakeClock(snapshots.NOW_NS)
        self.daemon = FakeDaemon(snapshots.with_jobs())
        self.pages = PageStore(self.clock, 5)
        self.app = App(
            self.daemon,
            self.pages,
            self.clock,
            web,
            owner_uid=DAEMON,
            operators_group=operators_group,
            directory=directory,
        )

    def publish(self) -> None:
        """A page is rendered."""
        self.pages.publish(page_of(snapshots.with_jobs(), self.clock))

    def status(self, path: str, uid: int) -> int:
        """Of a page for people or Prometheus, asked over the Unix socket."""
        scope = {
            "path": path, "query_string": b"", "method": "GET", "headers": [],
            "state": {"peer": Peer(1, uid, uid), "has_left": lambda: False},
        }  # fmt: skip
        return asyncio.run(self.app._respond_to(scope, None)).status

    def ask(
        self,
        path: str,
        uid: int | None,
        *,
        gid: int | None = None,
        method: str = "GET",
        web: WebConfig | None = None,
        certified: bool = False,
        login: str = "",
    ) -> tuple[int, Any]:
        path, _, query = path.partition("?")
        peer = None if uid is None else Peer(1, uid, uid if gid is None else gid)
        scope = {
            "path": path,
            "query_string": query.encode(),
            "method": method,
            "headers": [(b"authorization", b"Basic " + base64.b64encode(login.encode()))],
            "state": {"peer": peer, "has_left": lambda: False, "certified": certified},
        }
        response = asyncio.run(self.app._respond_to(scope, web))
        return response.status, json.loads(response.body)
