"""`wattledger jobs`, `job` and `report --by job`, over a ledger whose daemon is stopped."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fakes import START_WALL_NS, FakeClock
from ledgers import CPU, GPU, PRICE, batch, key, opened
from wattledger.cli import main
from wattledger.core.summing import of_entries
from wattledger.job_reports import tables
from wattledger.model import IDLE, Kind, Price
from wattledger.model.jobs import Held, Holding, JobRun, job_payee
from wattledger.units import NS_PER_S

SLOT_S = START_WALL_NS // NS_PER_S
REPORT = ("report", "--json", "--until", "2030-01-01", "--by")


@pytest.fixture
def ledger(tmp_path: Path) -> str:
    return booked_at(PRICE, tmp_path)


def booked_at(price: Price, tmp_path: Path) -> str:
    path, clock = tmp_path / "l.sqlite", FakeClock()
    alice = JobRun(
        job_payee("slurm", "4711", START_WALL_NS),
        uid=1001,
        labels={"user": "alice", "account": "physics", "name": "=cmd()\x1b[31m"},
        holdings=(Holding(GPU.name, 1_000_000),),
        last_seen_ns=START_WALL_NS + 3600 * NS_PER_S,
    )
    bob = replace(alice, payee=job_payee("pod", "abc", START_WALL_NS + 1), uid=None, labels={})
    bob = replace(bob, end_ns=START_WALL_NS + 60 * NS_PER_S)
    of_gpu = key(SLOT_S, GPU.name, alice.payee, price=price)
    energy = {
        of_gpu: 3_600_000_000_000,
        key(SLOT_S, CPU.name, bob.payee): 5,
        key(SLOT_S, CPU.name, IDLE): 7,
    }
    books = opened(path, clock)
    held = {of_gpu: Held(3_600_000, 2_700_000, 900_000_000_000)}
    _, sums = of_entries(energy, lambda _: Kind.GPU)
    made = batch(energy, runs=(alice, bob), held=held)
    books.commit(replace(made, sums=sums), clock.now())
    books.close()
    return str(path)


def test_a_receipt(ledger: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["job", "4711", "--ledger", ledger]) == 0
    said = capsys.readouterr().out
    assert "slurm/4711" in said and "running, from 2027-01-15T08:00:00Z to now" in said
    assert "energy    1.000 kWh" in said and "GPU 1.000" in said
    words = " ".join(said.split())
    assert "held idle 0.2500 kWh 75% of 1 h GPU time" in words
    assert "475.0 g/kWh, table WORLD (lifecycle, an estimate), PUE 1.56" in words
    assert "75% of the time that it held GPUs they did nothing: 25% of its energy" in words
    assert "Most of the time the GPUs waited" in words and "100% by energy counters" in words
    assert "\x1b" not in said and "cost" not in said and "power" not in said
    assert max(map(len, said.splitlines())) <= 80

    assert main(["job", "pod/abc", "--ledger", ledger, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["totals"]["exact"]["energy_uj"] == "5"
    assert main(["job", "4712", "--ledger", ledger]) == 1
    assert "no job '4712'" in capsys.readouterr().err
    assert main(["job", "", "--ledger", ledger]) == 2


def test_lists(ledger: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["jobs", "--ledger", ledger]) == 0
    said = capsys.readouterr().out
    assert "slurm/4711" in said and "pod/abc" in said and "\x1b" not in said
    assert main(["jobs", "--ledger", ledger, "--csv", "--user", "alice"]) == 0
    (row,) = csv.DictReader(capsys.readouterr().out.splitlines())
    assert row["energy_uj"] == "3600000000000" and row["name"].startswith("'=cmd")
    assert main(["jobs", "--ledger", ledger, "--json", "--limit", "1"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["next_cursor"]
    again = ["jobs", "--ledger", ledger, "--json", "--cursor", answer["next_cursor"]]
    assert main(again) == 0
    (last,) = json.loads(capsys.readouterr().out)["jobs"]
    assert last["job_id"] == "4711"
    assert main(["jobs", "--ledger", ledger, "--limit", "many"]) == 2
    again = ["jobs", "--ledger", ledger, "--json", "--cursor", answer["next_cursor"], "--reverse"]
    assert main(again) == 2
    assert "order" in capsys.readouterr().err


def test_filters_orders_and_all_pages(ledger: str, capsys: pytest.CaptureFixture[str]) -> None:
    def listed(*more: str) -> list[str]:
        assert main(["jobs", "--ledger", ledger, "--json", *more]) == 0
        return [run["job_id"] for run in json.loads(capsys.readouterr().out)["jobs"]]

    assert listed() == ["abc", "4711"]
    assert listed("--reverse") == ["4711", "abc"]
    assert listed("--sort", "energy") == listed("--sort", "held_idle") == ["4711", "abc"]
    assert listed("--account", "physics") == ["4711"] and listed("--account", "x") == []
    assert listed("--name", "=cmd*") == ["4711"] and listed("--name", "cmd*") == []
    assert listed("--limit", "1") == ["abc"]
    assert listed("--all") == ["abc", "4711"]
    assert main(["jobs", "--ledger", ledger, "--csv", "--limit", "1"]) == 0
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 2 and "--all" in said.err


def test_totals_by_job_and_user(ledger: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*REPORT, "job", "--ledger", ledger]) == 0
    answer = json.loads(capsys.readouterr().out)
    rows = {row["group"]: row["energy_uj"] for row in answer["rows"]}
    assert rows == {"slurm/4711": "3600000000000", "pod/abc": "5", "(idle)": "7"}
    assert main([*REPORT, "user", "--ledger", ledger]) == 0
    rows = {r["group"]: r["energy_uj"] for r in json.loads(capsys.readouterr().out)["rows"]}
    assert rows == {"alice": "3600000000000", "(unknown)": "5", "(idle)": "7"}


def test_money_is_of_the_price_that_was_booked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    price = PRICE._replace(cost_u_per_kwh=500_000, currency="CHF", market_ug_per_kwh=100_000_000)
    ledger = booked_at(price, tmp_path)
    settings = tmp_path / "c.toml"  # what a kWh costs today is no matter
    settings.write_text('[site]\nprice_per_kwh = 9.5\ncurrency = "USD"\n')
    since = ("--since", "2027-01-15", "--until", "2027-01-16", "--ledger", ledger)
    of_now = ("--config", str(settings))
    assert main(["waste", "--by", "account", *since, *of_now]) == 0
    said = capsys.readouterr().out
    assert "idle cost" in said.splitlines()[0]
    row = said.splitlines()[1].split()
    assert (row[0], row[-2:]) == ("physics", ["0.20", "CHF"])  # 0.25 kWh × 1.56 × 0.5, to even
    assert main(["job", "4711", "--ledger", ledger, *of_now]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "cost 0.7800 CHF" in said and "(0.2500 kWh, 0.1950 CHF)" in said
    assert "market 156.0 g CO2e by the site's contracts" in said

    assert main(["waste", *since, "--csv", *of_now]) == 0
    (row,) = csv.DictReader(capsys.readouterr().out.splitlines())
    assert row["held_idle_uj"] == "900000000000" and float(row["held_idle_cost"]) == 0.195
    assert (row["held_idle_gpu_hours"], row["currency"]) == ("0.75", "CHF")

    assert main(["jobs", "--ledger", ledger]) == 0
    title, *lines = capsys.readouterr().out.splitlines()
    assert title.split()[-1] == "cost"
    assert [line.split()[-1] for line in lines] == ["-", "CHF"]
    assert main(["jobs", "--ledger", ledger, "--csv"]) == 0
    _, alice = csv.DictReader(capsys.readouterr().out.splitlines())
    assert (float(alice["cost"]), alice["currency"]) == (0.78, "CHF")
    assert float(alice["market_co2e_g"]) == pytest.approx(156.0)
    assert alice["embodied_co2e_g"] == ""

    assert main(["report", *since]) == 0
    said = capsys.readouterr().out
    assert "0.7800 CHF" in said and "156.000" in said
    assert "The cost is of >99% of the energy" in said  # bob's was booked without a price
    assert main(["report", "--by", "job", *since, "--json"]) == 0
    rows = {row["group"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert (rows["slurm/4711"]["cost"], rows["pod/abc"]["cost"]) == (0.78, None)


def test_waste(ledger: str, capsys: pytest.CaptureFixture[str]) -> None:
    since = ("--since", "2027-01-15", "--until", "2027-01-16", "--ledger", ledger)
    assert main(["waste", *since]) == 0
    said = capsys.readouterr().out
    assert said.splitlines()[1].split() == ["alice", "1.00", "0.75", "75%", "0.250", "25%"]
    assert "GPUs that nobody held used 0 kWh; in no line above." in said

    assert main(["waste", *since, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["rows"][0]["held_idle_cost"] is None and answer["idle"]["energy_kwh"] == 0
    assert main(["waste", "--since", "never", "--ledger", ledger]) == 2
    assert (
        main(["waste", "--since", "2027-01-16", "--until", "2027-01-17", "--ledger", ledger]) == 0
    )


def test_an_id_that_two_managers_know(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, clock = tmp_path / "two.sqlite", FakeClock()
    runs = tuple(
        JobRun(job_payee(manager, "1001", START_WALL_NS), uid=1001, last_seen_ns=START_WALL_NS)
        for manager in ("slurm", "user")
    )
    books = opened(path, clock)
    books.commit(batch(runs=runs), clock.now())
    books.close()
    assert main(["job", "1001", "--ledger", str(path)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("slurm/1001") and "Also called that: user/1001" in said
    assert main(["job", "user/1001", "--ledger", str(path)]) == 0
    assert "Also" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("job_id", "shown"),
    [
        ("a\nb.service", "a\\nb.service"),
        ("a\x1b[2Jb", "a\\x1b[2Jb"),
        ("dev-x\\x2dy\n.service", "dev-x\\x2dy\\n.service"),
        ("back\\nslash.service", "back\\nslash.service"),
    ],
)
def test_whatever_is_listed_can_be_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], job_id: str, shown: str
) -> None:
    path, clock = tmp_path / "odd.sqlite", FakeClock()
    run = JobRun(job_payee("unit", job_id, START_WALL_NS), last_seen_ns=START_WALL_NS)
    books = opened(path, clock)
    books.commit(batch({key(SLOT_S, CPU.name, run.payee): 5}, runs=(run,)), clock.now())
    books.close()
    for command in (("jobs",), ("report", "--by", "job", "--until", "2030-01-01")):
        assert main([*command, "--ledger", str(path)]) == 0
        said = capsys.readouterr().out
        assert sum(line.split()[:1] == [f"unit/{shown}"] for line in said.splitlines()) == 1
    for asked in (f"unit/{shown}", shown, job_id):
        assert main(["job", asked, "--ledger", str(path)]) == 0
        said = capsys.readouterr().out
        assert said.startswith(f"unit/{shown}\n") and "Also" not in said
        assert main(["job", asked, "--ledger", str(path), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["job_id"] == job_id


def test_a_time_line_of_bars(tmp_path: Path) -> None:
    path, clock = tmp_path / "line.sqlite", FakeClock()
    run = JobRun(
        job_payee("slurm", "7", START_WALL_NS + 150 * NS_PER_S),
        uid=1001,
        last_seen_ns=START_WALL_NS + 1500 * NS_PER_S,
    )
    watts = (400, 800, 0, 100, 800)
    lasts_s = (150, 300, 300, 300, 300)
    energy = {
        key(SLOT_S + 300 * slot, device.name, run.payee): w * s * 500_000
        for slot, (w, s) in enumerate(zip(watts, lasts_s, strict=True))
        for device in (GPU, CPU)
        if w
    }
    books = opened(path, clock)
    books.commit(batch(energy, runs=(run,)), clock.now())
    books.close()
    for encoding, bars in (("utf-8", "▄█ ▁█"), ("ascii", "=@ .@"), ("latin-1", "=@ .@")):
        done = subprocess.run(
            [sys.executable, "-m", "wattledger.cli", "job", "7", "--ledger", str(path)],
            capture_output=True,
            env={**os.environ, "PYTHONIOENCODING": encoding},
            check=True,
        )
        lines = done.stdout.decode(encoding).splitlines()
        number = next(n for n, line in enumerate(lines) if line.startswith("  power "))
        assert lines[number].split(maxsplit=1)[1] == bars
        assert "2027-01-15 08:00 to 2027-01-15 08:25 UTC, 5 min each" in lines[number + 1]
        assert "highest 800.0 W" in lines[number + 2]


def test_each_command_stands_alone(ledger: str) -> None:
    """In a process of its own, where nothing else was imported before."""
    year = ["--since", "2027-01-01", "--until", "2028-01-01"]  # that of the books, whenever this is
    for command, told in (
        (["jobs"], "4711"),
        (["job", "4711"], "4711"),
        (["waste", *year], "alice"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "wattledger.cli", *command, "--ledger", ledger],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert told in done.stdout


def test_what_is_not_shown_is_said_in_words(
    ledger: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["jobs", "--ledger", ledger, "--limit", "1"]) == 0
    said = capsys.readouterr().out
    assert "There are more; --all shows the rest." in said and "cursor" not in said
    assert main(["jobs", "--ledger", ledger, "--limit", "1", "--csv"]) == 0
    assert capsys.readouterr().err == "wattledger: there are more; --all shows the rest\n"
    assert main(["jobs", "--ledger", ledger, "--user", "nobody"]) == 0
    assert capsys.readouterr().out == "No jobs found.\n"
    empty = ("--since", "2026-01-01", "--until", "2026-01-02", "--ledger", ledger)
    assert main(["waste", *empty]) == 0
    assert capsys.readouterr().out == (
        "Nobody held a GPU from 2026-01-01T00:00:00Z to 2026-01-02T00:00:00Z. "
        "GPUs that nobody held used 0 kWh.\n"
    )
    assert main(["waste", *empty, "--csv"]) == 0  # programs get their header
    assert capsys.readouterr().out.startswith("group,runs,")


def test_those_who_were_shown_to_one_user_only() -> None:
    """What the daemon answers to a user who may see their own jobs only."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        tables.print_jobs({"jobs": [], "next_cursor": None, "restricted_to_uid": 7}, "table")
    assert out.getvalue() == "No jobs of uid 7 found.\n"


def many_jobs(path: Path, count: int) -> None:
    clock = FakeClock()
    payees = [job_payee("slurm", str(n), START_WALL_NS + n) for n in range(count)]
    runs = tuple(
        JobRun(payee, uid=1001, labels={"user": f"u{n}"}, last_seen_ns=START_WALL_NS + n)
        for n, payee in enumerate(payees)
    )
    energy = {key(SLOT_S, GPU.name, payee): 1 + n * 7 % count for n, payee in enumerate(payees)}
    books = opened(path, clock)
    books.commit(batch(energy, runs=runs), clock.now())
    books.close()


@pytest.mark.parametrize("by", ["job", "user"])
def test_those_who_used_most_are_reported_first(
    by: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "many.sqlite"
    many_jobs(path, 60)
    asked = ["report", "--by", by, "--until", "2030-01-01", "--ledger", str(path)]

    def energies(form: str, *more: str) -> tuple[list[int], str, str]:
        assert main([*asked, form, *more]) == 0
        said = capsys.readouterr()
        if form == "--json":
            return [int(r["energy_uj"]) for r in json.loads(said.out)["rows"]], said.out, said.err
        rows = csv.DictReader(said.out.splitlines())
        return [int(r["energy_uj"]) for r in rows], said.out, said.err

    for form in ("--json", "--csv"):
        assert energies(form)[0] == list(range(60, 0, -1))
    few, text, _ = energies("--json", "--limit", "3")
    assert few == [60, 59, 58]
    cut = json.loads(text)
    assert (cut["rows_left_out"], cut["total"]["energy_uj"]) == (57, str(sum(range(61))))
    assert "57 more" in energies("--csv", "--limit", "3")[2]

    assert main(asked) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "And 10 more, in the total; --limit N shows them." in lines
    assert len(lines) == 1 + 50 + 1 + 3, "head, rows, total, notes"
    assert main([*asked, "--limit", "60"]) == 0
    assert "more" not in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([*asked, "--limit", "0"])


def test_hours_stay_in_their_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, clock = tmp_path / "hours.sqlite", FakeClock()
    books = opened(path, clock)
    hours = {key(SLOT_S + 3600 * n): 100 - n for n in range(60)}
    books.commit(batch(hours), clock.now())
    books.close()
    since = ("--since", "2027-01-01", "--until", "2027-02-01", "--ledger", str(path))
    assert main(["report", "--by", "hour", *since]) == 0
    said = capsys.readouterr().out.splitlines()
    hours_shown = [line.split()[0] for line in said if line.startswith("2027-")]
    assert len(hours_shown) == 60 and hours_shown == sorted(hours_shown)
