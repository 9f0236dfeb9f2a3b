"""The kubelet: recorded protocol buffers, a real HTTP/2 server on a Unix socket, every misdeed."""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes import FakeClock
from kubelet_server import KubeletServer, Script, answer, drip, raw, silence
from wattledger.jobs.claims import GpuBy, KubeletPodResources, PodUids
from wattledger.jobs.claims.grpc_call import CallFailed, call
from wattledger.jobs.claims.kubelet import LIST, Held, device_gpu, held_devices
from wattledger.jobs.claims.protobuf import fields

ME = {os.getuid()}
A, B, C = (f"GPU-11111111-aaaa-4bbb-8ccc-00000000000{n}" for n in (1, 2, 3))
MIG = "MIG-22222222-aaaa-4bbb-8ccc-000000000001"

# Written by protobuf 7.36 from a copy of podresources/v1/api.proto: six pods with GPUs, shared
# GPUs, a MIG instance, a resource claim, CPUs, memory and NUMA nodes.
RECORDED = bytes.fromhex("""
0a320a18636f7265646e732d356437386339383639642d6162636465120b6b7562652d73797374656d1a090a
07636f7265646e730aca010a07747261696e2d3012026d6c1aaf010a046d61696e12680a0e6e76696469612e
636f6d2f67707512284750552d31313131313131312d616161612d346262622d386363632d30303030303030
303030303112284750552d31313131313131312d616161612d346262622d386363632d303030303030303030
3030321a020a0012160a0872646d612f68636112066d6c78355f301a020a001a0e0001ac02ffffffffffffff
ffff0122150a066d656d6f7279108080808080201a040a0208011a090a07736964656361720a600a0a6e6f74
65626f6f6b2d6112026d6c1a4e0a026e6212480a156e76696469612e636f6d2f6770752e736861726564122b
4750552d31313131313131312d616161612d346262622d386363632d3030303030303030303030333a3a331a
020a000a8d010a0a6e6f7465626f6f6b2d6212026d6c1a7b0a026e6212750a156e76696469612e636f6d2f67
70752e736861726564122b4750552d31313131313131312d616161612d346262622d386363632d3030303030
303030303030333a3a30122b4750552d31313131313131312d616161612d346262622d386363632d30303030
30303030303030333a3a311a020a000a630a086c6c6d2d376639631205696e6665721a500a06736572766572
12460a166e76696469612e636f6d2f6d69672d31672e3130676212284d49472d32323232323232322d616161
612d346262622d386363632d3030303030303030303030311a020a000a630a076472612d706f6412026d6c1a
540a046d61696e2a4c12036770751a026d6c22410a210a1f6b38732e6770752e6e76696469612e636f6d2f64
65766963653d6770752d30120e6770752e6e76696469612e636f6d1a056e6f64653122056770752d30
""")
UIDS = {
    ("ml", "train-0"): "aaaaaaaa-0000-4000-8000-000000000001",
    ("ml", "notebook-a"): "aaaaaaaa-0000-4000-8000-000000000002",
    ("ml", "notebook-b"): "aaaaaaaa-0000-4000-8000-000000000003",
    ("infer", "llm-7f9c"): "0123456789abcdef0123456789abcdef",
}


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    path = tmp_path / "pods"
    path.mkdir(mode=0o755)
    for (namespace, pod), uid in UIDS.items():
        (path / f"{namespace}_{pod}_{uid}").mkdir()
    (path / "not-a-pod").mkdir()
    return path


@pytest.fixture
def socket_path() -> Iterator[Path]:
    """Short: a Unix socket's path has 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="k") as folder:
        yield Path(folder) / "kubelet.sock"


def source(clock: FakeClock, logs: Path, **more: object) -> KubeletPodResources:
    uids = PodUids(logs, trusted_uids=ME)
    return KubeletPodResources(clock, pod_uids=uids, **more)  # type: ignore[arg-type]


def test_recorded_answer_is_read() -> None:
    held = list(held_devices(RECORDED))

    assert held == [
        Held("ml", "train-0", "main", "nvidia.com/gpu", A),
        Held("ml", "train-0", "main", "nvidia.com/gpu", B),
        Held("ml", "notebook-a", "nb", "nvidia.com/gpu.shared", f"{C}::3"),
        Held("ml", "notebook-b", "nb", "nvidia.com/gpu.shared", f"{C}::0"),
        Held("ml", "notebook-b", "nb", "nvidia.com/gpu.shared", f"{C}::1"),
        Held("infer", "llm-7f9c", "server", "nvidia.com/mig-1g.10gb", MIG),
        Held("ml", "dra-pod", "main", "", "gpu-0"),
    ]


def test_every_shorter_answer_is_refused_or_says_less() -> None:
    whole = list(held_devices(RECORDED))
    for length in range(len(RECORDED)):
        try:
            part = list(held_devices(RECORDED[:length]))
        except ValueError:
            continue
        assert part == whole[: len(part)]


@given(st.binary(max_size=300))
def test_no_bytes_do_more_than_be_refused(noise: bytes) -> None:
    for message in (noise, RECORDED[:50] + noise):
        try:
            list(fields(memoryview(message)))
            list(held_devices(message))
        except ValueError:
            pass


@pytest.mark.parametrize(
    "message",
    [
        b"\x0a\x05ab",  # longer than what is there
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # a number of 11 bytes
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f",  # more than 64 bits
        b"\x00\x01",  # field 0
        b"\x0b",  # a group
        b"\x0f",  # wire type 7
        b"\x09\x01",  # half a fixed64
        b"\x08\x01",  # pods as numbers
        b"\x0a\x04\x0a\x02\xff\xfe",  # a name that is not UTF-8
        b"\x0a\x08\x0a\x02..\x12\x02ml",  # a name that leaves the directory
    ],
)
def test_malformed_messages_are_refused(message: bytes) -> None:
    with pytest.raises(ValueError):
        list(held_devices(message))


@pytest.mark.parametrize(
    ("device", "gpu"),
    [
        (A, (A, GpuBy.UUID, "", None)),
        (f"{A}::12", (A, GpuBy.UUID, "", None)),
        (MIG, ("", GpuBy.UUID, MIG, None)),
        (f"{MIG}::0", ("", GpuBy.UUID, MIG, None)),
        (f"MIG-{A}/3/0", (A, GpuBy.UUID, f"MIG-{A}/3/0", 3)),
        ("nvidia2", ("2", GpuBy.MINOR, "", None)),
        ("nvidia2/gi5", ("2", GpuBy.MINOR, "", 5)),
        ("nvidia2/vgpu1", ("2", GpuBy.MINOR, "", None)),
    ],
)
def test_device_ids(device: str, gpu: tuple[str, GpuBy, str, int | None]) -> None:
    assert device_gpu(device) == gpu


@pytest.mark.parametrize(
    "device", ["", "0", "GPU-1", f"{A}::", f"{A}::x", f"{A}\n", "::1", f" {A}"]
)
def test_other_ids_are_none(device: str) -> None:
    assert device_gpu(device) is None


def test_claims_name_pods_by_uid_and_share_by_replicas(logs: Path) -> None:
    clock = FakeClock()
    kubelet = source(clock, logs, call=lambda: RECORDED)

    claims = {(c.job.pod, c.gpu or c.mig_uuid): c for c in kubelet.claims()}

    assert {key: c.job_id for key, c in claims.items()} == {
        ("train-0", A): UIDS["ml", "train-0"],
        ("train-0", B): UIDS["ml", "train-0"],
        ("notebook-a", C): UIDS["ml", "notebook-a"],
        ("notebook-b", C): UIDS["ml", "notebook-b"],
        ("llm-7f9c", MIG): UIDS["infer", "llm-7f9c"],
    }
    shares = {pod: (c.share_num, c.share_den) for (pod, _), c in claims.items()}
    assert shares == {
        "train-0": (1, 1), "notebook-a": (1, 3), "notebook-b": (2, 3), "llm-7f9c": (1, 1)
    }  # fmt: skip
    assert claims["train-0", A].job.containers == ("main",)
    assert claims["train-0", A].job.namespace == "ml"
    assert [fault.reason for fault in kubelet.faults()] == ["resource_claim"]


def test_pods_without_gpus_are_known_by_name(logs: Path) -> None:
    kubelet = source(FakeClock(), logs, call=lambda: b"")
    assert kubelet.claims() == ()
    assert {(j.namespace, j.pod): j.job_id for j in kubelet.jobs()} == UIDS


def test_a_pod_without_a_uid_is_a_claim_of_nobody_and_a_fault(logs: Path) -> None:
    for child in logs.iterdir():
        if child.name.startswith("ml_train-0_"):
            child.rmdir()
    kubelet = source(FakeClock(), logs, call=lambda: RECORDED)

    unknown = [c for c in kubelet.claims() if not c.job_id]

    assert {c.gpu for c in unknown} == {A, B}
    assert "unknown_pod" in {fault.reason for fault in kubelet.faults()}


def test_of_two_pods_of_one_name_the_living_one_counts(logs: Path) -> None:
    old, new = UIDS["ml", "train-0"], "ffffffff-0000-4000-8000-000000000009"
    (logs / f"ml_train-0_{new}").mkdir()
    os.utime(logs / f"ml_train-0_{new}", (2e9, 2e9))
    uids = PodUids(logs, trusted_uids=ME)
    pod = ("ml", "train-0")

    assert uids.find([pod])[0][pod] == new
    assert uids.find([pod], lambda _, uid: uid == old)[0][pod] == old


def test_log_directories_of_others_are_not_believed(logs: Path) -> None:
    logs.chmod(0o777)
    kubelet = source(FakeClock(), logs, call=lambda: RECORDED)

    assert {c.job_id for c in kubelet.claims()} == {""}
    assert "no_pod_uids" in {fault.reason for fault in kubelet.faults()}


def test_it_is_asked_once_in_five_seconds_or_on_request(logs: Path) -> None:
    clock, calls = FakeClock(), []
    kubelet = source(clock, logs, call=lambda: calls.append(1) or RECORDED)  # type: ignore[func-returns-value]
    for _ in range(5):
        kubelet.claims()
        clock.advance(1)
    assert len(calls) == 1

    kubelet.claims()
    assert len(calls) == 2

    kubelet.refresh()
    kubelet.claims()
    assert len(calls) == 3


def test_its_last_word_stands_for_a_while(logs: Path) -> None:
    clock = FakeClock()
    replies: list[bytes | CallFailed] = [RECORDED]

    def ask() -> bytes:
        if isinstance(replies[0], bytes):
            return replies[0]
        raise replies[0]

    kubelet = source(clock, logs, call=ask)
    known = kubelet.claims()
    replies[0] = CallFailed("timeout", "the kubelet did not answer")

    clock.advance(60)
    assert kubelet.claims() == known
    assert kubelet.faults()[0].reason == "timeout"
    assert kubelet.faults()[0].permanent

    clock.advance(300)
    assert kubelet.claims() == ()

    replies[0] = RECORDED
    clock.advance(5)
    assert len(kubelet.claims()) == len(known)
    assert "timeout" not in {fault.reason for fault in kubelet.faults()}


def test_pods_that_ended_lose_their_claims(logs: Path) -> None:
    clock = FakeClock()
    gone = UIDS["ml", "train-0"]
    kubelet = source(clock, logs, call=lambda: RECORDED, alive=lambda _, uid: uid != gone)
    assert gone in {c.job_id for c in kubelet.claims()}

    clock.advance(301)
    assert gone not in {c.job_id for c in kubelet.claims()}
    assert len(kubelet.claims()) == 3


# ── over the socket ──────────────────────────────────────────────────────────────────────────────


def test_a_call_over_http2(socket_path: Path) -> None:
    requests: list[dict[str, str]] = []
    with KubeletServer(socket_path, answer(RECORDED, requests=requests)):
        assert call(socket_path, LIST, b"", 5.0, ME) == RECORDED

    assert requests[0][":path"] == "/v1.PodResourcesLister/List"
    assert requests[0][":method"] == "POST"
    assert requests[0]["content-type"] == "application/grpc"
    assert requests[0]["te"] == "trailers"


def test_an_answer_of_a_megabyte_passes_flow_control(socket_path: Path) -> None:
    body = b"\x0a\x00" * 500_000
    with KubeletServer(socket_path, answer(body)):
        assert call(socket_path, LIST, b"", 20.0, ME) == body


def test_a_kubelet_that_restarts_is_asked_at_its_new_socket(socket_path: Path, logs: Path) -> None:
    clock = FakeClock()
    kubelet = source(clock, logs, socket=socket_path, trusted_uids=ME, timeout_s=5.0)
    with KubeletServer(socket_path, answer(RECORDED)):
        first = kubelet.claims()
    clock.advance(5)
    assert kubelet.claims() == first
    assert kubelet.faults()[0].reason == "no_kubelet"
    clock.advance(5)
    with KubeletServer(socket_path, answer(b"")):
        assert kubelet.claims() == ()
    assert kubelet.faults() == ()


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (silence, "timeout"),
        (drip, "timeout"),
        (raw(b""), "broken_off"),
        (raw(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "broken_off"),
        (raw(b"\x00\x00\x00\x00\x00\x00\x00\x00\x00"), "protocol_error"),  # data on no stream
        (raw(b"\x00\x00\x02\x01\x04\x00\x00\x00\x01\xff\xff"), "protocol_error"),  # bad HPACK
        (raw(b"\x00\x00\x08\x07\x00\x00\x00\x00\x00" + struct.pack(">II", 0, 2)), "broken_off"),
        (answer(b"", status="12", message="unknown service"), "grpc_error"),
        (answer(b"", status="8"), "grpc_error"),
        (answer(b"", http="503"), "protocol_error"),
        (answer(b"", prefix=b""), "protocol_error"),
        (answer(b"ab", prefix=b"\x01\x00\x00\x00\x02"), "protocol_error"),
        (answer(b"ab", prefix=b"\x00\x00\x00\x00\x03"), "protocol_error"),
        (answer(b"ab", prefix=b"\x00\xff\xff\xff\xff"), "protocol_error"),
        (answer(bytes(4 * 1024 * 1024 + 1)), "too_large"),
    ],
)
def test_what_a_kubelet_may_do_wrong(socket_path: Path, script: Script, reason: str) -> None:
    timeout_s = 0.3 if reason == "timeout" else 20.0
    with KubeletServer(socket_path, script), pytest.raises(CallFailed) as failed:
        call(socket_path, LIST, b"", timeout_s, ME)
    assert failed.value.reason == reason


def test_a_socket_of_another_user_is_not_believed(socket_path: Path) -> None:
    with KubeletServer(socket_path, answer(RECORDED)), pytest.raises(CallFailed) as failed:
        call(socket_path, LIST, b"", 5.0, {os.getuid() + 1})
    assert failed.value.reason == "not_trusted"


def test_a_machine_without_a_kubelet_is_no_fault(socket_path: Path, logs: Path) -> None:
    kubelet = source(FakeClock(), logs, socket=socket_path, trusted_uids=ME, timeout_s=1.0)
    assert kubelet.claims() == ()
    assert kubelet.faults() == ()


def test_no_kubelet_no_socket_no_path(socket_path: Path, tmp_path: Path) -> None:
    for path in (socket_path, tmp_path / ("x" * 200)):
        with pytest.raises(CallFailed):
            call(path, LIST, b"", 1.0, ME)
    socket_path.write_text("")
    with pytest.raises(CallFailed) as failed:
        call(socket_path, LIST, b"", 1.0, ME)
    assert failed.value.reason == "no_kubelet"
