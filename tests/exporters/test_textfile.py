"""The textfile: one page or another, never half of one, and nothing that spoils its reader's."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from exporting import ToolsFake
from snapshots import JOB_LABELS, snapshot, with_jobs
from wattledger.errors import ExportFailed
from wattledger.setting import DurationNs, FilePath
from wattledger.units import NS_PER_S
from wattledger_exporters.prometheus import Renderer
from wattledger_exporters.textfile import PLUGIN, TextfileExporter, TextfileSettings


def made(file: Path, **more: object) -> tuple[TextfileExporter, ToolsFake]:
    tools = ToolsFake(job_labels=JOB_LABELS)
    return PLUGIN.make(TextfileSettings(FilePath(str(file)), **more), tools), tools  # type: ignore[arg-type]


def test_the_file_is_the_page_without_the_metrics_of_the_process(tmp_path: Path) -> None:
    file = tmp_path / "w.prom"
    exporter, _ = made(file)
    exporter.export(with_jobs())
    page = Renderer().render(with_jobs(), 1, process=False, labels=JOB_LABELS)
    assert file.read_bytes() == page.text
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert list(tmp_path.iterdir()) == [file]
    families = list(text_string_to_metric_families(file.read_text()))
    assert len({family.name for family in families}) == len(families), "no HELP twice"
    assert not any(sample.timestamp for family in families for sample in family.samples)


def test_its_mode_does_not_depend_on_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        exporter, _ = made(tmp_path / "w.prom")
        exporter.export(snapshot())
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "w.prom").stat().st_mode) == 0o644


def test_a_reader_keeps_the_page_that_it_has_opened(tmp_path: Path) -> None:
    exporter, _ = made(tmp_path / "w.prom")
    exporter.export(snapshot())
    with (tmp_path / "w.prom").open("rb") as opened:
        head = opened.read(10)
        exporter.export(with_jobs())
        old = head + opened.read()
    assert old == Renderer().render(snapshot(), 1, process=False, labels=JOB_LABELS).text
    assert (tmp_path / "w.prom").read_bytes() != old


def test_what_a_killed_daemon_left_is_no_obstacle_and_no_link_is_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / ".w.prom.new").symlink_to(victim)
    (tmp_path / "w.prom").symlink_to(victim)
    exporter, _ = made(tmp_path / "w.prom")
    exporter.export(snapshot())
    assert victim.read_text() == "precious"
    assert not (tmp_path / "w.prom").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["victim", "w.prom"]


def test_a_directory_that_is_not_there_is_said_with_the_remedy(tmp_path: Path) -> None:
    exporter, _ = made(tmp_path / "gone" / "w.prom")
    with pytest.raises(ExportFailed, match="ReadWritePaths") as caught:
        exporter.export(snapshot())
    assert caught.value.reason == "write"
    (tmp_path / "gone").mkdir()
    exporter.export(snapshot())
    assert (tmp_path / "gone" / "w.prom").exists()


def test_its_place_taken_by_a_directory_leaves_nothing_beside(tmp_path: Path) -> None:
    (tmp_path / "w.prom").mkdir()
    exporter, _ = made(tmp_path / "w.prom")
    with pytest.raises(ExportFailed):
        exporter.export(snapshot())
    assert [path.name for path in tmp_path.iterdir()] == ["w.prom"]


def test_it_is_written_at_its_interval_and_an_old_page_never_looks_fresh(tmp_path: Path) -> None:
    exporter, _ = made(tmp_path / "w.prom", interval=DurationNs(15 * NS_PER_S))
    one = snapshot()
    assert exporter.export(one) == 15.0
    inode = (tmp_path / "w.prom").stat().st_ino
    assert exporter.export(one) == 0.0, "sampling hangs: wait for the next commit"
    assert (tmp_path / "w.prom").stat().st_ino == inode
    assert exporter.export(snapshot()) == 15.0
    each, _ = made(tmp_path / "x.prom", interval=DurationNs(0))
    assert each.export(one) == 0.0


@pytest.mark.parametrize("keep", [False, True])
def test_the_file_goes_with_the_daemon_or_shows_its_last_state(tmp_path: Path, keep: bool) -> None:
    exporter, _ = made(tmp_path / "w.prom", keep_at_end=keep)
    exporter.export(snapshot())
    exporter.close(with_jobs())
    assert (tmp_path / "w.prom").exists() == keep
    if keep:
        assert b"wattledger_job_info" in (tmp_path / "w.prom").read_bytes()


@pytest.mark.parametrize("file", ["", "w.prom", "/x/w.txt", "/x/.prom", "/x/"])
def test_files_that_no_collector_reads_are_refused(file: str) -> None:
    assert [key for key, _ in PLUGIN.faults(TextfileSettings(FilePath(file)))] == ["file"]
    assert not PLUGIN.faults(TextfileSettings(FilePath("/x/w.prom")))
