"""OTLP push: what leaves, and what each answer of a receiver means for what leaves next."""

from __future__ import annotations

import dataclasses
import logging
import os
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from exporting import ListOutbox, ToolsFake, ended_run
from otlp_receiver import LOGS, METRICS, OK, Got, Receiver, Said, partial_logs, partial_metrics
from snapshots import EPOCH_NS, JOB_LABELS, NOW_NS, snapshot, with_jobs
from wattledger.errors import ExportFailed
from wattledger.exporting import HANG_NS
from wattledger.model.exporting import EndedRun
from wattledger.setting import DurationNs, FilePath, Url
from wattledger.units import NS_PER_S
from wattledger_exporters.metrics import CATALOGUE
from wattledger_exporters.otlp import PLUGIN, OtlpPlugin, records
from wattledger_exporters.otlp.answers import Late, Session
from wattledger_exporters.otlp.exporter import OtlpExporter
from wattledger_exporters.otlp.points import otel_name, otel_unit
from wattledger_exporters.otlp.settings import OtlpSettings
from wattledger_exporters.prometheus import Renderer

JSON = {"content-type": "application/json"}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as one:
        yield one


def made(
    receiver: Receiver | str, runs: Sequence[EndedRun] = (), **more: object
) -> tuple[OtlpExporter, ListOutbox, ToolsFake]:
    url = receiver if isinstance(receiver, str) else receiver.url
    more = {"timeout": DurationNs(NS_PER_S), "metrics": not runs, **more}
    outbox = ListOutbox(runs)
    tools = ToolsFake(outbox, job_labels=JOB_LABELS)
    chosen = OtlpSettings(endpoint=Url(url), **more)  # type: ignore[arg-type]
    return OtlpExporter(chosen, tools), outbox, tools


def drained(exporter: OtlpExporter, most: int = 50) -> None:
    """Turns until nothing more is waiting."""
    for _ in range(most):
        if not exporter.export(snapshot()):
            return
    raise AssertionError("it never comes to an end")


# ── metrics ─────────────────────────────────────────────────────────────────────────────────────


def test_the_metrics_are_those_of_the_page_to_the_last_sample(receiver: Receiver) -> None:
    shown = with_jobs()
    exporter, _, _ = made(receiver)
    exporter.export(shown)
    (got,) = receiver.of(METRICS)
    spec_of = {otel_name(spec): spec for spec in CATALOGUE.values()}
    pushed = {}
    for name, metric in got.metrics.items():
        spec = spec_of[name]
        data = metric.sum if spec.type == "counter" else metric.gauge
        assert metric.WhichOneof("data") == ("sum" if spec.type == "counter" else "gauge")
        for point in data.data_points:
            labels = tuple(sorted((a.key, a.value.string_value) for a in point.attributes))
            pushed[spec.sample, labels] = point.as_double
            assert point.time_unix_nano == NOW_NS
    page = Renderer().render(shown, 1, process=False, labels=JOB_LABELS)
    scraped = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page.text.decode())
        for sample in family.samples
    }
    assert pushed == scraped


def test_counters_are_cumulative_since_their_first_booking(receiver: Receiver) -> None:
    exporter, _, _ = made(receiver)
    exporter.export(snapshot())
    (got,) = receiver.of(METRICS)
    energy = got.metrics["wattledger.energy_kwh"].sum
    assert energy.aggregation_temporality == 2 and energy.is_monotonic  # CUMULATIVE
    starts = {
        p.attributes[0].value.string_value: p.start_time_unix_nano for p in energy.data_points
    }
    infos = list(snapshot().books.devices)
    assert starts == {name: EPOCH_NS + i * NS_PER_S for i, name in enumerate(infos)}
    assert all(
        0 < point.start_time_unix_nano <= point.time_unix_nano
        for metric in got.metrics.values()
        if metric.WhichOneof("data") == "sum"
        for point in metric.sum.data_points
    )
    assert got.resource["service.name"] == "wattledger"
    assert got.resource["service.instance.id"] == got.resource["host.name"] != ""


def test_a_translation_to_prometheus_gives_the_names_of_the_page_again() -> None:
    """The rules of OpenTelemetry's specification, as Prometheus' own receiver has them."""
    words = {"J": "joules", "W": "watts", "s": "seconds", "g": "grams", "By": "bytes"}
    assert len({otel_name(spec) for spec in CATALOGUE.values()}) == len(CATALOGUE)
    for spec in CATALOGUE.values():
        unit = otel_unit(spec)
        parts = otel_name(spec).replace(".", "_").split("_")
        word = words.get(unit, "" if unit.startswith("{") or unit == "1" else unit)
        if word and word not in parts:
            parts.append(word)
        if spec.type == "counter":
            parts = [*(part for part in parts if part != "total"), "total"]
        elif unit == "1":
            parts = [*(part for part in parts if part != "ratio"), "ratio"]
        assert "_".join(parts) == spec.sample


def test_metrics_are_pushed_at_their_interval_and_runs_at_each_commit(receiver: Receiver) -> None:
    exporter, outbox, tools = made(receiver, [ended_run(1)], metrics=True)
    exporter.export(snapshot())
    outbox.runs.append(ended_run(2))
    tools.clock.advance(30)
    exporter.export(snapshot())
    assert [got.path for got in receiver.got] == [METRICS, LOGS, LOGS]
    tools.clock.advance(30)
    exporter.export(snapshot())
    assert [got.path for got in receiver.got][3:] == [METRICS]


# ── ended runs ──────────────────────────────────────────────────────────────────────────────────


def test_the_record_of_a_run_is_its_receipt_with_exact_integers(receiver: Receiver) -> None:
    run = ended_run(7)
    exporter, outbox, _ = made(receiver, [run])
    drained(exporter)
    (record,) = receiver.got[0].records
    told = run.book.run
    whole = sum(cell.amounts.energy_uj for cell in run.book.cells.values())
    assert record["log.record.uid"] == run.record_id
    assert (record["wattledger.manager"], record["wattledger.job_id"]) == ("slurm", "7")
    assert record["wattledger.exact.energy_uj"] == str(whole)
    assert record["wattledger.exact.energy_uj_gpu"] == str(2**53 + 7)  # no float64 holds it
    assert int(record["wattledger.exact.end_ns"]) == told.end_ns
    assert record["wattledger.energy_kwh.total"] == pytest.approx(whole / 3.6e12)
    assert record["wattledger.exact.held_idle_uj"] == "12345678"
    assert record["wattledger.water_l.total"] > 0 and record["wattledger.co2e_g"] > 0
    assert record["wattledger.quality.metered"] == 0.75
    assert record["wattledger.exact.quality_uj_estimated"] == "1000"
    (log_record,) = receiver.got[0].message.resource_logs[0].scope_logs[0].log_records
    assert (log_record.event_name, log_record.time_unix_nano) == (records.EVENT, told.end_ns)
    assert outbox.done == [run.record_id]


def test_names_leave_only_where_they_were_asked_for() -> None:
    run = ended_run(1)
    assert run.book.run.uid == 1001 and run.book.run.labels["user"] == "user1001"
    bare = records.attributes(run, ())
    assert not {key for key in bare if "label" in key or "uid" in key} - {"log.record.uid"}
    assert "user1001" not in str(bare) and "1001" not in map(str, bare.values())
    told = records.attributes(run, ("user",))
    assert (told["wattledger.labels.user"], told["wattledger.uid"]) == ("user1001", "1001")
    assert "wattledger.labels.account" not in told


def test_a_long_backlog_leaves_in_batches(receiver: Receiver) -> None:
    exporter, outbox, _ = made(receiver, [ended_run(n) for n in range(1234)])
    drained(exporter)
    sizes = [len(got.records) for got in receiver.got]
    assert sum(sizes) == 1234 and max(sizes) == 100
    assert len(outbox.done) == len(set(outbox.done)) == 1234
    assert outbox.most_asked <= 100, "no more than a batch is ever in memory"


@pytest.mark.parametrize(
    ("answer_s", "turns"),
    [
        (1, [[METRICS, *[LOGS] * 5], [LOGS, LOGS]]),
        (9, [[METRICS, LOGS, LOGS], [LOGS, LOGS, LOGS], [METRICS, LOGS, LOGS]]),
        # Every push of metrics is due again when it is over, and holds up no run all the same.
        (30, [[METRICS], [LOGS], [METRICS], [LOGS], [METRICS], [LOGS]]),
    ],
)
def test_no_turn_takes_so_long_that_it_looks_hung(
    receiver: Receiver, answer_s: int, turns: list[list[str]]
) -> None:
    runs = [ended_run(n) for n in range(650)]
    exporter, outbox, tools = made(receiver, runs, metrics=True, interval=DurationNs(30 * NS_PER_S))

    def slow(_: Got) -> Said:
        tools.clock.advance(answer_s)
        return OK

    receiver.behave = slow
    for turn in turns:
        before = len(receiver.got)
        begun_ns = tools.clock.now().monotonic_ns
        paused_s = exporter.export(snapshot())
        assert [got.path for got in receiver.got[before:]] == turn
        assert tools.clock.now().monotonic_ns - begun_ns <= HANG_NS - 10 * NS_PER_S
        assert paused_s == 0.01 or not outbox.runs


# ── what receivers answer ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("said", "reason", "retry_after_s"),
    [
        (Said(503), "busy", None),
        (Said(429, headers={"retry-after": "77"}), "busy", 77.0),
        (Said(429, headers={"retry-after": "Mon, 01 Jan 2001 00:00:00 GMT"}), "busy", 0.0),
        (Said(429, headers={"retry-after": "soon"}), "busy", None),
        (Said(401), "http_401", None),
        (Said(404), "http_404", None),
        (Said(500), "http_500", None),
        (Said(302, headers={"location": "http://192.0.2.1/"}), "http_302", None),
        (Said(200, b"<html>hello</html>", {"content-type": "text/html"}), "no_receiver", None),
        (Said(200, b"OK", {"content-type": "text/plain"}), "no_receiver", None),
        (Said(200, b"hi", {"content-type": "text/plain"}), "no_receiver", None),  # decodes, too
        (Said(200, b"OK", {}), "no_receiver", None),
        (Said(200, b"\0" * 100), "no_receiver", None),
        (Said(200, b'{"status": "ok"}', JSON), "no_receiver", None),
        (Said(200, b'["partialSuccess"]', JSON), "no_receiver", None),
        (Said(200, b'{"partialSuccess": 3}', JSON), "no_receiver", None),
        (Said(200, b'{"partialSuccess":', JSON), "no_receiver", None),
        (None, "unreachable", None),
        (Said(200, drip_s=0.05), "timeout", None),
    ],
)
def test_what_could_not_be_delivered_is_delivered_later(
    said: Said | None, reason: str, retry_after_s: float | None
) -> None:
    with Receiver(lambda _: said) as receiver:
        run = ended_run(1)
        exporter, outbox, _ = made(receiver, [run], timeout=DurationNs(NS_PER_S // 2))
        with pytest.raises(ExportFailed) as caught:
            exporter.export(snapshot())
        assert (caught.value.reason, caught.value.retry_after_s) == (reason, retry_after_s)
        assert not outbox.done and not outbox.refusals
        receiver.behave = lambda _: OK
        drained(exporter)
        assert outbox.done == [run.record_id]


def test_a_receiver_that_is_down_is_unreachable() -> None:
    with Receiver() as receiver:
        url = receiver.url
    exporter, outbox, _ = made(url, [ended_run(1)])
    with pytest.raises(ExportFailed, match="does not answer") as caught:
        exporter.export(snapshot())
    assert caught.value.reason == "unreachable" and not outbox.done


@pytest.mark.parametrize(
    "said",
    [
        Said(200, headers={}),
        Said(204),
        Said(200, headers={"content-type": "text/plain"}),
        Said(200, partial_logs(0, "slow down").body, {}),
        Said(200, b"{}", JSON),
        Said(200, b'{"partialSuccess": null}', JSON),
        Said(200, b'{"partialSuccess": {"errorMessage": "slow", "new": 1}, "more": 2}', JSON),
    ],
)
def test_what_says_that_all_was_taken(said: Said) -> None:
    with Receiver(lambda _: said) as receiver:
        exporter, outbox, _ = made(receiver, [ended_run(1)])
        drained(exporter)
        assert len(outbox.done) == len(receiver.got) == 1


def test_an_answer_without_end_is_not_read_to_its_end() -> None:
    with Receiver(lambda _: Said(200, b"\n\0" * 2_500_000)) as receiver:
        exporter, outbox, _ = made(receiver, [ended_run(1)])
        drained(exporter)
        assert outbox.done


def refuses(bad: set[str]) -> Receiver:
    """A receiver that answers 400 to each request that holds a bad record."""
    return Receiver(
        lambda got: Said(400) if bad & {r["wattledger.job_id"] for r in got.records} else OK
    )


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 60), st.sets(st.integers(0, 59), max_size=4))
def test_a_record_that_is_refused_does_not_hold_up_the_others(count: int, bad: set[int]) -> None:
    wrong = {str(n) for n in bad if n < count}
    with refuses(wrong) as receiver:
        exporter, outbox, _ = made(receiver, [ended_run(n) for n in range(count)])
        drained(exporter)
    ids = {ended_run(n).record_id: str(n) for n in range(count)}
    assert {ids[uid] for uid in outbox.refusals} == wrong
    assert {ids[uid] for uid in outbox.done} == {str(n) for n in range(count)} - wrong


def test_a_refusal_is_said_once_and_its_end_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "wattledger_exporters")
    with refuses({str(n) for n in range(10)}) as receiver:
        exporter, outbox, _ = made(receiver, [ended_run(n) for n in range(10)])
        drained(exporter)
        assert len(outbox.refusals) == 10
        outbox.runs += [ended_run(n) for n in range(100, 500)]
        drained(exporter)
    said = [record.message for record in caplog.records]
    assert len(said) == 2 and "refuses the record of slurm/0" in said[0] and "again" in said[1]


def in_json(rejected: int) -> Said:
    """Whole numbers of 64 bits are strings there."""
    body = f'{{"partialSuccess": {{"rejectedLogRecords": "{rejected}", "errorMessage": "no"}}}}'
    return Said(200, body.encode(), {"content-type": "application/json; charset=utf-8"})


@pytest.mark.parametrize("partial", [partial_logs, in_json])
def test_what_a_partial_success_rejects_is_found_and_kept_apart(
    partial: Callable[[int], Said],
) -> None:
    def behave(got: Got) -> Said:
        bad = sum(record["wattledger.job_id"] == "5" for record in got.records)
        return partial(bad) if bad else OK

    with Receiver(behave) as receiver:
        exporter, outbox, _ = made(receiver, [ended_run(n) for n in range(9)])
        drained(exporter)
    assert outbox.refusals == [ended_run(5).record_id]
    assert len(outbox.done) == 8


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (Said(400), "refused"),
        (partial_metrics(3), "refused"),
        (Said(200, b'{"partialSuccess": {"rejectedDataPoints": "3"}}', JSON), "refused"),
        (Said(200, b"OK", {"content-type": "text/plain"}), "no_receiver"),
        (Said(404), "http_404"),
        (Said(429), "busy"),
    ],
)
def test_metrics_that_are_not_taken_hold_up_no_run_and_are_told(said: Said, reason: str) -> None:
    with Receiver(lambda got: said if got.path == METRICS else OK) as receiver:
        exporter, outbox, _ = made(receiver, [ended_run(1)], metrics=True)
        with pytest.raises(ExportFailed) as caught:
            exporter.export(snapshot())
        assert caught.value.reason == reason
        assert len(outbox.done) == 1


def test_what_cannot_be_written_as_a_message_is_not_taken_for_delivered(
    receiver: Receiver,
) -> None:
    bad = ended_run(3)
    told = dataclasses.replace(bad.book.run, end_ns=-1)  # no fixed64 holds it
    bad = bad._replace(book=dataclasses.replace(bad.book, run=told))
    exporter, outbox, _ = made(receiver, [ended_run(1), ended_run(2), bad, ended_run(4)])
    drained(exporter)
    assert outbox.done == [ended_run(n).record_id for n in (1, 2, 4)]
    assert outbox.refusals == [bad.record_id]


def test_names_that_are_no_utf8_are_replaced(receiver: Receiver) -> None:
    run = ended_run(1)
    told = dataclasses.replace(run.book.run, labels={"name": "a\udc80b"})
    run = run._replace(book=dataclasses.replace(run.book, run=told))
    exporter, outbox, _ = made(receiver, [run])
    drained(exporter)
    assert outbox.done and receiver.got[0].records[0]["wattledger.labels.name"] == "a?b"


def test_the_end_delivers_what_is_left_and_is_quick(receiver: Receiver) -> None:
    exporter, outbox, _ = made(receiver, metrics=True)
    exporter.export(snapshot())
    outbox.runs.append(ended_run(1))
    exporter.close(snapshot())
    assert outbox.done == [ended_run(1).record_id]
    assert [got.path for got in receiver.got] == [METRICS, LOGS, METRICS]


# ── on the way ──────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def authority(tmp_path: Path) -> tuple[trustme.CA, FilePath]:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    return ca, FilePath(str(tmp_path / "ca.pem"))


def server_context(ca: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    return context


def test_the_receiver_is_who_its_certificate_says(
    authority: tuple[trustme.CA, FilePath],
) -> None:
    ca, file = authority
    with Receiver(tls=server_context(ca)) as receiver:
        stranger, outbox, _ = made(receiver, [ended_run(1)])
        with pytest.raises(ExportFailed, match="certificate") as caught:
            stranger.export(snapshot())
        assert caught.value.reason == "unreachable" and not receiver.got and not outbox.done
        exporter, outbox, _ = made(receiver, [ended_run(1)], ca_file=file)
        drained(exporter)
        assert len(outbox.done) == len(receiver.got) == 1


def test_a_receiver_that_asks_for_a_certificate_gets_it(
    authority: tuple[trustme.CA, FilePath], tmp_path: Path
) -> None:
    ca, file = authority
    own = ca.issue_cert("node.example.org")
    own.cert_chain_pems[0].write_to_path(tmp_path / "own.pem")
    own.private_key_pem.write_to_path(tmp_path / "own.key")
    context = server_context(ca)
    ca.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    with Receiver(tls=context) as receiver:
        refused, outbox, _ = made(receiver, [ended_run(1)], ca_file=file)
        with pytest.raises(ExportFailed):
            refused.export(snapshot())
        assert not outbox.done
        exporter, outbox, _ = made(
            receiver,
            [ended_run(1)],
            ca_file=file,
            client_certificate_file=FilePath(str(tmp_path / "own.pem")),
            client_key_file=FilePath(str(tmp_path / "own.key")),
        )
        drained(exporter)
        assert outbox.done


def test_a_push_ends_in_time_whatever_the_sdk_asks_for() -> None:
    """It works its timeouts out by the wall clock, which may be set back by hours."""
    with Receiver(lambda _: Said(200, drip_s=0.001)) as receiver, Session() as session:
        session.begin(0.3)
        for _ in range(2):
            with pytest.raises(Late):
                session.post(receiver.url + LOGS, data=b"", timeout=4000.0)
            assert session.answer.timed_out
        assert len(receiver.got) == 1, "the second try is none: the time is over"


def test_what_a_try_was_told_outlasts_one_that_came_too_late() -> None:
    with Receiver(lambda _: Said(503)) as receiver, Session() as session:
        session.begin(2)
        session.post(receiver.url + LOGS, data=b"")
        receiver.behave = lambda _: Said(200, drip_s=0.05)
        with pytest.raises(Late):
            session.post(receiver.url + LOGS, data=b"")
        assert (session.answer.status, session.answer.timed_out) == (503, False)


@pytest.mark.parametrize("way", ["tls", "proxy"])
def test_an_answer_that_drips_ends_in_time_on_every_way(
    authority: tuple[trustme.CA, FilePath], way: str
) -> None:
    ca, file = authority
    context = server_context(ca) if way == "tls" else None
    short = DurationNs(NS_PER_S // 2)
    with Receiver(lambda _: Said(drip_s=0.05), tls=context) as receiver:
        if way == "tls":
            exporter, outbox, _ = made(receiver, [ended_run(1)], ca_file=file, timeout=short)
        else:
            exporter, outbox, _ = made(
                "http://localhost:9", [ended_run(1)], proxy=Url(receiver.url), timeout=short
            )
        with pytest.raises(ExportFailed) as caught:
            exporter.export(snapshot())
        assert caught.value.reason == "timeout" and not outbox.done and receiver.got
        receiver.behave = lambda _: OK
        drained(exporter)
        assert outbox.done


def pushed_with(receiver: Receiver, environment: dict[str, str]) -> Got:
    """What a process of that environment pushes: a run."""
    script = (
        "import sys; sys.path[:0] = sys.argv[2:]\n"
        "from test_otlp_push import made, drained\n"
        "from exporting import ended_run\n"
        "exporter, outbox, _ = made(sys.argv[1], [ended_run(1)])\n"
        "drained(exporter); assert outbox.done\n"
    )
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    done = subprocess.run(
        [sys.executable, "-c", script, receiver.url, *paths],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (got,) = receiver.got
    return got


def test_only_the_proxy_of_the_settings_is_asked(receiver: Receiver) -> None:
    """Whatever the environment says: it would be handed headers and records."""
    nowhere = "http://127.0.0.1:9"
    names = ("http_proxy", "HTTP_PROXY", "all_proxy", "OTEL_EXPORTER_OTLP_ENDPOINT",
             "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT")  # fmt: skip
    assert pushed_with(receiver, dict.fromkeys(names, nowhere)).uids


def test_a_pod_speaks_for_its_node(receiver: Receiver) -> None:
    """As Kubernetes names it: the host's name is the pod's there, and goes with it."""
    resource = pushed_with(receiver, {"NODE_NAME": "gpu-node-7"}).resource
    assert resource["host.name"] == resource["service.instance.id"] == "gpu-node-7"


# ── settings ────────────────────────────────────────────────────────────────────────────────────


def test_headers_come_from_a_file_that_is_read_anew(receiver: Receiver, tmp_path: Path) -> None:
    file = tmp_path / "headers"
    file.write_text("# of the site\nAuthorization: Bearer abc def\nX-Scope: 7\n")
    file.chmod(0o600)
    exporter, _, tools = made(receiver, headers_file=FilePath(str(file)))
    exporter.export(snapshot())
    assert receiver.got[0].headers["authorization"] == "Bearer abc def"
    assert receiver.got[0].headers["x-scope"] == "7"
    file.write_text("Authorization: Bearer new\n")
    tools.clock.advance(60)
    exporter.export(snapshot())
    assert receiver.got[1].headers["authorization"] == "Bearer new"


@pytest.mark.parametrize(
    ("text", "mode", "said"),
    [
        ("a: b\n", 0o644, "others can read"),
        ("no header, but s3cret\n", 0o600, "line 1 .* is no header"),
        ("a: b\nBad\x07: s3cret\n", 0o600, "line 2"),
        ("a: s3cret\x1b\n", 0o600, "line 1"),
    ],
)
def test_a_bad_headers_file_sends_nothing_and_shows_nothing(
    receiver: Receiver, tmp_path: Path, text: str, mode: int, said: str
) -> None:
    file = tmp_path / "headers"
    file.write_text(text)
    file.chmod(mode)
    exporter, _, _ = made(receiver, headers_file=FilePath(str(file)))
    with pytest.raises(ExportFailed, match=said) as caught:
        exporter.export(snapshot())
    assert caught.value.reason == "headers" and "s3cret" not in str(caught.value)
    assert not receiver.got


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({}, "endpoint"),
        ({"endpoint": "http://collector:4318"}, "endpoint"),
        ({"endpoint": "http://127.0.0.1.example.org"}, "endpoint"),
        ({"endpoint": "https://x", "timeout": 1}, "timeout"),
        ({"endpoint": "https://x", "timeout": 31 * NS_PER_S}, "timeout"),
        ({"endpoint": "https://x", "interval": 1}, "interval"),
        ({"endpoint": "https://x", "metrics": False, "runs": False}, "metrics"),
        ({"endpoint": "https://x", "ca_file": "/nonexistent"}, "ca_file"),
        ({"endpoint": "https://x", "client_key_file": "/x"}, "client_key_file"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, object], key: str) -> None:
    assert [fault[0] for fault in PLUGIN.faults(OtlpSettings(**settings))] == [key]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "url", ["https://x", "http://localhost:1", "http://127.8.9.1", "http://[::1]:4318"]
)
def test_settings_that_can_be(url: str) -> None:
    assert not PLUGIN.faults(OtlpSettings(endpoint=Url(url)))


def test_without_the_extra_the_remedy_is_said() -> None:
    def find(name: str) -> object:
        raise ModuleNotFoundError(name)

    ((key, text),) = OtlpPlugin(find).faults(OtlpSettings(endpoint=Url("https://x")))
    assert key == "" and "pip install 'wattledger[otlp]'" in text
    assert "make deb EXTRAS=otlp,parquet" in text
