"""exporters/TLS.md tells of every key that is read, and its example is a good file."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from documents import chosen
from wattledger.errors import ConfigError
from wattledger_exporters.metrics import CATALOGUE, PREFIX
from wattledger_exporters.web_config import load_web_config

DOCUMENT = (Path(__file__).parents[2] / "exporters/TLS.md").read_text()
SECTIONS = ("tls_server_config", "http_server_config", "rate_limit")


def test_every_key_has_its_line_and_no_other(write: Callable[[str], Path]) -> None:
    """What is known is asked of the reader itself, which names it beside what is not."""
    bad = "".join(f"{section}: {{nonsense: 1}}\n" for section in SECTIONS)
    with pytest.raises(ConfigError) as caught:
        load_web_config(write(bad))
    known = {"basic_auth_users"}
    for key, fault in caught.value.faults:
        section, _, name = key.rpartition(": ")[2].partition(".")
        if name == "nonsense":
            names = fault.partition("known here: ")[2].split(", ")
            known |= {f"{section}.{name}" for name in names}
    told = re.findall(r"^\| `([a-z_.0-9]+)` \|", DOCUMENT, re.MULTILINE)
    assert sorted(told) == sorted(known)


def test_its_example_is_a_good_file(write: Callable[[str], Path]) -> None:
    [example] = [
        block.text for block in chosen("yaml web-config") if block.document == "exporters/TLS.md"
    ]
    path = write(example)
    for ours, theirs in (("cert", "node.crt"), ("key", "node.key"), ("ca", "scrapers-ca.crt")):
        path.with_name(f"{ours}.pem").rename(path.with_name(theirs))
    config = load_web_config(path)
    assert config.tls is not None
    assert config.tls.knows_clients
    assert set(config.users) == {"prometheus"}


def test_its_metrics_are_in_the_catalogue() -> None:
    named = set(re.findall(rf"`{PREFIX}([a-z_]+)`", DOCUMENT))
    assert named
    assert named <= set(CATALOGUE)
