"""The exporter that exporters/README.md shows is one: it is taken from there, installed and run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from documents import chosen

ROOT = Path(__file__).parents[2]
README = (ROOT / "exporters/README.md").read_text()
RUN = """
import sys
from pathlib import Path
from exporting import ToolsFake
from snapshots import snapshot
from wattledger.config import parse_config
from wattledger.errors import ConfigError
from wattledger.exporter_plugins import find_plugin

try:
    parse_config("[exporters.acme]")
except ConfigError as error:
    assert dict(error.faults) == {"exporters.acme.file": "is missing; write one"}, error
((name, settings),) = parse_config(f'[exporters.acme]\\nfile = "{sys.argv[1]}"\\n').exporters
exporter = find_plugin(name).make(settings, ToolsFake())
assert exporter.export(snapshot()) == 0.0
exporter.close(snapshot())
assert float(Path(sys.argv[1]).read_text()) == sum(snapshot().power_uw.values()) / 1e6
print("written")
"""


def test_the_exporter_of_the_readme_works(tmp_path: Path) -> None:
    (source,) = (block.text for block in chosen("python exporter"))
    (group,) = re.findall(r'entry-points\."(wattledger\.exporters)"', README)
    (tmp_path / "acme_exporter.py").write_text(source)
    info = tmp_path / "acme_exporter-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-exporter\nVersion: 1.0\n")
    (entry,) = chosen("toml entry-point")
    (line,) = re.findall(r'^acme = "(.*)"$', entry.text, re.MULTILINE)
    (info / "entry_points.txt").write_text(f"[{group}]\nacme = {line}\n")
    paths = [tmp_path, ROOT / "tests", ROOT / "agent", ROOT / "exporters"]
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(tmp_path / "watts")],
        env={"PYTHONPATH": ":".join(map(str, paths))},
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.stdout == "written\n", done.stderr


def test_every_table_of_the_readme_is_a_valid_one(tmp_path: Path) -> None:
    from wattledger.config import parse_config

    tables = re.findall(r"```toml\n(\[exporters\..*?)```", README, re.DOTALL)
    assert len(tables) == 2
    config = parse_config("\n".join(tables))
    assert [name for name, _ in config.exporters] == ["textfile", "otlp"]
