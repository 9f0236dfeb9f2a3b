"""From settings to parts."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fakes import SITE, FakeClock, table_choice
from wattledger import build
from wattledger.banner import banner
from wattledger.config import parse_config
from wattledger.model import (
    Amounts,
    Basis,
    Books,
    DeviceInfo,
    DeviceRecord,
    GridSignal,
    Kind,
    LedgerStatus,
    MeterStatus,
    PayeeKind,
    Quality,
    Snapshot,
    SourceStatus,
    Total,
    TotalKey,
)
from wattledger.model.embodied import Embodied, rates_of
from wattledger.model.market import Market
from wattledger.units import NS_PER_S, UJ_PER_KWH

ROOT = Path(__file__).parents[2]


def test_defaults_are_those_of_the_sources() -> None:
    site = build.site_factors(parse_config(""))

    assert site == SITE


def test_a_country_brings_its_water_factor() -> None:
    site = build.site_factors(parse_config('[site]\nzone = "DE"\npue = 1.1'))

    assert (site.ewif_ul_per_kwh, site.ewif_source) == (1_947_000, "table")
    assert (site.pue_ppm, site.pue_source) == (1_100_000, "config")
    unknown = build.site_factors(parse_config('[site]\nzone = "AE"'))
    assert (unknown.ewif_ul_per_kwh, unknown.ewif_source) == (3_908_000, "default")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", ["nvml", "cpu"]),
        ("[meters.nvml]\nenabled = false\n[meters.other]\nwatts = 5", ["cpu", "constant"]),
        (
            (
                "[meters.nvml]\nenabled = false\n[meters.rapl]\nenabled = false\n"
                "[meters.hwmon]\nenabled = false\n[meters.estimate]\nenabled = false"
            ),
            [],
        ),
    ],
)
def test_meters_as_the_settings_allow(text: str, names: list[str]) -> None:
    assert [meter.name for meter in build.meters(parse_config(text), FakeClock())] == names


def test_simulated_energy_has_books_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/wattledger")
    real = parse_config("")
    scenario = ROOT / "configs/scenarios/eight-h100.toml"
    simulated = parse_config(f'[meters.nvml]\nbackend = "simulated"\nscenario = "{scenario}"')

    assert build.ledger_path(real) == tmp_path / "ledger.sqlite"
    assert build.ledger_path(simulated) == tmp_path / "simulated.sqlite"
    assert build.socket_path(real) == Path("/run/wattledger/wattledger.sock")
    assert build.socket_path(parse_config('[http]\nsocket = "none"')) is None
    assert build.socket_path(parse_config('[http]\nsocket = "/x/y"')) == Path("/x/y")


def test_a_scenario_goes_by_its_own_name_or_its_files(tmp_path: Path) -> None:
    path = tmp_path / "rack-7.toml"
    config = parse_config(f'[meters.nvml]\nbackend = "simulated"\nscenario = "{path}"')
    path.write_text('[[gpu]]\nmodel = "T4"\n')
    assert build.scenario_name(config) == "rack-7"
    path.write_text('name = "seven of nine"\n[[gpu]]\nmodel = "T4"\n')
    assert build.scenario_name(config) == "seven of nine"
    assert build.scenario_name(parse_config("")) == ""


def test_state_lies_in_the_users_home_without_systemd(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("STATE_DIRECTORY", "RUNTIME_DIRECTORY", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))

    state = tmp_path / ".local/state/wattledger"
    assert build.ledger_path(parse_config("")) == state / "ledger.sqlite"
    assert build.socket_path(parse_config("")) == state / "ledger.sock"


def test_gb_has_a_keyless_source_and_the_world_has_none() -> None:
    assert [
        s.source
        for s in build.grid_feed(parse_config('[site]\nzone="GB"'), FakeClock(), ()).statuses()
    ] == ["neso"]
    for text in ("", '[site]\nzone = "GB"\n[grid]\nsource = []'):
        assert build.grid_feed(parse_config(text), FakeClock(), ()).statuses() == ()


def test_the_banner_says_what_how_good_and_where() -> None:
    devices = [
        DeviceInfo(f"GPU-{n}", Kind.GPU, "nvml", str(n), "NVIDIA H100") for n in range(8)
    ] + [DeviceInfo("cpu0", Kind.CPU, "estimate", model="model")]
    key = TotalKey("cpu0", PayeeKind.SYSTEM, Quality.ESTIMATED, Basis.LIFECYCLE)
    books = Books(
        "epoch", 0, {key: Total(Amounts(UJ_PER_KWH), 0)},
        {d.name: DeviceRecord(d) for d in devices}, (), {}, 0, 1,
    )  # fmt: skip
    snapshot = Snapshot(
        1, books, {}, {}, (MeterStatus("rapl", False, 0, {}, "no permission", "grant it"),),
        table_choice(), (), SITE, LedgerStatus("disk", "/x/ledger.sqlite"), version="1.2.3",
        quality={d.name: Quality.METERED for d in devices} | {"cpu0": Quality.ESTIMATED},
    )  # fmt: skip
    text = banner(snapshot, "http://127.0.0.1:19400")

    for part in (
        "8 × NVIDIA H100",
        "metered by its energy counter (NVML)",
        "ESTIMATED",
        "rapl does not answer: no permission: grant it",
        "wattledger doctor",
        "WORLD 473 gCO2e/kWh (lifecycle)",
        "1.000 kWh so far",
        "http://127.0.0.1:19400/metrics",
    ):
        assert part in text
    assert "beside" not in text
    rich = dataclasses.replace(SITE, price_per_kwh=0.25, market=Market((), 10**7))
    h100 = DeviceInfo("GPU-1", Kind.GPU, "nvml", model="NVIDIA H100 80GB HBM3")
    told = dataclasses.replace(snapshot, site=rich, embodied=rates_of(Embodied(), [h100]))
    assert (
        "  beside 0.25 EUR/kWh, 10 gCO2e/kWh by contracts, "
        "embodied 25 gCO2e/h of GPUs and host (default)\n"
    ) in banner(told, "http://x")
    assert "will hold" not in text
    for names, said in (
        (("open_meteo",), 'WUE 0.36 L/kWh (default; "weather" will hold once it is known)'),
        (("live_pue",), 'PUE 1.56 (default; "live" will hold once it is known)'),
    ):
        asked = tuple(SourceStatus(name, {}, 0) for name in names)
        waiting = dataclasses.replace(snapshot, site_sources=asked)
        assert said in banner(waiting, "http://x")
        assert banner(waiting, "http://x").count("will hold") == 1
    known = dataclasses.replace(SITE, wue_source="weather", pue_source="live")
    both = tuple(SourceStatus(name, {}, 1) for name in ("open_meteo", "live_pue"))
    heard = dataclasses.replace(snapshot, site=known, site_sources=both)
    assert "will hold" not in banner(heard, "http://x")
    gone = dataclasses.replace(
        books,
        devices={d.name: DeviceRecord(dataclasses.replace(d, present=False)) for d in devices},
    )
    assert "8 known from before" in banner(dataclasses.replace(snapshot, books=gone), "http://x")


def test_a_reloaded_feed_goes_on_where_the_old_one_was() -> None:
    """Reloading neither forgets what is known of the past hours nor asks out of turn."""
    clock = FakeClock()
    old = build.grid_feed(parse_config('[site]\nzone = "GB"'), clock, ())
    signal = GridSignal(
        120_000_000, "GB", "neso", Basis.GENERATION,
        clock.wall_ns - 1800 * NS_PER_S, clock.wall_ns, False, clock.wall_ns, 1800 * NS_PER_S,
    )  # fmt: skip
    old._asked[0].keep([signal])
    old._asked[0].outcomes["ok"] = 3
    old._asked[0].due_ns = clock.boottime_ns + 77
    new = build.grid_feed(parse_config('[site]\nzone = "GB"\n[grid]\nmax_age = "1h"'), clock, ())
    new.inherit(old)

    assert new.at(clock.wall_ns).signal == signal
    assert new.statuses()[0].outcomes == {"ok": 3}
    assert new._asked[0].due_ns == clock.boottime_ns + 77
    assert new._asked[0].source is not old._asked[0].source


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody without a home")
def test_no_home_is_said_in_a_sentence() -> None:
    script = (
        # All is imported before: the checkout may lie where others may not look.
        "import os, sys, wattledger.report, wattledger.doctor\n"
        "from wattledger.cli import main\n"
        "os.setgroups([]); os.setgid(65533); os.setuid(65533)\n"
        "sys.exit(main(['report']))"
    )
    environment = {"PATH": "/usr/bin:/bin"}
    run = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True
    )

    assert "Traceback" not in run.stderr
    assert run.returncode == 1
