"""A job's course of time in one line."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from wattledger.job_reports.timeline import COLUMNS, bars, lines, power_line

BEGIN_S = 1_800_000_000


def moments(energies_uj: dict[int, int], grain_s: int) -> list[dict[str, str]]:
    return [
        {
            "start": datetime.fromtimestamp(BEGIN_S + grain_s * slot, UTC).isoformat(),
            "energy_uj": str(uj),
        }
        for slot, uj in energies_uj.items()
    ]


@given(
    st.dictionaries(st.integers(0, 600), st.integers(1, 10**12), min_size=1, max_size=50),
    st.sampled_from([300, 3600, 86_400]),
    st.integers(2, 80),
)
def test_no_energy_is_lost_in_it(energies: dict[int, int], grain_s: int, columns: int) -> None:
    end_s = BEGIN_S + grain_s * 10_000
    line = power_line(moments(energies, grain_s), grain_s, [(BEGIN_S, end_s)], columns)
    assert 0 < len(line.watts) <= columns
    assert line.bucket_s % grain_s == 0
    assert math.isclose(sum(line.watts) * line.bucket_s * 1e6, sum(energies.values()))
    drawn = bars(line.watts)
    assert len(drawn) == len(line.watts)
    assert [c == " " for c in drawn] == [w == 0 for w in line.watts]
    assert "█" in drawn


def test_a_part_of_a_bucket_counts_as_what_it_is() -> None:
    line = power_line(
        moments({0: 30 * 10**6, 1: 300 * 10**6}, 300), 300, [(BEGIN_S + 270, BEGIN_S + 600)]
    )
    assert line.watts == (1.0, 1.0)
    line = power_line(
        moments({0: 300 * 10**6, 1: 30 * 10**6}, 300), 300, [(BEGIN_S, BEGIN_S + 330)]
    )
    assert line.watts == (1.0, 1.0)


def test_time_between_two_runs_is_no_time_of_the_job() -> None:
    """As of one that was put back into the queue: else the mean is above the highest."""
    spans = [(BEGIN_S, BEGIN_S + 60), (BEGIN_S + 240, BEGIN_S + 420)]
    energies = moments({0: 120 * 10**6, 1: 120 * 10**6}, 300)
    line = power_line(energies, 300, spans)
    assert line.watts == (1.0, 1.0)
    assert lines(line, 1.0)[2] == "mean 1.000 W, highest 1.000 W"
    # Two at once are together in a bucket; what nobody tells of counts whole.
    at_once = [(BEGIN_S + 240, BEGIN_S + 300), (BEGIN_S + 270, BEGIN_S + 300)]
    assert power_line(energies, 300, at_once).watts == (2.0, 0.4)


RUN_SPANS = st.lists(
    st.tuples(st.integers(0, 3000), st.integers(1, 900)), min_size=1, max_size=6
).map(lambda all_: [(BEGIN_S + begin, BEGIN_S + begin + lasts) for begin, lasts in all_])


@given(RUN_SPANS, st.integers(2, 20))
def test_of_a_steady_job_the_highest_is_never_below_the_mean(
    spans: list[tuple[int, int]], columns: int
) -> None:
    """Each run draws 10 W."""
    energies = {
        slot: 10 * 10**6 * ran_s
        for slot in range(15)
        if (
            ran_s := sum(
                max(0, min(end, BEGIN_S + 300 * slot + 300) - max(begin, BEGIN_S + 300 * slot))
                for begin, end in spans
            )
        )
    }
    line = power_line(moments(energies, 300), 300, spans, columns)
    assert max(line.watts) >= 10.0 - 1e-9


def test_where_there_is_no_course_there_is_no_line() -> None:
    assert lines(power_line([], 300, [(BEGIN_S, BEGIN_S)]), 1.0) == []
    assert lines(power_line(moments({0: 5}, 300), 300, [(BEGIN_S, BEGIN_S)]), 1.0) == []
    drawn = lines(
        power_line(moments({0: 5, 1: 5}, 86_400), 86_400, [(BEGIN_S, BEGIN_S + 10**6)]), None
    )
    assert len(drawn) == 3 and "1 day each" in drawn[1] and drawn[2].startswith("highest")
    assert max(map(len, drawn)) <= COLUMNS + 4
