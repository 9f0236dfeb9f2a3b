"""Which basis the books get: a fallback to another is counted, a marginal one is refused."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from fakes import FakeClock
from grid_feeds import MAX_AGE, T0, FakeSource, feed, run, signal
from wattledger.core.footprint import price_of
from wattledger.errors import GridError
from wattledger.grid.checks import check_signal
from wattledger.grid.outcome import Outcome
from wattledger.model import Basis, FallbackLevel, GridChoice, SiteFactors

SITE = SiteFactors(1_560_000, "default", 360_000, "default", 3_910_000, "default")


class Marginal(FakeSource):
    basis = Basis.MARGINAL


class Lifecycle(FakeSource):
    basis = Basis.LIFECYCLE

    def latest(self, now_wall_ns: int) -> list:  # type: ignore[type-arg]
        return [replace(each, basis=Basis.LIFECYCLE) for each in super().latest(now_wall_ns)]


def test_each_time_that_the_basis_gives_way_is_counted_once() -> None:
    clock, source = FakeClock(), FakeSource()
    grid = feed(source, clock=clock)
    run(grid, clock, 3600)
    assert grid.statuses()[0].basis_fallbacks == 0
    for times in (1, 2):
        source.error = Outcome.HTTP_5XX
        run(grid, clock, MAX_AGE / 1e9 + 7200)
        assert grid.at(clock.wall_ns).level == FallbackLevel.TABLE
        assert grid.statuses()[0].basis_fallbacks == times
        source.error = None
        run(grid, clock, 7200)
        assert grid.at(clock.wall_ns).signal.basis is Basis.GENERATION
        assert grid.statuses()[0].basis_fallbacks == times


def test_a_second_source_of_another_basis_counts_as_well() -> None:
    clock, first, second = FakeClock(), FakeSource("first"), Lifecycle("second")
    first.error = Outcome.TIMEOUT
    grid = feed(first, second, clock=clock)
    grid.poll_once()
    assert grid.at(clock.wall_ns).signal.basis is Basis.LIFECYCLE
    assert [status.basis_fallbacks for status in grid.statuses()] == [1, 0]


def test_a_fallback_on_the_same_basis_is_none_of_another() -> None:
    clock, source = FakeClock(), Lifecycle()
    source.error = Outcome.TIMEOUT
    grid = feed(source, clock=clock)
    run(grid, clock, 3600)
    assert grid.at(clock.wall_ns).level == FallbackLevel.TABLE  # lifecycle, as the source is
    assert grid.statuses()[0].basis_fallbacks == 0


def test_the_count_survives_a_reload() -> None:
    clock, source = FakeClock(), FakeSource()
    source.error = Outcome.TIMEOUT
    old = feed(source, clock=clock)
    old.poll_once()
    new = feed(source, clock=clock)
    new.inherit(old)
    assert new.statuses()[0].basis_fallbacks == 1


def test_a_marginal_source_is_never_asked_and_the_reason_is_shown(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="wattledger.grid.feed")
    clock, marginal, average = FakeClock(), Marginal("first"), FakeSource("second")
    grid = feed(marginal, average, clock=clock)
    run(grid, clock, 3600)
    assert marginal.asked_at == []
    assert grid.at(clock.wall_ns).signal.source == "second"
    assert [status.source for status in grid.statuses()] == ["second", "first"]
    assert "marginal" in grid.statuses()[1].message and grid.statuses()[1].hint
    assert [r.levelname for r in caplog.records] == ["WARNING", "INFO"]
    assert "grid source first: its intensities are marginal" in caplog.text


def test_with_nothing_but_a_marginal_source_the_table_prices() -> None:
    clock, marginal = FakeClock(), Marginal()
    remembered = [signal(T0, basis=Basis.MARGINAL)]
    grid = feed(marginal, clock=clock, remembered=remembered)
    assert grid.poll_once() == 60
    assert grid.at(clock.wall_ns).level == FallbackLevel.TABLE
    assert (marginal.asked_at, grid.signals()) == ([], ())


def test_a_marginal_signal_in_disguise_is_refused() -> None:
    clock, source = FakeClock(), FakeSource()
    source.given = [signal(T0, basis=Basis.MARGINAL)]
    grid = feed(source, clock=clock)
    grid.poll_once()
    assert grid.at(T0).level == FallbackLevel.TABLE
    assert grid.statuses()[0].outcomes == {"bad_value": 1}
    with pytest.raises(GridError, match="marginal"):
        check_signal(
            source.given[0],
            zone="GB",
            basis=Basis.MARGINAL,
            now_wall_ns=T0,
            max_age_ns=MAX_AGE,
        )


def test_no_price_is_made_of_a_marginal_signal() -> None:
    choice = GridChoice(signal(T0, basis=Basis.MARGINAL), FallbackLevel.LIVE, estimated=False)
    with pytest.raises(ValueError, match="marginal"):
        price_of(choice, SITE)
    assert price_of(replace(choice, signal=signal(T0)), SITE).basis is Basis.GENERATION
