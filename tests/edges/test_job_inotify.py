"""Being told of directories that come and go, and what is done where nobody tells."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterable
from pathlib import Path

import pytest

from watching import JOB, Watched
from wattledger.jobs import inotify
from wattledger.jobs.hierarchy import find_layout
from wattledger.jobs.inotify import Directory, Inotify
from wattledger.jobs.newcomers import UNTOLD_MOST, Newcomers
from wattledger.jobs.paths import Paths

SCOPE = "/system.slice/slurmstepd.scope"
JOBS = SCOPE + "/job_{}"
LONG_S = 30.0


def directory(base: Path, path: str) -> Directory:
    return Directory(path, (base / path.lstrip("/")).stat().st_ino)


def test_what_came_and_went_is_told_of_the_directory_around_it(tmp_path: Path) -> None:
    (tmp_path / "a/deep").mkdir(parents=True)
    (tmp_path / "b").mkdir()
    notices = Inotify(str(tmp_path))
    both = [directory(tmp_path, path) for path in ("", "/a")]
    assert notices.follow(both) == set(both)
    assert notices.follow(both) == set()
    assert notices.take() == set() and not notices.wait(0)

    (tmp_path / "a/deep/job").mkdir()
    (tmp_path / "b/job").mkdir()
    (tmp_path / "a/file").write_text("")
    assert notices.take() == set()
    (tmp_path / "a/job").mkdir()
    assert notices.wait(0)
    assert notices.take() == {"/a"}
    (tmp_path / "a/job").rename(tmp_path / "job")
    assert notices.take() == {"", "/a"}
    (tmp_path / "job").rmdir()
    assert notices.take() == {""}


def test_what_is_no_longer_followed_is_not_told(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    notices = Inotify(str(tmp_path))
    notices.follow([directory(tmp_path, "/a")])
    notices.follow([])
    notices.take()
    (tmp_path / "a/job").mkdir()
    assert notices.take() == set()


def test_another_directory_of_the_same_name_is_followed_anew(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    notices = Inotify(str(tmp_path))
    notices.follow([directory(tmp_path, "/a")])
    (tmp_path / "a").rename(tmp_path / "old")
    (tmp_path / "a").mkdir()
    assert notices.follow([directory(tmp_path, "/a")])
    notices.take()
    (tmp_path / "a/job").mkdir()
    assert notices.take() == {"/a"}


def test_one_that_is_gone_is_no_error_and_not_followed(tmp_path: Path) -> None:
    notices = Inotify(str(tmp_path))
    gone = [Directory("/gone", 1)]
    assert notices.follow(gone) == set(gone)
    assert notices.follow(gone) == set(gone)


def test_too_many_are_refused(tmp_path: Path) -> None:
    many = [Directory(f"/{n}", n) for n in range(inotify.MAX_DIRECTORIES + 1)]
    with pytest.raises(OSError, match="too many"):
        Inotify(str(tmp_path)).follow(many)


def rest_soon(w: Watched) -> None:
    """Steps until there is nothing to do any more."""
    for _ in range(3):
        w.step()
    assert not w.watch.rest(0)


def test_the_thread_rests_until_a_job_comes(tmp_path: Path) -> None:
    w = Watched(tmp_path)
    w.node.make(f"{SCOPE}/job_1", cpu_s=1)
    w.look()
    rest_soon(w)
    told: list[bool] = []
    thread = threading.Thread(target=lambda: told.append(w.watch.rest(LONG_S)))
    thread.start()
    w.node.make(JOB, cpu_s=0.1)
    thread.join(LONG_S / 2)
    assert told == [True]

    w.step()
    assert w.watch.rest(LONG_S)  # it is young: it is read again soon
    for _ in range(21):
        w.step()
    assert not w.watch.rest(0)


def test_a_job_in_a_directory_that_came_with_it_is_told(tmp_path: Path) -> None:
    """The new directory is followed, and what came before that was done is seen all the same."""
    w = Watched(tmp_path)
    w.node.make("/system.slice", cpu_s=1)
    w.look()
    rest_soon(w)
    w.node.make(f"{SCOPE}/job_1", cpu_s=0.1)
    assert w.watch.rest(0)
    w.step()
    w.node.make(f"{SCOPE}/job_2", cpu_s=0.1)  # maybe before its directory was followed
    assert w.watch.rest(0)
    w.step()
    w.node.remove(f"{SCOPE}/job_2")
    w.step()
    survey = w.look(0.5)
    assert [payee.job_id for payee in survey.runs] == ["1"]
    assert [run.payee.job_id for run in survey.ended] == ["2"]


def test_one_that_comes_as_another_goes_is_seen_by_the_next_step(tmp_path: Path) -> None:
    """The link count stays the same, and neither is young: what was told says where to look."""
    w = Watched(tmp_path)
    for number in range(200):
        w.node.make(f"{SCOPE}/job_{number}", cpu_s=1)
    w.look()
    rest_soon(w)
    w.node.remove(f"{SCOPE}/job_5")
    w.node.make(f"{SCOPE}/job_777", cpu_s=0.1)
    w.step()
    begun_ns = w.clock.wall_ns
    survey = w.look(0.5)
    assert [run.payee.job_id for run in survey.ended] == ["5"]
    (new,) = [payee for payee in survey.runs if payee.job_id == "777"]
    assert new.start_ns == begun_ns


def test_a_run_that_ends_while_the_thread_rests_ends_when_it_was_told(tmp_path: Path) -> None:
    w = Watched(tmp_path)
    w.node.make(JOB, cpu_s=1)
    w.look()
    w.look(10.0)
    rest_soon(w)
    w.node.remove(JOB)
    assert w.watch.rest(LONG_S)
    w.step(0.4)
    told_ns = w.clock.wall_ns
    (run,) = w.look(0.5).ended
    assert run.end_ns == told_ns


class Silent:
    """Notices of a file system that another machine changes, or that cannot be had."""

    def __init__(self, fails_with: int = 0) -> None:
        self.fails_with = fails_with

    def follow(self, directories: Iterable[Directory]) -> set[Directory]:
        if self.fails_with:
            raise OSError(self.fails_with, "no watch is left")
        return set()

    def take(self) -> set[str]:
        return set()

    def wait(self, most_s: float) -> bool:
        return False


def silent(w: Watched, notices: Silent) -> Newcomers:
    return Newcomers(
        find_layout(w.node.sysfs),
        Paths(),
        w.node.procfs,
        notices=lambda _: notices,  # type: ignore[arg-type, return-value]
    )


def test_where_nobody_tells_it_is_looked_at_all_the_time(tmp_path: Path) -> None:
    w = Watched(tmp_path)
    w.node.make(f"{SCOPE}/job_0")
    newcomers = silent(w, Silent())
    newcomers.take(w.clock.advance(1))
    # Where it is not looked at briefly, nobody needs to tell.
    for scope, trusted in (("/user.slice/user-1001.slice/session-{}.scope", True), (JOBS, False)):
        for number in range(UNTOLD_MOST):
            newcomers.step(w.clock.advance(3))
            assert not newcomers.rest(0)
            w.node.make(scope.format(number + 1))
            newcomers.take(w.clock.advance(6))
        newcomers.step(w.clock.advance(3))  # none is young any more
        assert newcomers.rest(0) is not trusted
    assert newcomers.rest(0)
    assert newcomers.step(w.clock.advance(3)) == pytest.approx(0.1)
    assert newcomers.rest(0)


def test_without_inotify_it_is_looked_at_all_the_time(tmp_path: Path) -> None:
    w = Watched(tmp_path)
    w.node.make(f"{SCOPE}/job_0")
    newcomers = silent(w, Silent(errno.ENOSPC))
    newcomers.take(w.clock.advance(1))
    for _ in range(3):
        assert newcomers.step(w.clock.advance(0.1)) == pytest.approx(0.1)
        assert newcomers.rest(LONG_S)
    w.node.make(f"{SCOPE}/job_1")
    newcomers.step(w.clock.advance(0.1))
    w.node.remove(f"{SCOPE}/job_1")
    newcomers.step(w.clock.advance(0.1))
    seen = newcomers.take(w.clock.advance(0.1))
    assert [(one.found.place.job_id, one.came) for one in seen] == [("1", True), ("1", False)]
