"""The series of jobs and users: those in the committed books, the rest as `(other)`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from wattledger import units
from wattledger.model import Amounts, Basis, Kind, Snapshot
from wattledger.model.jobbooks import Cells, JobBooks, PastRuns, RunBook, UserKey, sum_of
from wattledger.model.jobs import OTHER_JOBS, Holding, JobKey
from wattledger_exporters.lines import Samples

USER_LABEL = "user"
NO_PAST = PastRuns()


def job_runs(books: JobBooks) -> dict[JobKey, list[RunBook]]:
    """The jobs that are shown with their runs in the books, the oldest first."""
    jobs: dict[JobKey, list[RunBook]] = {}
    for payee in sorted(books.runs):
        book = books.runs[payee]
        if book.run.key not in books.unlisted:
            jobs.setdefault(book.run.key, []).append(book)
    return jobs


def add_jobs(page: Samples, snapshot: Snapshot, labels: Sequence[str]) -> None:
    """The series of jobs and users.

    Args:
        page: takes the samples.
        snapshot: what to show.
        labels: `jobs.labels`.
    """
    books = snapshot.books.jobs
    for key, runs in job_runs(books).items():
        past = books.past.get(key, NO_PAST)
        if all(book.run.end_ns for book in runs) and key not in snapshot.job_power_uw:
            fill = partial(_job, page, key, runs, past, snapshot, labels)
            page.group((key, tuple(labels)), (past, *runs), fill)
        else:
            _job(page, key, runs, past, snapshot, labels)
    if books.unlisted_total:
        _totals(page, OTHER_JOBS, books.unlisted_total, 0)
    epoch_ns = snapshot.books.epoch_start_ns
    page.add("jobs_over_limit_total", books.unlisted_count, created_ns=epoch_ns)
    if USER_LABEL in labels:
        _users(page, books, by_account="account" in labels)


def _job(
    page: Samples,
    key: JobKey,
    runs: Sequence[RunBook],
    past: PastRuns,
    snapshot: Snapshot,
    labels: Sequence[str],
) -> None:
    first_ns = min(
        filter(None, (past.first_booked_ns, *(book.first_booked_ns for book in runs))),
        default=0,
    )
    _totals(page, key, sum_of((past.cells, *(book.cells for book in runs))), first_ns)
    if key in snapshot.job_power_uw:
        page.add("job_power_watts", units.watts(snapshot.job_power_uw[key]), *key)
    for holding in _holdings(runs):
        page.add("job_device_info", holding.share_ppm / units.PPM, *key, holding.device)
    newest = runs[-1].run
    known = {name: newest.labels.get(name, "") for name in labels}
    page.add_info("job_info", {"manager": key.manager, "job_id": key.job_id, **known})


def _users(page: Samples, books: JobBooks, *, by_account: bool) -> None:
    sums: dict[UserKey, Amounts] = {}
    for key, amounts in books.users.items():
        if not by_account:  # nobody asked for it
            key = key._replace(account="")
        sums[key] = sums.get(key, Amounts()).plus(amounts)
    for key in sorted(sums):
        page.add("user_energy_kwh_total", units.kwh(sums[key].energy_uj), *key)
        page.add("user_co2e_grams_total", units.grams(sums[key].co2e_ug), *key)
        page.add("user_water_liters_total", units.liters(sums[key].water_onsite_ul), *key, "onsite")
        page.add("user_water_liters_total", units.liters(sums[key].water_grid_ul), *key, "grid")


def _totals(page: Samples, key: JobKey, cells: Cells, first_ns: int) -> None:
    if not cells:
        return
    # Plain sums: with a hundred jobs, tuples made on the way are half of what the page costs.
    energy_uj: dict[Kind, int] = {}
    co2e_ug: dict[Basis, int] = {}
    onsite_ul = grid_ul = held_ms = idle_ms = idle_uj = 0
    for (kind, basis), (amounts, held) in cells.items():
        energy_uj[kind] = energy_uj.get(kind, 0) + amounts.energy_uj
        co2e_ug[basis] = co2e_ug.get(basis, 0) + amounts.co2e_ug
        onsite_ul += amounts.water_onsite_ul
        grid_ul += amounts.water_grid_ul
        held_ms += held.held_ms
        idle_ms += held.idle_ms
        idle_uj += held.idle_uj
    for kind in sorted(energy_uj):
        page.add(
            "job_energy_kwh_total", units.kwh(energy_uj[kind]), *key, kind, created_ns=first_ns
        )
    for basis in sorted(co2e_ug):
        page.add(
            "job_co2e_grams_total", units.grams(co2e_ug[basis]), *key, basis, created_ns=first_ns
        )
    for origin, water_ul in (("onsite", onsite_ul), ("grid", grid_ul)):
        liters = units.liters(water_ul)
        page.add("job_water_liters_total", liters, *key, origin, created_ns=first_ns)
    if held_ms:
        held_s, idle_s = (units.seconds(ms * units.NS_PER_MS) for ms in (held_ms, idle_ms))
        page.add("job_held_seconds_total", held_s, *key, created_ns=first_ns)
        page.add("job_held_idle_joules_total", units.joules(idle_uj), *key, created_ns=first_ns)
        page.add("job_held_idle_seconds_total", idle_s, *key, created_ns=first_ns)


def _holdings(runs: Sequence[RunBook]) -> list[Holding]:
    """What the job holds now, each device once."""
    held: dict[str, Holding] = {}
    for book in runs:
        if not book.run.end_ns:
            held.update({holding.device: holding for holding in book.run.holdings})
    return [held[device] for device in sorted(held)]
