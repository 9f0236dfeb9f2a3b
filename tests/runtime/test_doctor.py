"""The doctor asks a running daemon first, and looks for itself only where none runs."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from snapshots import snapshot
from wattledger.config import parse_config
from wattledger.doctor import examine, machine
from wattledger.doctor.finding import Finding
from wattledger.errors import DaemonUnreachable
from wattledger.remote import Remote
from wattledger_exporters.http.api import status

CONFIG = '[meters.nvml]\nenabled = false\n[path]\nsysfs = "{sysfs}"\n[ledger]\npath = "{ledger}"'


class Told(Remote):
    """A daemon that answers one thing; None: nobody does."""

    def __init__(self, answer: Mapping[str, Any] | None) -> None:
        super().__init__([])
        self._answer = answer

    def request(
        self, path: str, query: Mapping[str, str] | None = None, method: str = "GET"
    ) -> Any:
        if self._answer is None:
            raise DaemonUnreachable("no running daemon found", "start it")
        return self._answer


def well() -> dict[str, Any]:
    """A daemon over metered devices and a live grid."""
    told = copy.deepcopy(status(snapshot(), 1_800_000_100 * 10**9))
    told["meters"] = [dict(told["meters"][0], up=True, message=None, hint=None, missed_ticks=0)]
    told["devices"] = [dict(d, quality="metered", present=True) for d in told["devices"]]
    told["grid"] |= {"level": 0}
    told["grid_sources"] = [
        {"source": "neso", "message": None, "hint": None, "requests": {}, "last_signal": None}
    ]
    told["ledger"] |= {"message": None, "hint": None, "quarantined": None}
    told["simulated"] = None
    told["exporters"] = told["exporters"][:1]
    return told


def findings(told: Mapping[str, Any] | None, tmp_path: Path) -> list[Finding]:
    config = CONFIG.format(sysfs=tmp_path / "sys", ledger=tmp_path / "l.sqlite")
    found = list(examine(parse_config(config), Told(told)))
    return [f for f in found if f.area != "clock"]  # of the machine that runs the test


def problems(found: list[Finding]) -> list[str]:
    return [f.message for f in found if not f.ok]


def test_what_the_daemon_meters_is_not_doubted_for_want_of_own_rights(tmp_path: Path) -> None:
    """Whoever asks may neither read RAPL nor see the sources: that is not the daemon's state."""
    assert problems(findings(well(), tmp_path)) == []


def test_a_meter_that_is_down_is_a_problem_with_its_remedy(tmp_path: Path) -> None:
    told = well()
    told["meters"][0] |= {"up": False, "message": "no permission", "hint": "grant it"}
    (bad,) = (f for f in findings(told, tmp_path) if not f.ok)

    assert "no permission" in bad.message
    assert bad.hint == "grant it"


def test_an_exporter_that_does_not_deliver_is_a_problem_with_what_waits(tmp_path: Path) -> None:
    told = well()
    told["exporters"] = status(snapshot(), 1)["exporters"]
    (bad,) = (f for f in findings(told, tmp_path) if not f.ok)
    assert bad.area == "exporter" and "otlp does not deliver: https://collector" in bad.message
    assert "3 ended runs wait" in bad.message and "receiver runs" in bad.hint
    (note,) = (f for f in findings(told, tmp_path) if "refuses the records of 1" in f.message)
    assert note.ok
    told["exporters"][1] |= {"up": True, "runs_refused": 0}
    found = findings(told, tmp_path)
    assert problems(found) == [] and any("otlp delivers" in f.message for f in found)
    del told["exporters"]  # an older daemon
    assert problems(findings(told, tmp_path)) == []


def test_a_release_on_request_is_no_problem(tmp_path: Path) -> None:
    told = well()
    told["released_until"] = "2027-01-15T08:15:00Z"
    told["meters"][0] |= {"meter": "nvml", "up": False, "message": "closed on request"}

    assert problems(findings(told, tmp_path)) == []


def test_estimates_integrals_and_constants(tmp_path: Path) -> None:
    told = well()
    for device, (quality, meter) in zip(
        told["devices"],
        [("estimated", "estimate"), ("integrated", "nvml"), ("estimated", "constant")],
        strict=False,
    ):
        device |= {"quality": quality, "meter": meter}
    found = findings(told, tmp_path)

    assert len(problems(found)) == 1  # the estimate, not the configured constant
    assert "estimated" in problems(found)[0]
    assert any("no energy counter" in f.message and f.level == "note" for f in found)
    assert any("no RAPL package" in f.message for f in found)


def test_a_source_that_fails_and_a_ledger_that_is_not_written(tmp_path: Path) -> None:
    told = well()
    told["grid"] |= {"level": 2}
    told["grid_sources"][0] |= {"message": "answers 401", "hint": "renew the token"}
    told["ledger"] |= {"message": "the disk is full", "hint": "free some space"}
    text = "\n".join(problems(findings(told, tmp_path)))

    for part in ("priced with", "answers 401", "the disk is full"):
        assert part in text


def test_no_daemon_is_a_fact_before_the_first_start_and_a_fault_after(tmp_path: Path) -> None:
    before = findings(None, tmp_path)[0]
    (tmp_path / "l.sqlite").touch()
    after = findings(None, tmp_path)[0]

    assert (before.level, after.level) == ("note", "problem")


def test_a_virtual_machine_is_told_what_to_do(tmp_path: Path) -> None:
    found = findings(None, tmp_path)

    assert any("estimated from utilisation" in text for text in problems(found))
    assert any("idle_watts" in f.hint for f in found)


def test_whose_making_is_counted_and_whose_is_not_known(tmp_path: Path) -> None:
    told = well()
    said = [f for f in findings(told, tmp_path) if "embodied" in f.message]
    assert [f.level for f in said] == ["ok"]
    assert "GPUs 14 g/h (default), host 61 g/h (default)" in said[0].message
    told["embodied"] |= {"gpus_g_per_h": None, "unknown_models": ["NVIDIA L40S"]}
    said = [f for f in findings(told, tmp_path) if "embodied" in f.message]
    assert [f.level for f in said] == ["ok", "note"]
    assert "GPUs" not in said[0].message and "NVIDIA L40S" in said[1].message
    assert "gpu_kg" in said[1].hint
    del told["embodied"]
    assert not [f for f in findings(told, tmp_path) if "embodied" in f.message]


@pytest.mark.parametrize(("state", "level"), [(0, "ok"), (3, "ok"), (5, "problem"), (-1, "note")])
def test_a_clock_that_nobody_sets_is_told_with_what_to_install(state: int, level: str) -> None:
    """A minimal Debian has no service to enable."""
    found = machine.clock(state)
    assert (found.area, found.level) == ("clock", level)
    if level == "problem":
        assert found.hint.startswith("apt-get install systemd-timesyncd")
