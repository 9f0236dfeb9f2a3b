"""What is pushed when, and what a receiver's answer means for what is pushed next.

Metrics are cumulative: a push that fails loses resolution and no energy. Ended runs wait in the
ledger until they are acknowledged, and are sent in batches. Where a receiver refuses a batch (400,
413, or a partial success), halves of it are sent, until the record that it refuses stands alone:
that one is kept in the ledger, counted, and tried again in a day, and the rest goes on. Only an
answer of OTLP's own is an acknowledgement: a page, or the words of some other service, is none.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any

from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceResponse,
)
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.metrics.export import MetricsData, ResourceMetrics, ScopeMetrics
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from wattledger.errors import ExportFailed
from wattledger.model import Snapshot
from wattledger.model.exporting import EndedRun
from wattledger.node_name import node_name
from wattledger.ports import ExporterTools
from wattledger.units import NS_PER_S, seconds
from wattledger_exporters.otlp import records
from wattledger_exporters.otlp.answers import Answer, Session
from wattledger_exporters.otlp.headers import read_headers
from wattledger_exporters.otlp.points import Points
from wattledger_exporters.otlp.settings import OtlpSettings
from wattledger_exporters.prometheus import fill

log = logging.getLogger(__name__)

BATCH = 100
BATCHES_PER_TURN = 5
LONG_NS = 20 * NS_PER_S  # with one more request of MOST_TIMEOUT_NS a turn does not look hung
LAST_PUSH_S = 0.2  # each of two, at the end
SERVICE = "wattledger"
REFUSES_CONTENT = frozenset({400, 413, 422})
BUSY = frozenset({429, 502, 503, 504})
UNHEARD = frozenset({"unreachable", "timeout", "headers"})


class _Refused(Exception):
    """The receiver will never take what was sent; the text is its reason."""


class OtlpExporter:
    """Pushes metrics and ended runs; implements `ports.Exporter`."""

    def __init__(self, settings: OtlpSettings, tools: ExporterTools) -> None:
        """Args: settings: of the table. tools: what the daemon gives it."""
        # It logs each failure; ours are said when they begin and when they end.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        self._settings = settings
        self._tools = tools
        self._base = settings.endpoint.rstrip("/")
        self._timeout_s = seconds(settings.timeout)
        self._compression = Compression(settings.compression)
        self._session = Session(settings.proxy)
        self._scope = InstrumentationScope(SERVICE)
        self._resource: Resource | None = None
        self._batch = BATCH
        self._refusing = False
        self._metrics_due_ns = 0
        self._runs_next = False

    # ── turns ───────────────────────────────────────────────────────────────────────────────────

    def export(self, snapshot: Snapshot) -> float:
        """Push what is due.

        Raises:
            ExportFailed: the receiver did not take all of it; the rest is pushed again.
        """
        self._resource = self._resource or self._resource_of(snapshot)
        begun_ns = self._tools.clock.now().monotonic_ns
        failure: ExportFailed | None = None
        runs_only, self._runs_next = self._runs_next, False
        if not runs_only:
            try:
                self._push_metrics(snapshot)
            except ExportFailed as error:
                if error.reason in UNHEARD:
                    raise  # whoever does not answer is not asked twice
                failure = error
        more = False
        if self._settings.runs:
            # Metrics that take so long that they are due again at once must not hold up the runs.
            more = self._runs_next = self._is_long(begun_ns)
            if not more:
                more = self._push_runs(snapshot, begun_ns)
        if failure is not None:
            raise failure
        return 0.01 if more else 0.0

    def close(self, last: Snapshot | None) -> None:
        """What ended last, and the last state, where the receiver is quick to take it."""
        self._timeout_s = min(self._timeout_s, LAST_PUSH_S)
        try:
            if last is not None:
                self._resource = self._resource or self._resource_of(last)
                if self._settings.runs:
                    self._push_batch(last)
                if self._settings.metrics:
                    self._send_metrics(last)
        except ExportFailed as error:
            log.info("exporter otlp: not all was pushed at the end: %s", error)
        finally:
            self._session.close()

    # ── metrics ─────────────────────────────────────────────────────────────────────────────────

    def _push_metrics(self, snapshot: Snapshot) -> None:
        now_ns = self._tools.clock.now().monotonic_ns
        if not self._settings.metrics or now_ns < self._metrics_due_ns:
            return
        self._send_metrics(snapshot)
        # A commit comes a moment before or after the interval is over.
        half_ns = self._tools.commit_interval_ns // 2
        self._metrics_due_ns = now_ns + max(0, self._settings.interval - half_ns)

    def _way(self, path: str) -> dict[str, Any]:
        """To the receiver, for either of the SDK's exporters."""
        return {
            "endpoint": self._base + path,
            "headers": self._headers(),
            "timeout": self._timeout_s,
            "compression": self._compression,
            "certificate_file": self._settings.ca_file or None,
            "client_certificate_file": self._settings.client_certificate_file or None,
            "client_key_file": self._settings.client_key_file or None,
            "session": self._session,
        }

    def _send_metrics(self, snapshot: Snapshot) -> None:
        points = Points(snapshot.at_ns, snapshot.books.epoch_start_ns)
        fill(points, snapshot, self._tools.job_labels)
        scope = ScopeMetrics(self._scope, points.metrics(), "")
        resource = ResourceMetrics(self._known_resource(), [scope], "")
        exporter = OTLPMetricExporter(**self._way("/v1/metrics"))
        self._session.begin(self._timeout_s)
        exporter.export(MetricsData([resource]), self._timeout_s * 1000)
        try:
            answer = self._taken("/v1/metrics", ExportMetricsServiceResponse()).partial_success
            if answer.rejected_data_points:
                raise _Refused(f"{answer.rejected_data_points} data points: {answer.error_message}")
        except _Refused as error:
            raise ExportFailed(
                "refused", f"{self._base} refuses metrics: {error}", retry_after_s=60.0
            ) from error

    # ── ended runs ──────────────────────────────────────────────────────────────────────────────

    def _push_runs(self, snapshot: Snapshot, begun_ns: int) -> bool:
        """Push ended runs, some batches at most. Returns whether more may be waiting."""
        for _ in range(BATCHES_PER_TURN):
            if not self._push_batch(snapshot):
                return False
            if self._is_long(begun_ns):
                break
        return True

    def _is_long(self, begun_ns: int) -> bool:
        return self._tools.clock.now().monotonic_ns - begun_ns >= LONG_NS

    def _push_batch(self, snapshot: Snapshot) -> bool:
        """Push one batch. Returns whether another one may be waiting."""
        outbox = self._tools.runs
        runs = outbox.waiting(self._batch)
        if not runs:
            return False
        try:
            self._send_runs(runs, snapshot)
        except _Refused as error:
            if len(runs) > 1:
                self._batch = len(runs) // 2
                return True
            outbox.refused(runs)
            if not self._refusing:
                self._refusing = True
                payee = runs[0].book.run.payee
                log.warning(
                    "exporter otlp: %s refuses the record of %s/%s: %s; such records are kept and "
                    "tried again in a day",
                    self._base,
                    payee.manager,
                    payee.job_id,
                    error,
                )
            return True
        outbox.delivered(runs)
        if self._refusing and self._batch >= BATCH:
            self._refusing = False
            log.info("exporter otlp: %s takes records again", self._base)
        self._batch = min(BATCH, self._batch * 2)
        return True

    def _send_runs(self, runs: Sequence[EndedRun], snapshot: Snapshot) -> None:
        """Send records.

        Raises:
            _Refused: they will not be taken, or not all of them.
            ExportFailed: they could not be sent now.
        """
        labels, resource = self._tools.job_labels, self._known_resource()
        exporter = OTLPLogExporter(**self._way("/v1/logs"))
        self._session.begin(self._timeout_s)
        exporter.export(
            [
                ReadableLogRecord(
                    LogRecord(
                        timestamp=run.book.run.end_ns,
                        observed_timestamp=snapshot.at_ns,
                        severity_number=SeverityNumber.INFO,
                        severity_text="INFO",
                        body=records.sentence(run),
                        attributes=records.attributes(run, labels),
                        event_name=records.EVENT,
                    ),
                    resource,
                    self._scope,
                )
                for run in runs
            ]
        )
        answer = self._taken("/v1/logs", ExportLogsServiceResponse()).partial_success
        if answer.rejected_log_records:
            raise _Refused(f"{answer.rejected_log_records} records: {answer.error_message}")

    # ── the receiver ────────────────────────────────────────────────────────────────────────────

    def _headers(self) -> dict[str, str]:
        file = self._settings.headers_file
        return read_headers(file) if file else {}

    def _taken(self, path: str, message: Message) -> Any:
        """What is said of a request that was taken: the message, filled in.

        Raises:
            _Refused: it will never be taken.
            ExportFailed: it was not taken now.
        """
        answer, where = self._session.answer, f"{self._base}{path}"
        if 200 <= answer.status < 300:
            if _is_read(answer, message):
                return message
            raise ExportFailed(
                "no_receiver",
                f"{where} answers HTTP {answer.status} with what no receiver says",
                "endpoint must be that of an OTLP receiver over HTTP",
            )
        if not answer.status and not answer.problem:
            raise _Refused("it could not be written as a message")
        if not answer.status:
            reason = "timeout" if answer.timed_out else "unreachable"
            raise ExportFailed(
                reason,
                f"{where} does not answer: {answer.problem}",
                "look whether the receiver runs, and whether this machine may reach it",
            )
        if answer.status in REFUSES_CONTENT:
            raise _Refused(f"HTTP {answer.status}")
        if answer.status in BUSY:
            raise ExportFailed(
                "busy", f"{where} is busy (HTTP {answer.status})", "", answer.retry_after_s
            )
        hint = {
            401: "give a token with headers_file",
            403: "give a token with headers_file that may write",
            404: "endpoint is the address without /v1/metrics or /v1/logs",
        }.get(answer.status, "endpoint must be that of an OTLP receiver over HTTP")
        raise ExportFailed(f"http_{answer.status}", f"{where} answers HTTP {answer.status}", hint)

    def _known_resource(self) -> Resource:
        return self._resource or Resource.get_empty()

    def _resource_of(self, snapshot: Snapshot) -> Resource:
        """Who speaks; OTEL_RESOURCE_ATTRIBUTES of the environment adds to it."""
        host = node_name()
        return Resource.create(
            {
                "service.name": SERVICE,
                "service.version": snapshot.version,
                "service.instance.id": self._settings.instance_id or host,
                "host.name": host,
            }
        )


def _is_read(answer: Answer, message: Message) -> bool:
    """Reads an answer into a message of OTLP's; False: it is none, and whoever gave it no receiver.

    An empty one is whole: nothing was rejected. Receivers exist that answer in JSON.
    """
    kind = answer.media_type
    if kind in ("text/html", "application/xhtml+xml") or (kind.startswith("text/") and answer.body):
        return False  # for people; a few letters may well be a message that says nothing
    if kind == "application/json" and answer.body:
        return _is_json_read(answer.body, message)
    try:
        message.ParseFromString(answer.body)
    except DecodeError:
        return False
    return True


def _is_json_read(body: bytes, message: Message) -> bool:
    from google.protobuf import json_format  # type: ignore[import-untyped]

    try:
        told = json.loads(body)
        if not isinstance(told, dict) or (told and "partialSuccess" not in told):
            return False
        json_format.ParseDict(told, message, ignore_unknown_fields=True)
    except (ValueError, RecursionError, json_format.ParseError):
        return False
    return True
