"""The relay's unit and example settings: sound, and what their papers say."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from e2e.test_systemd_unit import DEPLOY, analyze
from fakes import FakeClock
from wattledger.cli import _parser
from wattledger.config import load_config, parse_config
from wattledger.relay.places import places_of

UNIT = DEPLOY / "wattledger-grid.service"
EXAMPLE = DEPLOY.parents[1] / "configs/relay.toml"
PROGRAM = "/usr/lib/wattledger/bin/wattledger"


def test_the_unit_is_sound_and_well_confined(tmp_path: Path, need: Callable[..., None]) -> None:
    need("systemd-analyze")
    text = UNIT.read_text()
    assert text.count(f"ExecStart={PROGRAM} ") == 1
    unit = tmp_path / UNIT.name
    unit.write_text(text.replace(PROGRAM, str(shutil.which("true"))))
    verified = analyze("verify", "--man=no", str(unit))
    # They came with systemd 254, and are passed over before it.
    later = re.compile(
        r".*Unknown key (name )?'(RestartSteps|RestartMaxDelaySec)' in .*, ignoring\.\n"
    )
    assert (verified.returncode, later.sub("", verified.stderr)) == (0, "")
    rated = analyze("security", "--offline=yes", "--threshold=15", str(unit))
    assert rated.returncode == 0, rated.stdout
    assert f"exposure level for {UNIT.name}: 1.4 " in rated.stdout
    assert "wattledger-grid` rates it 1.4 of 10" in (DEPLOY / "README.md").read_text()
    assert analyze("security", "--offline=yes", "--threshold=5", str(unit)).returncode == 1


def test_what_the_unit_starts_is_understood() -> None:
    [line] = [line for line in UNIT.read_text().splitlines() if line.startswith("ExecStart=")]
    options = _parser().parse_args(line.split()[1:])
    assert (str(options.config), options.listen) == (
        "/etc/wattledger/relay.toml",
        "0.0.0.0:19401",
    )


def test_every_line_carries_its_reason() -> None:
    explained = ""
    for line in UNIT.read_text().splitlines():
        if line.startswith("#"):
            explained = "comment"
        elif not line or line.startswith("["):
            explained = ""
        else:
            plain = line.split("=")[0] in ("Description", "WantedBy", "Type")
            assert explained or plain, f"{line}: why?"


def test_the_example_is_a_relay() -> None:
    places = places_of(load_config(EXAMPLE), FakeClock())
    names = {z: [one.voice.source for one in place.upstreams] for z, place in places.items()}
    assert names == {"DE": ["energy_charts"], "GB": ["neso"]}
    # What stands there as an example of a node can be written into one.
    commented = EXAMPLE.read_text().split("#     [[grid.source]]")[1].split("# Of several")[0]
    text = "[[grid.source]]" + commented.replace("\n#    ", "\n").rstrip("#\n ")
    [source] = parse_config('site.zone = "DE"\n' + text).grid.source or ()
    assert source.kind == "wattledger" and source.token_file
