"""Slurm's files: strict reading, distrust, staleness; and those of DCGM and jobstats."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes import FakeClock
from wattledger.jobs.claims import DcgmJobMapping, GpuBy, JobNames, JobstatsFiles, SlurmHooks
from wattledger.jobs.claims.slurm_text import (
    clean_name,
    gpus_of,
    parse_job_file,
    parse_name_file,
)

BOOT = "11111111-2222-4333-8444-555555555555"
ME = {os.getuid()}
A = "GPU-11111111-aaaa-4bbb-8ccc-000000000001"
MIG = "MIG-22222222-aaaa-4bbb-8ccc-000000000001"


def job_file(job_id: int = 7, gpus: str = "0", *, boot: str = BOOT, more: str = "") -> str:
    return f"wattledger-job 1\nid={job_id}\nboot={boot}\nuid=1001\ngpus={gpus}\n{more}end\n"


def put(directory: Path, name: str, text: str) -> Path:
    """As the prolog does: renamed into place."""
    new = directory / f".new.{name}"
    new.write_text(text)
    new.chmod(0o644)
    return new.rename(directory / name)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "jobs"
    path.mkdir(mode=0o755)
    return path


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(boot_id=BOOT)


def hooks(clock: FakeClock, directory: Path, **more: object) -> SlurmHooks:
    return SlurmHooks(clock, directory, trusted_uids=ME, **more)  # type: ignore[arg-type]


def reasons(source: SlurmHooks | DcgmJobMapping | JobstatsFiles) -> list[str]:
    return [fault.reason for fault in source.faults()]


# ── reading ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "gpus"),
    [
        ("", []),
        ("0", ["0"]),
        ("0,1,7", ["0", "1", "7"]),
        ("0-2,5", ["0", "1", "2", "5"]),
        ("1,1", ["1"]),
        (A, [A]),
        (MIG, [MIG]),
    ],
)
def test_gpu_lists(text: str, gpus: list[str]) -> None:
    assert [gpu.gpu or gpu.mig_uuid for gpu in gpus_of(text, GpuBy.MINOR)] == gpus


@pytest.mark.parametrize(
    "text", ["a", "0,", ",", "0 1", "2-1", "0-999", "99999", "-1", "GPU-0", "٣"]
)
def test_other_gpu_lists_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        gpus_of(text, GpuBy.MINOR)


def test_an_order_turns_numbers_into_uuids() -> None:
    assert [g.mig_uuid or g.gpu for g in gpus_of("0,1", GpuBy.MINOR, (MIG, A))] == [MIG, A]
    with pytest.raises(ValueError):
        gpus_of("2", GpuBy.MINOR, (MIG, A))


def test_every_half_of_a_file_is_refused() -> None:
    text = job_file(more="user=alice\nstart=1800000000\n")
    assert parse_job_file("7", text, GpuBy.MINOR).job.user == "alice"
    for length in range(len(text)):
        with pytest.raises(ValueError):
            parse_job_file("7", text[:length], GpuBy.MINOR)


@pytest.mark.parametrize(
    "text",
    [
        job_file(8),  # another's id
        job_file(gpus="x"),
        job_file(more="uid=0\n"),  # a key twice
        job_file(more="no equals sign\n"),
        job_file(more="user=\x1b\n"),
        job_file(more="restart=-1\n"),
        job_file(more="start=99999999999\n"),
        job_file(more="sluid=s1\n"),
        job_file(boot="../../etc"),
        "\n" + job_file(),
        job_file().replace("job 1", "job 2"),
    ],
)
def test_files_that_no_prolog_wrote_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_job_file("7", text, GpuBy.MINOR)


def test_keys_of_a_later_version_are_stepped_over() -> None:
    assert parse_job_file("7", job_file(more="shape=round\n"), GpuBy.MINOR).job.job_id == "7"


@given(st.text(max_size=200), st.binary(max_size=200))
def test_no_text_does_more_than_be_refused(text: str, noise: bytes) -> None:
    for one in (text, noise.decode("utf-8", "surrogateescape"), job_file(more=text)):
        for read in (
            lambda t: parse_job_file("7", t, GpuBy.MINOR),
            parse_name_file,
        ):
            with contextlib.suppress(ValueError):
                read(one)


@given(st.binary(max_size=600))
def test_clean_names_are_short_printable_unicode(raw: bytes) -> None:
    name = clean_name(raw.decode("utf-8", "surrogateescape"))

    assert len(name) <= 128
    assert name.isprintable()
    name.encode("utf-8")


# ── distrust ─────────────────────────────────────────────────────────────────────────────────────


def test_no_directory_is_no_fault(clock: FakeClock, tmp_path: Path) -> None:
    source = hooks(clock, tmp_path / "none")
    assert source.claims() == ()
    assert source.faults() == ()


def test_names_that_are_no_ids_are_not_read(clock: FakeClock, directory: Path) -> None:
    for name in (".new.7.1", "7.bak", "x", "12345678901", "ended.x", "ended.1234", "٣"):
        (directory / name).write_text("nonsense")
    source = hooks(clock, directory)

    assert source.claims() == ()
    assert source.faults() == ()


def test_a_directory_others_can_write_to_is_not_believed(clock: FakeClock, directory: Path) -> None:
    put(directory, "7", job_file())
    source = hooks(clock, directory)
    assert len(source.claims()) == 1

    directory.chmod(0o777)
    assert source.claims() == ()
    assert reasons(source) == ["not_trusted"]

    directory.chmod(0o755)
    assert len(source.claims()) == 1
    assert source.faults() == ()


def test_a_directory_of_another_user_is_not_believed(clock: FakeClock, directory: Path) -> None:
    put(directory, "7", job_file())
    source = SlurmHooks(clock, directory, trusted_uids={os.getuid() + 1})

    assert source.claims() == ()
    assert reasons(source) == ["not_trusted"]


@pytest.mark.skipif(os.getuid() != 0, reason="gives files away")
def test_a_file_of_another_user_is_not_believed(clock: FakeClock, directory: Path) -> None:
    put(directory, "7", job_file())
    os.chown(put(directory, "8", job_file(8, "1")), 1001, 1001)
    source = hooks(clock, directory)

    assert [c.job_id for c in source.claims()] == ["7"]
    assert reasons(source) == ["not_trusted"]


def _link(path: Path) -> None:
    path.symlink_to(path.parent / "7")


def _fifo(path: Path) -> None:
    os.mkfifo(path, 0o644)


def _directory(path: Path) -> None:
    path.mkdir()


def _writable(path: Path) -> None:
    path.write_text(job_file(8))
    path.chmod(0o666)


def _large(path: Path) -> None:
    path.write_text("x" * 5000)


def _empty(path: Path) -> None:
    path.write_text("")


def _binary(path: Path) -> None:
    path.write_bytes(b"\xff\x00" * 50)


@pytest.mark.parametrize(
    "make", [_link, _fifo, _directory, _writable, _large, _empty, _binary], ids=lambda f: f.__name__
)
def test_what_is_no_plain_file_is_not_believed(
    clock: FakeClock, directory: Path, make: Callable[[Path], None]
) -> None:
    put(directory, "7", job_file())
    make(directory / "8")
    if make is not _writable:
        (directory / "8").chmod(0o644)
    source = hooks(clock, directory)

    assert [c.job_id for c in source.claims()] == ["7"]
    assert len(source.faults()) == 1


def test_a_link_for_a_directory_is_not_followed(clock: FakeClock, directory: Path) -> None:
    put(directory, "7", job_file())
    link = directory.parent / "link"
    link.symlink_to(directory)
    source = hooks(clock, link)

    assert source.claims() == ()
    assert reasons(source) == ["not_trusted"]


def test_ten_thousand_bad_files_are_a_few_faults(clock: FakeClock, directory: Path) -> None:
    for job_id in range(1, 2001):
        (directory / str(job_id)).write_text("x")
        (directory / str(job_id)).chmod(0o644)
    source = hooks(clock, directory)

    assert source.claims() == ()
    assert 0 < len(source.faults()) <= 32


# ── only what changed is read ────────────────────────────────────────────────────────────────────


def test_files_that_come_change_and_go(clock: FakeClock, directory: Path) -> None:
    source = hooks(clock, directory)
    put(directory, "7", job_file())
    assert [c.gpu for c in source.claims()] == ["0"]
    for _ in range(3):
        assert [c.gpu for c in source.claims()] == ["0"]

    put(directory, "7", job_file(gpus="1"))
    assert [c.gpu for c in source.claims()] == ["1"]

    put(directory, "8", job_file(8, "2"))
    assert [c.gpu for c in source.claims()] == ["1", "2"]

    (directory / "7").unlink()
    assert [c.gpu for c in source.claims()] == ["2"]


def test_unchanged_files_are_parsed_once(clock: FakeClock, directory: Path) -> None:
    put(directory, "7", job_file())
    source = hooks(clock, directory)
    first = source.claims()

    assert all(source.claims() is first for _ in range(3))


# ── staleness ────────────────────────────────────────────────────────────────────────────────────


def test_files_of_an_earlier_boot_are_ignored(clock: FakeClock, directory: Path) -> None:
    put(directory, "7", job_file(boot="99999999-2222-4333-8444-555555555555"))
    source = hooks(clock, directory)

    assert source.claims() == ()
    assert source.jobs() == ()
    assert source.faults() == ()


def test_a_job_that_shows_no_cgroup_loses_its_claim(clock: FakeClock, directory: Path) -> None:
    living = {"7", "8"}
    put(directory, "7", job_file(7, "0"))
    put(directory, "8", job_file(8, "1"))
    source = hooks(clock, directory, alive=lambda _, job_id: job_id in living)
    assert len(source.claims()) == 2

    living.discard("7")
    clock.advance(299)
    assert len(source.claims()) == 2  # 299 s since it was last seen to live
    clock.advance(2)
    assert [c.job_id for c in source.claims()] == ["8"]
    assert reasons(source) == ["stale"]

    living.add("7")
    assert len(source.claims()) == 2
    assert source.faults() == ()


def test_a_job_that_starts_has_time_to_show_itself(clock: FakeClock, directory: Path) -> None:
    source = hooks(clock, directory, alive=lambda *_: False)
    put(directory, "7", job_file())
    assert len(source.claims()) == 1
    clock.advance(300)
    assert len(source.claims()) == 1
    clock.advance(1)
    assert source.claims() == ()


def test_where_nobody_can_tell_every_claim_stands(clock: FakeClock, directory: Path) -> None:
    source = hooks(clock, directory, alive=lambda *_: None)
    put(directory, "7", job_file())
    source.claims()
    clock.advance(100_000)
    assert len(source.claims()) == 1


def test_a_later_living_job_on_the_same_gpu_ends_a_dead_claim(
    clock: FakeClock, directory: Path
) -> None:
    os.utime(put(directory, "7", job_file(7, "0")), ns=(10**18, 10**18))
    os.utime(put(directory, "8", job_file(8, "0")), ns=(2 * 10**18, 2 * 10**18))
    source = hooks(clock, directory, alive=lambda _, job_id: job_id == "8")

    assert [c.job_id for c in source.claims()] == ["8"]
    assert reasons(source) == ["stale"]


def test_two_living_jobs_share_a_gpu(clock: FakeClock, directory: Path) -> None:
    put(directory, "7", job_file(7, "0", more="mps=25\n"))
    put(directory, "8", job_file(8, "0", more="mps=50\n"))
    source = hooks(clock, directory, alive=lambda *_: True)

    assert [(c.job_id, c.share_num, c.share_den) for c in source.claims()] == [
        ("7", 25, 100), ("8", 50, 100)
    ]  # fmt: skip


# ── names ────────────────────────────────────────────────────────────────────────────────────────

NAME_FILE = "wattledger-job 1\nid=7\nname=train\nend\n"


def test_a_file_system_that_hangs_holds_nobody(clock: FakeClock, directory: Path) -> None:
    started, finish = threading.Event(), threading.Event()

    def hang(work: Callable[[], None]) -> None:
        def held() -> None:
            started.set()
            finish.wait(20)
            work()

        threading.Thread(target=held, daemon=True).start()

    names = directory.parent / "names"
    names.mkdir()
    put(names, "7", NAME_FILE)
    put(directory, "7", job_file())
    looked = JobNames(clock, names, trusted_uids=ME, run=hang)
    source = hooks(clock, directory, names=looked)

    assert source.claims()[0].job.name == ""
    assert started.wait(20)
    for _ in range(20):
        clock.advance(15)
        assert source.claims()[0].job.name == ""
    finish.set()


def test_a_name_that_comes_late_is_found(clock: FakeClock, directory: Path) -> None:
    names = directory.parent / "names"
    names.mkdir()
    put(directory, "7", job_file())
    looked = JobNames(clock, names, trusted_uids=ME, run=lambda work: work())
    source = hooks(clock, directory, names=looked)
    assert source.claims()[0].job.name == ""

    put(names, "7", NAME_FILE)
    clock.advance(5)
    assert source.claims()[0].job.name == ""  # not asked for again yet
    clock.advance(5)
    assert source.claims()[0].job.name == "train"


def test_names_by_others_are_not_believed(clock: FakeClock, directory: Path) -> None:
    names = directory.parent / "names"
    names.mkdir()
    put(names, "7", NAME_FILE).chmod(0o666)
    put(directory, "7", job_file())
    looked = JobNames(clock, names, trusted_uids=ME, run=lambda work: work())
    source = hooks(clock, directory, names=looked)

    assert source.claims()[0].job.name == ""
    assert reasons(source) == ["bad_name_file"]


# ── other tools' files ───────────────────────────────────────────────────────────────────────────


def now_files(clock: FakeClock, directory: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = directory / name
        path.write_text(text)
        path.chmod(0o644)
        os.utime(path, ns=(clock.wall_ns, clock.wall_ns))


def test_dcgm_job_mapping(clock: FakeClock, directory: Path) -> None:
    now_files(clock, directory, {"0": "4711\n", "1": "", "2": "8\n9\n", "3.2": "10", "README": "x"})
    source = DcgmJobMapping(clock, directory, trusted_uids=ME)

    assert [
        (c.job_id, c.gpu, c.gpu_by, c.gpu_instance, c.share_num, c.share_den)
        for c in source.claims()
    ] == [
        ("4711", "0", GpuBy.INDEX, None, 1, 1),
        ("8", "2", GpuBy.INDEX, None, 1, 2),
        ("9", "2", GpuBy.INDEX, None, 1, 2),
        ("10", "3", GpuBy.INDEX, 2, 1, 1),
    ]
    assert source.faults() == ()


def test_jobstats_files_by_number_and_uuid(clock: FakeClock, directory: Path) -> None:
    now_files(
        clock,
        directory,
        {"0": "4711 1001\n", A: "4711 1001\n", "1": "8 1002\n", MIG: "9 1003\n"},
    )
    source = JobstatsFiles(clock, directory, trusted_uids=ME)

    assert sorted((c.job_id, c.gpu or c.mig_uuid, c.job.uid) for c in source.claims()) == [
        ("4711", A, 1001),
        ("8", "1", 1002),
        ("9", MIG, 1003),
    ]


@pytest.mark.parametrize(
    "text", ["4711", "4711 ", "47 11 12\n", "x y\n", "12345678901 1\n", "\x00"]
)
def test_jobstats_files_that_are_none(clock: FakeClock, directory: Path, text: str) -> None:
    now_files(clock, directory, {"0": text, "1": "8 1002\n"})
    source = JobstatsFiles(clock, directory, trusted_uids=ME)

    assert [c.job_id for c in source.claims()] == ["8"]
    assert reasons(source) == ["bad_file"]


@pytest.mark.parametrize("text", ["../etc\n", "1;2\n", "12345678901\n", "x\n", "\xff\n"])
def test_dcgm_files_that_are_none(clock: FakeClock, directory: Path, text: str) -> None:
    now_files(clock, directory, {"0": text})
    source = DcgmJobMapping(clock, directory, trusted_uids=ME)

    assert source.claims() == ()
    assert reasons(source) == ["bad_file"]


def test_a_file_written_in_place_is_seen(clock: FakeClock, directory: Path) -> None:
    now_files(clock, directory, {"0": "7\n"})
    source = DcgmJobMapping(clock, directory, trusted_uids=ME)
    for _ in range(3):
        assert [c.job_id for c in source.claims()] == ["7"]

    clock.advance(1)
    now_files(clock, directory, {"0": "8\n"})
    assert [c.job_id for c in source.claims()] == ["8"]


def test_files_from_before_the_boot_are_ignored(clock: FakeClock, directory: Path) -> None:
    now_files(clock, directory, {"0": "7\n"})
    clock.reboot("another", seconds_down=7200)
    assert DcgmJobMapping(clock, directory, trusted_uids=ME).claims() == ()


def test_forged_mapping_files_are_not_believed(clock: FakeClock, directory: Path) -> None:
    now_files(clock, directory, {"0": "7\n"})
    (directory / "0").chmod(0o666)
    source = DcgmJobMapping(clock, directory, trusted_uids=ME)

    assert source.claims() == ()
    assert reasons(source) == ["not_trusted"]
