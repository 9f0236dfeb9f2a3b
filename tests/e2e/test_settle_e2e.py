"""Settlement over a real daemon: an outage, the published past, twice, verified and exported."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from e2e.daemon import FINE, Daemon, clear_of_the
from e2e.test_grid_live import SCENARIO, iso, maps_source
from grid_server import GridServer, reply

Start = Callable[..., Daemon]
HOUR_S = 3600


def history(intensity: float) -> dict[str, Any]:
    """The last day and the present hour, as Electricity Maps publishes it."""
    now_s = time.time() // HOUR_S * HOUR_S
    return {
        "zone": "DE",
        "history": [
            {
                "zone": "DE",
                "carbonIntensity": intensity,
                "datetime": iso(now_s - HOUR_S * ago),
                "updatedAt": iso(now_s),
                "emissionFactorType": "lifecycle",
                "isEstimated": False,
            }
            for ago in range(23, -1, -1)
        ],
    }


def lines(path: Any) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for text in path.read_text().splitlines():
        record = json.loads(text)
        found.setdefault(record["record"], []).append(record)
    return found


def grams(energy_uj: int, price: dict[str, Any]) -> int:
    """As the head of the export says it."""
    product = energy_uj * int(price["pue_ppm"]) * int(price["intensity_ug_per_kwh"])
    return product // 3_600_000_000_000_000_000


def test_an_outage_is_settled_verified_and_exported(daemon: Start) -> None:
    clear_of_the(HOUR_S)  # the present hour is the last that is published
    node = daemon(scenario=SCENARIO)
    with GridServer(reply(503)) as server:
        node.configure(FINE + 'site = { zone = "DE", pue = 1.5 }\n' + maps_source(node, server))
        node.start()
        node.next_commit()
        page = node.next_commit()
        assert page.one("grid_fallback_level") == 2, "the source is out, the table stands in"
        assert page.one("co2e_settlement_grams") == 0
        socket = ("--socket", str(node.home / "ledger.sock"))
        out = node.cli("settle", *socket)
        assert out.returncode == 1 and "electricity_maps: " in out.stdout, out

        server.script = reply(body=history(11))
        done = node.cli("settle", "--days", "1", "--json", *socket)
        assert done.returncode == 0, done
        total = json.loads(done.stdout)["report"]["total"]
        assert total["basis"] == "lifecycle" and float(total["settled_kwh"]) > 0
        settled = node.next_commit()
        difference_g = settled.one("co2e_settlement_grams")
        assert difference_g < 0
        settled.assert_not_below(page)

        report = json.loads(node.cli("report", "--json", *socket).stdout)["total"]
        assert report["co2e_settled_g"] < report["co2e_g"]
        assert "CO2e settled g" in node.cli("report", *socket).stdout
        assert node.cli("verify", *socket).returncode == 0
        hour = iso(time.time() // HOUR_S * HOUR_S - HOUR_S)
        measured = ("--pue", "1.25", "--since", hour, "--author", "Ada", "--reason", "meter read")
        restated = node.cli("restate", *measured, "--json", *socket)
        assert restated.returncode == 0, restated
        said = json.loads(restated.stdout)
        assert said["recorded"] and float(said["total"]["restated_kwh"]) > 0
        later = node.next_commit()
        assert later.one("co2e_settlement_grams") < difference_g, "a lower PUE, restated"
        later.assert_not_below(settled)
        assert "nothing new" in node.cli("restate", *measured, *socket).stdout
        assert node.cli("restate", "--pue", "1.2", *socket).returncode == 2
        assert node.cli("verify", *socket).returncode == 0
        file = node.home / "books.jsonl"
        assert node.cli("report", "--export", str(file), *socket).returncode == 0
        assert node.get("/api/v1/audit").status == 403, "over TCP there is nothing of that"
        node.terminate()

        # With the daemon stopped the command does it, under the ledger's lock.
        arguments = ("--config", str(node.config_file), *node.arguments)
        again = json.loads(node.cli("settle", "--json", *arguments).stdout)["report"]
        assert float(again["total"]["settled_kwh"]) == float(again["total"]["energy_kwh"]) > 0
        before = node.query("SELECT * FROM settled")
        once_more = json.loads(node.cli("settle", "--json", *arguments).stdout)["report"]
        assert once_more["changed_slots"] == 0 and node.query("SELECT * FROM settled") == before
        assert node.cli("settle", "--days", "46", *arguments).returncode == 2
        assert "nothing new" in node.cli("restate", *measured, *arguments).stdout
        assert "by Ada: meter read" in node.cli("restate", "--list", *arguments).stdout
        assert node.query("SELECT count(*) FROM restatement") == [(1,)]

        checked = node.cli("verify", "--json", *arguments)
        assert json.loads(checked.stdout) == {"balanced": True, "count": 0, "differences": []}
        export = node.cli("report", "--export", str(file), *arguments)
        assert export.returncode == 0, export
    node.assert_no_traceback()
    node.assert_books_balance()

    records = lines(file)
    prices = {price["id"]: price for price in records["price"]}
    histories = {version["id"]: version for version in records["history"]}
    booked_ug = settled_ug = 0
    for entry in records["entry"]:
        price = prices[entry["price_id"]]
        assert int(entry["co2e_ug"]) == grams(int(entry["energy_uj"]), price)
        booked_ug += int(entry["co2e_ug"])
    (restatement,) = records["restatement"]
    for one in records["settlement"]:
        energy_uj = int(one["energy_uj"])
        old, new = prices[one["price_id"]], prices[one["final_price_id"]]
        published = prices[one["settled_price_id"]]
        assert new == {
            **published,
            "id": new["id"],
            "pue_ppm": restatement["pue_ppm"],
            "pue_source": "restated",
        }
        assert int(one["co2e_diff_ug"]) == grams(energy_uj, new) - grams(energy_uj, old)
        assert new["intensity_ug_per_kwh"] == str(11_000_000) and new["basis"] == old["basis"]
        assert histories[one["history_id"]]["source"] == "electricity_maps"
        settled_ug += int(one["co2e_diff_ug"])
    assert str(booked_ug) == again["total"]["co2e_ug"]
    assert str(booked_ug + settled_ug) == again["total"]["co2e_settled_ug"]


def test_a_difference_is_listed_and_fails(daemon: Start) -> None:
    node = daemon(FINE, scenario=SCENARIO).start()
    node.next_commit()
    node.terminate()
    import sqlite3

    connection = sqlite3.connect(node.ledger)
    connection.execute("UPDATE entry SET co2e_ug = co2e_ug + 1000")
    connection.commit()
    (count,) = connection.execute("SELECT count(*) FROM entry").fetchone()
    connection.close()
    done = node.cli("verify", "--config", str(node.config_file), *node.arguments)
    assert done.returncode == 1
    assert done.stdout.count("µJ book") == count
