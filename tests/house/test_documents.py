"""Every fenced block of every document is held by a test, and what needs no machine is held here.

What is run where is listed in `documents.py`; the files that run commands take all blocks of their
kind. Here are the files and fragments, the commands in the middle of a sentence, and the list of
what cannot run where the tests do.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import trustme
import yaml

from deploy.kustomized import kustomized
from documents import DOCUMENTS, KINDS, ROOT, TEXTS, Block, blocks, chosen, commands, fits
from wattledger.cli import _parser
from wattledger.config import parse_config
from wattledger.meters.simulated.reader import load_scenario
from wattledger_exporters.metrics import CATALOGUE
from wattledger_exporters.web_config import load_web_config

CANNOT_RUN: Mapping[str, str] = {
    "kubectl": "there is no cluster: no API server, kubelet or GPU operator fits into the tests",
    "podman": "no image may be pulled, and there is no GPU; the image is built and run by buildah "
    "and crun (e2e/test_container_image.py, e2e/test_pod.py)",
    "systemctl restart grafana-server": "Grafana is not in Debian, and its repository is another's",
    "make bench": "it takes minutes, and measures; it judges itself",
    ".venv/bin/python -m tests.bench": "likewise",
    "make pictures": "minutes; e2e/test_grafana_drawn.py draws the same, and deploy/README.md has "
    "it draw what is in another Prometheus, which is run",
    "make test": "this is one of its tests",
    ".venv/bin/pytest tests/gpu": "it needs a GPU",
    "wattledger report --since 7d --what-if zone=FR,source=rte": "it asks a public API, which is "
    "played in runtime/test_what_if_sources.py",
    "apt-get install -y --no-install-recommends chromium": "2 GB of packages; .ci/run has them",
    "scp": "there is one machine, to which everything is local",
}
"""How commands begin that no test runs, and why."""


def _ids(block: Block) -> str:
    return block.where


@pytest.mark.parametrize("block", blocks(), ids=_ids)
def test_it_is_known_who_holds_a_block(block: Block) -> None:
    assert block.kind in KINDS, f"say after the language by whom it is held: {sorted(KINDS)}"
    if by := KINDS[block.kind]:
        assert (ROOT / "tests" / by).exists()
        assert block.kind.split()[-1] + '"' in (ROOT / "tests" / by).read_text()


def test_all_code_is_fenced() -> None:
    """Four spaces are code as well, which nobody would find here."""
    indented = [
        f"{path.relative_to(ROOT)}:{number + 2}"
        for path in DOCUMENTS
        for number, (before, line) in enumerate(pairwise(_prose(path).splitlines()))
        if not before.strip() and re.match(r"    \S", line)
    ]
    assert indented == []


def _prose(path: Path) -> str:
    """A document without its blocks, line by line the same."""
    return re.sub(
        r"^( *)```.*?^\1```",
        lambda found: "\n" * found[0].count("\n"),
        path.read_text(),
        flags=re.DOTALL | re.MULTILINE,
    )


def _anchors(path: Path) -> set[str]:
    """Of its headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", _prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}


def test_links_lead_there() -> None:
    gone = [
        f"{path.relative_to(ROOT)}: {target}"
        for path in DOCUMENTS
        for target in re.findall(r"\]\(([^)#\s:]+)[)#]", path.read_text())
        if not (path.parent / target).exists()
    ]
    assert gone == []
    broken = [
        f"{path.relative_to(ROOT)}: {target}#{anchor}"
        for path in DOCUMENTS
        for target, anchor in re.findall(r"\]\(([^)#\s]*\.md|)#([^)\s]+)\)", path.read_text())
        if anchor not in _anchors(path.parent / target if target else path)
    ]
    assert broken == []


def test_what_cannot_run_is_what_it_is_said_to_be() -> None:
    named = [command.typed for block in chosen("sh elsewhere", "console elsewhere")
             for command in commands(block)]  # fmt: skip
    unknown = [typed for typed in named if not typed.startswith(tuple(CANNOT_RUN))]
    assert unknown == [], "these have no reason"
    idle = [start for start in CANNOT_RUN if not any(typed.startswith(start) for typed in named)]
    assert idle == [], "of these there is none"


def test_folders_that_kubectl_is_given_are_such() -> None:
    named = [command.typed for block in chosen("sh elsewhere") for command in commands(block)]
    folders = [found[1] for typed in named if (found := re.search(r" -k (\S+)", typed))]
    assert folders
    for folder in folders:
        assert kustomized(ROOT / folder)


@pytest.mark.parametrize("block", chosen("toml"), ids=_ids)
def test_settings_are_good_ones(block: Block) -> None:
    parse_config(block.text)


@pytest.mark.parametrize("block", chosen("toml scenario"), ids=_ids)
def test_a_scenario_is_one(block: Block, tmp_path: Path) -> None:
    path = tmp_path / "scenario.toml"
    path.write_text(block.text)
    assert load_scenario(path).gpus


@pytest.mark.parametrize("block", chosen("yaml web-config"), ids=_ids)
def test_a_web_configuration_is_good(block: Block, tmp_path: Path) -> None:
    certificate = trustme.CA().issue_cert("localhost")
    tree = yaml.safe_load(block.text)
    for key, name in tree.get("tls_server_config", {}).items():
        if key.endswith("_file"):
            file = tmp_path / Path(name).name
            pem = (
                certificate.private_key_pem if key == "key_file" else certificate.cert_chain_pems[0]
            )
            pem.write_to_path(file)
            tree["tls_server_config"][key] = str(file)
    path = tmp_path / "web.yml"
    path.write_text(yaml.safe_dump(tree))
    assert load_web_config(path).tls is not None


@pytest.mark.parametrize("block", chosen("yaml kustomization"), ids=_ids)
def test_an_overlay_is_one(block: Block, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site/kustomization.yaml").write_text(block.text)
    shutil.copytree(ROOT / "deploy/kubernetes", tmp_path / "wattledger/deploy/kubernetes")
    shutil.copy(ROOT / "deploy/kubernetes/base/wattledger.toml", tmp_path / "site/wattledger.toml")
    wanted = yaml.safe_load(block.text)
    for generator in wanted["configMapGenerator"]:
        assert generator.pop("behavior") == "replace"  # of what the base generates
    (tmp_path / "site/kustomization.yaml").write_text(yaml.safe_dump(wanted))
    made = kustomized(tmp_path / "site")
    (image,) = wanted["images"]
    assert f"{image['newName']}:{image['newTag']}" in str(made)


@pytest.mark.parametrize("block", chosen("yaml patch"), ids=_ids)
def test_a_patch_makes_an_object_that_kubernetes_takes(block: Block) -> None:
    (daemon_set,) = [
        one for one in kustomized(ROOT / "deploy/kubernetes/base") if one["kind"] == "DaemonSet"
    ]
    (container,) = daemon_set["spec"]["template"]["spec"]["containers"]
    change: dict[str, Any] = yaml.safe_load(block.text)
    assert change.keys() <= container.keys()
    for part in change.values():
        assert part.pop("$patch", "") == "replace"
    container |= change
    kubernetes_validate.validate(daemon_set, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("block", chosen("yaml targets"), ids=_ids)
def test_a_list_of_targets_is_one(block: Block) -> None:
    for group in yaml.safe_load(block.text):
        assert {"targets"} <= group.keys() <= {"targets", "labels"}
        assert all(re.fullmatch(r"[\w.-]+:\d+", target) for target in group["targets"])


@pytest.mark.parametrize("block", chosen("python"), ids=_ids)
def test_a_program_runs(block: Block, tmp_path: Path) -> None:
    """`train` is the reader's own."""
    script = f"def train(): sum(range(10**6))\n{block.text}\ntrain()\n"
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stderr
    assert "energy" in done.stdout, done.stderr


# ── commands in the middle of a sentence ──────────────────────────────────────────────────────────

SPANS = sorted({
    (str(path.relative_to(ROOT)), " ".join(span.split()))
    for path in DOCUMENTS
    for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", _prose(path))
})  # fmt: skip


def _subcommands(parser: argparse.ArgumentParser) -> Mapping[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return action.choices
    return {}


def _fault(words: list[str]) -> str:
    """What the command line would not know of them; what stands for a value is not looked at."""
    parser = _parser()
    while words and words[0] in (known := _subcommands(parser)):
        parser, words = known[words[0]], words[1:]
    if words and _subcommands(parser) and not words[0].startswith("-"):
        return f"there is no command {words[0]}"
    ours = words[: words.index("--")] if "--" in words else words
    unknown = [
        word
        for word in ours
        if word.startswith("--") and word.partition("=")[0] not in parser._option_string_actions
    ]
    return f"there is no {unknown}" if unknown else ""


@pytest.mark.parametrize(
    ("document", "span"), [one for one in SPANS if one[1].startswith("wattledger ")]
)
def test_the_command_line_knows_what_a_sentence_names(document: str, span: str) -> None:
    words = re.sub(r"[,;]", " ", span.partition(" >")[0]).split()[1:]
    assert _fault([word for word in words if word != "…"]) == ""


@pytest.mark.parametrize(
    ("document", "span"), [one for one in SPANS if re.match(r"make [a-z]", one[1])]
)
def test_make_knows_what_a_sentence_names(document: str, span: str) -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {word for word in span.split()[1:] if "=" not in word and word != "…"} <= targets


def test_what_is_wrong_is_named_as_the_program_names_it() -> None:
    """The left column of the table of deploy/README.md, against the program's own texts."""
    page = (ROOT / "deploy/README.md").read_text()
    table = page.partition("## When something is wrong")[2]
    rows = re.findall(r"^\| (.+?) \|", table, re.MULTILINE)
    said = [span for row in rows for span in re.findall(r"`([^`]+)`", row) if " " in span]
    sources = " ".join(path.read_text() for path in sorted((ROOT / "agent").rglob("*.py")))
    sources = re.sub(r'"\s*\n\s*f?"', "", sources)  # texts that go on in the next line
    ours = [span for span in said if not span.startswith("nvidia-smi")]
    assert len(ours) >= 6
    for span in ours:
        begin = span.partition("…")[0]
        assert begin in sources, span


def test_metrics_are_called_what_they_are() -> None:
    """`wattledger_…` anywhere, and the first column of the table of exporters/READING.md."""
    reading = (ROOT / "exporters/READING.md").read_text()
    table = reading.partition("## Beside other numbers")[0]
    cells = re.findall(r"^\| (`.+?) \|", table, re.MULTILINE)
    named = set(re.findall(r"`([a-z0-9_]+)`", " ".join(cells)))
    assert len(named) >= 10
    for path in DOCUMENTS:
        named |= set(re.findall(r"\bwattledger_([a-z0-9_]+)\b(?!\.)", path.read_text()))
    known = set(CATALOGUE) | {"exporters"}  # the package of that name
    assert {name for name in named if not name.endswith("_")} - known == set()


# ── these checks can fail ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("words", "fault"), [
    ("jobs --user ann --json", ""),
    ("jobs --usr ann", "there is no ['--usr']"),
    ("job", ""),
    ("jbo 4711", "there is no command jbo"),
    ("grid serve --config x", ""),
    ("grid sevre", "there is no command sevre"),
    ("run -- cmd --whatever", ""),
])  # fmt: skip
def test_a_wrong_command_is_found(words: str, fault: str) -> None:
    assert _fault(words.split()) == fault


@pytest.mark.parametrize(("shown", "printed", "same"), [
    (("GPU-7a…  0.001173 kWh",), "GPU-1bc0-99    12.5 kWh\n", True),
    (("ok   at 2026-11-23T04:46:24Z", "…"), "ok at 2027-01-01T00:00:00Z\na\nb\n", True),
    (("ok   at 2026-11-23T04:46:24Z",), "ok at 2027-01-01T00:00:00Z\nmore\n", False),
    (("… problems",), "2 problems\n", True),
    (("ok  meter",), "PROBLEM meter\n", False),
    (("5 problems",), "five problems\n", False),
    (("a", "…", "d"), "a\nb\nc\nd\n", True),
    (("a", "…", "d"), "a\nb\nc\n", False),
    (("401",), "401\n", True),
    (("401",), "200\n", False),
    (('up{job="x"} => 1 @[1795450875.957]',), 'up{job="x"} => 1 @[1800000000.1]\n', True),
    (('up{job="x"} => 1 @[1795450875.957]',), 'up{job="x"} => 0 @[1795450875.957]\n', False),
    (('meter_up{meter="nvml"} 1.0',), 'meter_up{meter="nvml"} 0.0\n', False),
    (('power{kind="gpu"} => 3036.7 @[1]',), 'power{kind="gpu"} => 2999 @[2]\n', True),
])  # fmt: skip
def test_another_output_is_found(shown: tuple[str, ...], printed: str, same: bool) -> None:
    assert (fits(shown, printed) == "") is same


def test_commands_are_read_as_a_shell_does() -> None:
    text = "$ a \\\n    b\nsaid\n\n$ cat <<'END'\n$ no prompt\nEND\n$ c  # why\n"
    found = commands(Block("x.md", 10, "console node", text))
    assert [(one.typed, one.shown, one.line) for one in found] == [
        ("a \\\n    b", ("said",), 11),
        ("cat <<'END'\n$ no prompt\nEND", (), 15),
        ("c  # why", (), 18),
    ]
    plain = commands(Block("x.md", 1, "sh node", "one\ntwo \\\n  more\n"))
    assert [one.typed for one in plain] == ["one", "two \\\n  more"]


def test_each_kind_is_in_use() -> None:
    used = {block.kind for block in blocks()}
    assert set(TEXTS) <= used
