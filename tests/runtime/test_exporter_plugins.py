"""Which exporters are installed, and their tables: as strict as all other settings."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from acme_exporter import install
from wattledger.config import Config, parse_config
from wattledger.config.document import effective_toml
from wattledger.config.settings import ExporterTable
from wattledger.errors import ConfigError
from wattledger.exporter_build import run_exporters
from wattledger.exporter_plugins import GROUP, SHIPPED, NoSuchExporter, find_plugin, installed
from wattledger.units import NS_PER_S
from wattledger_exporters.otlp.settings import OtlpSettings
from wattledger_exporters.textfile import TextfileSettings

ROOT = Path(__file__).parents[2]


def faults(text: str) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        parse_config(text)
    return dict(caught.value.faults)


@pytest.fixture
def acme(tmp_path: Path) -> Iterator[Path]:
    """A third party's exporter, installed for the length of a test."""
    site = install(tmp_path / "site", broken="no_such_module:X", empty="json:dumps")
    sys.path.insert(0, str(site))
    yield site
    sys.path.remove(str(site))
    sys.modules.pop("acme_exporter", None)


def test_ours_are_entry_points_like_any_others() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"][GROUP] == dict(SHIPPED)
    for name in SHIPPED:
        plugin = find_plugin(name)
        assert callable(plugin.make) and plugin.settings()


def test_ours_are_found_without_any_entry_point() -> None:
    assert installed(dict) == ["otlp", "prometheus", "textfile"]
    assert find_plugin("textfile", dict).settings is TextfileSettings


def test_tables_become_the_settings_of_their_plugins() -> None:
    config = parse_config(
        '[exporters.textfile]\nfile = "/x/w.prom"\ninterval = "1m"\n[exporters.prometheus]\n'
    )
    (name, settings), (other, _) = config.exporters
    assert (name, other) == ("textfile", "prometheus")
    assert settings == TextfileSettings("/x/w.prom", 60 * NS_PER_S)  # type: ignore[arg-type]
    assert parse_config(effective_toml(config)) == config


def test_an_unknown_name_is_told_with_what_is_installed(acme: Path) -> None:
    found = faults('[exporters.promtheus]\n[exporters.textfile]\nfile = "/x/w.prom"\n')
    assert list(found) == ["exporters.promtheus"]
    for name in ("acme", "otlp", "prometheus", "textfile"):
        assert name in found["exporters.promtheus"]


@pytest.mark.parametrize(
    ("text", "path", "said"),
    [
        ("exporters = 5", "exporters", "[exporters.NAME]"),
        ("exporters.textfile = 5", "exporters.textfile", "not a table"),
        ("[exporters.textfile]\nfil = 1", "exporters.textfile.fil", "did you mean file?"),
        ("[exporters.textfile]\nfile = 1", "exporters.textfile.file", "quotes"),
        ('[exporters.textfile]\ninterval = "5"', "exporters.textfile.interval", '"1s"'),
        ("[exporters.textfile]\nkeep_at_end = 1", "exporters.textfile.keep_at_end", "true nor"),
        ("[exporters.textfile]", "exporters.textfile.file", "missing"),
        ('[exporters.otlp]\nprotocol = "grpc"', "exporters.otlp.protocol", '"http/protobuf"'),
        ('[exporters.otlp]\nendpoint = "x"', "exporters.otlp.endpoint", "no address"),
        ("[exporters.prometheus]\nx = 1", "exporters.prometheus.x", "no keys here"),
        ("[exporters.acme]\nmost = -1", "exporters.acme.most", "whole number"),
        ("[exporters.acme]", "exporters.acme.file", "is missing"),
        ("[exporters.broken]", "exporters.broken", "cannot be loaded"),
        ("[exporters.empty]", "exporters.empty", "is no exporter: it has no settings"),
    ],
)
def test_mistakes_are_told_by_key(acme: Path, text: str, path: str, said: str) -> None:
    found = faults(text)
    assert list(found) == [path] and said in found[path]


def test_all_mistakes_of_all_tables_are_told_at_once() -> None:
    found = faults("[exporters.textfile]\nfil = 1\n[exporters.nope]\n[http]\nlisten = 1\n")
    assert sorted(found) == ["exporters.nope", "exporters.textfile.fil", "http.listen"]


def test_who_delivers_runs_is_known_from_the_settings(acme: Path) -> None:
    text = '[exporters.acme]\nfile = "/x"\n[exporters.textfile]\nfile = "/x/w.prom"\n'
    assert run_exporters(parse_config(text)) == ("acme",)
    otlp = lambda **more: Config(exporters=(ExporterTable("otlp", OtlpSettings(**more)),))  # noqa: E731
    assert run_exporters(otlp()) == ("otlp",) and run_exporters(otlp(runs=False)) == ()


def test_a_plugin_whose_own_check_fails_is_told(acme: Path) -> None:
    source = acme / "acme_exporter.py"
    source.write_text(
        source.read_text().replace("return [] if settings.file", "return [] if 1 / 0")
    )
    found = faults('[exporters.acme]\nfile = "/x"\n')
    assert "ZeroDivisionError" in found["exporters.acme"]


def test_there_is_no_plugin_of_an_unknown_name() -> None:
    with pytest.raises(NoSuchExporter, match="installed are otlp, prometheus, textfile"):
        find_plugin("nope", dict)


@pytest.mark.parametrize(
    ("text", "loaded"),
    [
        ("", []),
        ('[exporters.textfile]\nfile = "/x/w.prom"', ["wattledger_exporters.textfile"]),
    ],
)
def test_what_is_off_is_not_even_imported(text: str, loaded: list[str], tmp_path: Path) -> None:
    (tmp_path / "w.toml").write_text(text)
    script = (
        "import sys, pathlib, wattledger.app, wattledger.config as config\n"
        f"config.load_config(pathlib.Path({str(tmp_path / 'w.toml')!r}))\n"
        "costly = ('opentelemetry', 'requests', 'urllib3', 'google', 'importlib.metadata')\n"
        "ours = ('wattledger_exporters.otlp', 'wattledger_exporters.textfile')\n"
        "print(sorted(m for m in sys.modules if m in ours or m.startswith(costly)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.strip() == str(loaded)
