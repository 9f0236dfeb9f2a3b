"""Settings: strict, all faults at once, documents that cannot rot."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from wattledger.config import Config, load_config, parse_config
from wattledger.config.check import check_tokens
from wattledger.config.document import default_toml, effective_toml, reference_markdown
from wattledger.errors import ConfigError
from wattledger.units import NS_PER_S

ROOT = Path(__file__).parents[2]


def faults(text: str) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        parse_config(text)
    return dict(caught.value.faults)


def test_nothing_is_needed() -> None:
    assert parse_config("") == Config() == load_config(None)


def test_values_are_read() -> None:
    config = parse_config(
        """
        [site]
        zone = "US-CAR-DUK"
        pue = 1
        [sampling]
        interval = "2s"
        [meters.nvml]
        enabled = true
        [grid]
        source = []
        """
    )

    assert config.site.zone == "US-CAR-DUK"
    assert config.site.pue == 1.0
    assert config.sampling.interval == 2 * NS_PER_S
    assert config.meters.nvml.enabled == "true"
    assert config.grid.source == ()


def test_five_mistakes_are_five_lines() -> None:
    found = faults(
        """
        [site]
        pue = 0.4
        zone = "XX"
        [sampling]
        intervall = "1s"
        [http]
        listen = "nowhere"
        [[grid.source]]
        kind = "nesoo"
        """
    )

    assert sorted(found) == [
        "grid.source[0].kind",
        "http.listen",
        "sampling.intervall",
        "site.pue",
        "site.zone",
    ]


@pytest.mark.parametrize(
    ("text", "path", "remedy"),
    [
        ("[site]\nzone = 5", "site.zone", "quotes"),
        ('[site]\nzone = "D E"', "site.zone", '"DE"'),
        ('[site]\npue = "1.2"', "site.pue", "such as 1.2"),
        ("[site]\npue = nan", "site.pue", "out of range"),
        ("[site]\npue = true", "site.pue", "not a number"),
        ("[site]\nwue_l_per_kwh = -1", "site.wue_l_per_kwh", "from 0"),
        ("[sampling]\ninterval = 1", "sampling.interval", '"1s"'),
        ('[sampling]\ninterval = "100ms"', "sampling.interval", "allow_fine_grained"),
        ('[sampling]\ninterval = "2m"', "sampling.interval", '"1m"'),
        ('[sampling]\ninterval = "9s"', "sampling.commit_interval", "sampling.interval"),
        ('[meters.rapl]\nenabled = "yes"', "meters.rapl.enabled", '"auto", true or false'),
        ('[meters.nvml]\nbackend = "x"', "meters.nvml.backend", '"driver", "simulated"'),
        ('[meters.nvml]\nbackend = "simulated"', "meters.nvml.scenario", "scenario file"),
        ("[meters.estimate]\nidle_watts = 9\nmax_watts = 5", "meters.estimate.idle_watts", "above"),
        ('[path]\nsysfs = "a\\u0000b"', "path.sysfs", "NUL"),
        ("grid = 1", "grid", "[grid]"),
        ("[grid]\nsource = 5", "grid.source", "[[…]]"),
        ('[grid]\nproxy = "ftp://x"', "grid.proxy", "https://host/path"),
        ("[[grid.source]]\nkind = 5", "grid.source[0].kind", "quotes"),
        ('[[grid.source]]\nkind = "x"', "grid.source[0].kind", "neso"),
        ('[[grid.source]]\nkind = "neso"\nzone = "DE"', "grid.source[0].zone", "Great Britain"),
        ('[[grid.source]]\nkind = "neso"\ntoken = "s"', "grid.source[0].token", "token_file"),
        ('[ledger]\nvolatile = "true"', "ledger.volatile", "without quotes"),
        ('[http]\nlisten = "::1:80"', "http.listen", "[::1]"),
        ('[http]\nlisten = "127.0.0.1:99999"', "http.listen", "127.0.0.1:19400"),
        ('[log]\nlevel = "loud"', "log.level", '"info"'),
        ("colour = 1", "colour", "keys here are"),
        ("[sampling]\ncommit_intervall = 1", "sampling.commit_intervall", "commit_interval?"),
    ],
)
def test_every_mistake_names_its_key_and_the_remedy(text: str, path: str, remedy: str) -> None:
    found = faults(text)

    assert path in found
    assert remedy in found[path]
    assert "\n" not in found[path]


def test_broken_toml_names_the_line() -> None:
    assert "line 2" in faults("[site]\nzone = \n[http]")["configuration"]


@pytest.mark.parametrize(
    "text", ["x = " + "9" * 5000, "x = " + "[" * 5000, "x = " + "{a = " * 5000, "[" * 5000]
)
def test_toml_that_breaks_its_reader_is_a_fault_too(text: str) -> None:
    """tomllib raises bare ValueError and RecursionError for these; SIGHUP must survive them."""
    assert "configuration" in faults(text)


def test_a_number_beyond_all_bounds_is_out_of_range() -> None:
    assert "out of range" in faults("[site]\npue = 1" + "0" * 400)["site.pue"]


@pytest.mark.parametrize("content", [b"\xff\xfe", None])
def test_unreadable_files_are_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "w.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"w\.toml"):
        load_config(path)


def test_a_token_is_never_a_setting_and_never_shown(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("canary-5e1f")
    token.chmod(0o600)
    config = parse_config(
        f'[site]\nzone="DE"\n[[grid.source]]\nkind="electricity_maps"\ntoken_file="{token}"'
    )

    assert "canary" not in effective_toml(config)
    assert "canary" not in repr(config)


def test_the_default_file_is_what_the_code_says() -> None:
    committed = (ROOT / "configs/default.toml").read_text()

    assert committed == default_toml(), "run: wattledger config default > configs/default.toml"
    assert parse_config(committed) == Config()


def test_the_reference_is_what_the_code_says() -> None:
    committed = (ROOT / "configs/README.md").read_text()

    assert reference_markdown() in committed, "paste the output of reference_markdown()"


@pytest.mark.parametrize(
    "text",
    [
        "",
        '[site]\nzone = "GB"\npue = 1.1\n[[grid.source]]\nkind = "neso"',
        "[grid]\nsource = []",
        "[meters.other]\nwatts = 350\n[meters.rapl]\nenabled = false",
        "[site]\ncontract = []",
        "[embodied]\ngpu_kg = 150\nhost_kg = 900",
        '[embodied.gpu_kg]\n"*H100*" = 150.5\n"NVIDIA \\"X\\"" = 3',
        "[site]\nmarket_intensity = 410\n[[site.contract]]\nshare = 0.25\nintensity = 11.5",
        "[[site.contract]]\nsince = 2026-01-01T00:00:00+01:00\nuntil = 2027-01-01T00:00:00.5Z",
    ],
)
def test_what_is_shown_can_be_read_back(text: str) -> None:
    config = parse_config(text)

    assert parse_config(effective_toml(config)) == config


def test_uncommented_examples_are_valid() -> None:
    """Every commented line of the default file can be uncommented, table by table."""
    lines = []
    for line in default_toml().partition("# [[grid.source]]")[0].splitlines():
        if re.fullmatch(r"# (\[\[[a-z.]+\]\]|[a-z_]+ = .*)", line):
            lines.append(line[2:])
        elif not line.startswith("#"):
            lines.append(line)
    lists = ("web_config", "contract = ", "source = ")
    config = parse_config("\n".join(line for line in lines if not line.startswith(lists)))
    assert config.site.contract is not None and config.site.contract[0].name == "wind park"


def test_shipped_examples_are_valid() -> None:
    examples = sorted((ROOT / "configs").glob("*.toml"))

    assert examples
    for path in examples:
        load_config(path)


def test_tokens_are_looked_at_by_the_daemon_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tmp_path / "token"
    source = '[[grid.source]]\nkind = "electricity_maps"\nzone = "DE"\ntoken_file = "{}"\n'
    missing, credential = source.format(token), source.format("%d/token")
    config = parse_config(missing + missing + credential)  # a user of the command line may

    with pytest.raises(ConfigError) as caught:
        check_tokens(config)
    keys = [path for path, _ in caught.value.faults]
    assert keys == ["grid.source[0].token_file", "grid.source[1].token_file"]

    token.write_text("canary-5e1f\n")
    token.chmod(0o600)
    check_tokens(config)  # the credential is systemd's to make
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match=r"grid.source\[2\].token_file: .*/none/token does not"):
        check_tokens(config)
    token.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600") as caught:
        check_tokens(config)
    assert "canary" not in str(caught.value)
