"""An OTLP receiver on loopback that decodes what it gets and answers as it is told to."""

from __future__ import annotations

import gzip
import ssl
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)

LOGS, METRICS = "/v1/logs", "/v1/metrics"
PROTOBUF = "application/x-protobuf"


class Said(NamedTuple):
    """What a receiver answers.

    `drip_s`: the body comes byte by byte, one each so many seconds, without end.
    """

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = {"content-type": PROTOBUF}  # noqa: RUF012  (never changed)
    drip_s: float = 0.0


class Got(NamedTuple):
    """A request."""

    path: str
    headers: dict[str, str]
    message: Any

    @property
    def records(self) -> list[dict[str, Any]]:
        """The attributes of its log records."""
        return [
            {a.key: _value(a.value) for a in record.attributes}
            for resource in self.message.resource_logs
            for scope in resource.scope_logs
            for record in scope.log_records
        ]

    @property
    def uids(self) -> list[str]:
        return [record["log.record.uid"] for record in self.records]

    @property
    def metrics(self) -> dict[str, Any]:
        return {
            metric.name: metric
            for resource in self.message.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    @property
    def resource(self) -> dict[str, Any]:
        parts = self.message.resource_logs if self.path == LOGS else self.message.resource_metrics
        return {a.key: _value(a.value) for a in parts[0].resource.attributes}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    return getattr(value, kind)


OK = Said()
Behaviour = Callable[[Got], Said | None]


def partial_logs(rejected: int, message: str = "too old") -> Said:
    answer = ExportLogsServiceResponse()
    answer.partial_success.rejected_log_records = rejected
    answer.partial_success.error_message = message
    return Said(body=answer.SerializeToString())


def partial_metrics(rejected: int) -> Said:
    answer = ExportMetricsServiceResponse()
    answer.partial_success.rejected_data_points = rejected
    return Said(body=answer.SerializeToString())


class Receiver:
    """The server. `behave` answers each request; None: it closes the connection without a word."""

    def __init__(
        self,
        behave: Behaviour = lambda _: OK,
        port: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.behave = behave
        self.got: list[Got] = []
        self.acknowledged: list[str] = []
        self._changed = threading.Condition()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                outer.serve(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        if tls is not None:
            listening = self._server.socket
            self._server.socket = tls.wrap_socket(
                listening, server_side=True, do_handshake_on_connect=False
            )
        self.ending = threading.Event()
        self.port = int(self._server.server_address[1])
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self._thread.start()

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers["content-length"]))
        headers = {name.lower(): value for name, value in handler.headers.items()}
        if headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        path = urlsplit(handler.path).path  # asked as a proxy, it is all of an address
        kind = ExportLogsServiceRequest if path == LOGS else ExportMetricsServiceRequest
        got = Got(path, headers, kind.FromString(body))
        said = self.behave(got)
        with self._changed:
            self.got.append(got)
            if said is not None and said.status == 200 and not said.body and got.path == LOGS:
                self.acknowledged += got.uids
            self._changed.notify_all()
        if said is None:
            handler.close_connection = True
            return
        handler.send_response(said.status)
        for name, value in said.headers.items():
            handler.send_header(name, value)
        length = 10_000 if said.drip_s else len(said.body)
        handler.send_header("content-length", str(length))
        handler.end_headers()
        if said.drip_s:
            handler.close_connection = True
            while not self.ending.wait(said.drip_s):
                try:
                    handler.wfile.write(b"\0")
                    handler.wfile.flush()
                except OSError:
                    return
            return
        handler.wfile.write(said.body)

    def wait(self, condition: Callable[[], Any], timeout_s: float = 15.0, what: str = "") -> Any:
        """The first true value of a condition over what was received."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while not (value := condition()):
                left_s = deadline - time.monotonic()
                assert left_s > 0, f"not in {timeout_s} s: {what} (got {len(self.got)} requests)"
                self._changed.wait(min(left_s, 0.2))
            return value

    def of(self, path: str) -> list[Got]:
        return [got for got in list(self.got) if got.path == path]

    def close(self) -> None:
        self.ending.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def __enter__(self) -> Receiver:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
