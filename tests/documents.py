"""The project's documents as tests see them: every fenced block, and who executes or reads it.

A block says in its own first line by whom it is held, after its language:

    ```console node         commands with a prompt (`$ `) and what they print, run on a booted node
    ```sh node              commands, one a line, likewise
    ```toml scenario        a file of a kind

`KINDS` is the list of all that may stand there, and which test takes each. A test takes all blocks
of its kind out of the documents, so that none is left out, and what it runs is what people read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]

COMMANDS: Mapping[str, str] = {
    "build": "e2e/test_documents_checkout.py",  # in a checkout, with a registry, into DESTDIR
    "node": "e2e/test_documents_node.py",  # as root in a booted Debian with the package
    "installed": "e2e/test_documents_node.py",  # likewise after `make install`
    "desk": "e2e/test_documents_node.py",  # in a checkout beside that machine, on its network
    "checkout": "e2e/test_documents_checkout.py",  # on this machine, in a copy of the checkout
    "fleet": "e2e/test_documents_fleet.py",  # against a Prometheus that holds hours of a fleet
    "lake": "edges/test_parquet_export.py",  # over a ledger of two days
    "forecast": "runtime/test_when.py",  # over a forecast that is played
    "elsewhere": "house/test_documents.py",  # what cannot run here; each with its reason there
}
"""Where commands are run, and the test that does it."""

TEXTS: Mapping[str, str] = {
    "toml": "house/test_documents.py",
    "toml scenario": "house/test_documents.py",
    "toml estimate": "runtime/test_estimate_options.py",
    "toml entry-point": "exporters/test_exporters_readme.py",
    "yaml web-config": "house/test_documents.py",
    "yaml kustomization": "house/test_documents.py",
    "yaml patch": "house/test_documents.py",
    "yaml targets": "house/test_documents.py",
    "yaml ansible": "house/test_fleet_examples.py",
    "yaml alertmanager": "house/test_fleet_examples.py",
    "python": "house/test_documents.py",
    "python exporter": "exporters/test_exporters_readme.py",
    "sql": "edges/test_parquet_export.py",
    "promql": "deploy/test_prometheus_rules.py",
    "conf slurm": "deploy/test_slurm_install.py",
    "text": "",  # a picture or a formula: nothing that anybody would type
}
"""What else is fenced, and the test that reads it."""

KINDS = {f"{tongue} {place}": by for place, by in COMMANDS.items() for tongue in ("console", "sh")}
KINDS |= TEXTS

DOCUMENTS = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not any(
        part.startswith(".") or part in ("node_modules", "build", "dist")
        for part in path.relative_to(ROOT).parts
    )
)


class Block(NamedTuple):
    """A fenced block.

    Attributes:
        document: its path from the top of the checkout.
        line: of its first fence, from 1.
        kind: its language and by whom it is held.
        text: what is between the fences, without their indentation.
    """

    document: str
    line: int
    kind: str
    text: str

    @property
    def where(self) -> str:
        """For people."""
        return f"{self.document}:{self.line}"


class Command(NamedTuple):
    """What is typed, and what is then shown; `shown` is empty where the document does not say."""

    typed: str
    shown: tuple[str, ...]
    line: int


@cache
def blocks() -> tuple[Block, ...]:
    """All blocks of all documents, in their order."""
    return tuple(block for path in DOCUMENTS for block in blocks_of(path))


def blocks_of(path: Path) -> Iterator[Block]:
    """The blocks of one document."""
    lines = iter(enumerate(path.read_text().splitlines(), 1))
    for number, line in lines:
        if opened := re.match(r"( *)(`{3,})(.*)$", line):
            indent, fence, kind = opened.groups()
            inside: list[str] = []
            for _, inner in lines:
                if inner.strip() == fence:
                    break
                inside.append(inner.removeprefix(indent))
            else:
                raise AssertionError(f"{path}:{number}: this fence is never closed")
            document = str(path.relative_to(ROOT))
            yield Block(document, number, kind.strip(), "\n".join(inside) + "\n")


def chosen(*kinds: str) -> list[Block]:
    """The blocks of some kinds."""
    assert set(kinds) <= set(KINDS)
    return [block for block in blocks() if block.kind in kinds]


def commands(block: Block) -> list[Command]:
    """What a block has people type. A line goes on after `\\`, a here-document to its word."""
    prompt = "$ " if block.kind.startswith("console") else ""
    found: list[Command] = []
    lines = iter(enumerate(block.text.splitlines(), block.line + 1))
    for number, line in lines:
        if not line.startswith(prompt) or not line.strip():
            assert found or not line.strip(), f"{block.where}: no prompt in front of {line!r}"
            if line.strip():
                found[-1] = found[-1]._replace(shown=(*found[-1].shown, line))
            continue
        typed = line.removeprefix(prompt)
        until = re.search(r"(?<!<)<<(?!<)-?\s*'?(\w+)'?", typed)
        while typed.endswith("\\") or (until and typed.splitlines()[-1] != until[1]):
            typed += "\n" + next(lines)[1]
        found.append(Command(typed, (), number))
    return found


def fits(shown: tuple[str, ...], printed: str) -> str:
    """Whether something printed is what a document shows; empty if so, else what is wrong.

    Numbers, times and hexadecimal names may be others, and columns may be of other widths; but a
    number alone in its line, and whether something is up or there (`=> 1`), say what they say. `…`
    is any text in a line; alone in its line it is any lines.
    """
    pattern = "".join(
        r"(?:.*\n)*?" if line.strip() == "…" else _shape(line, pattern=True) + r"\n"
        for line in shown
    )
    real = "".join(f"{_shape(line)}\n" for line in printed.splitlines() if line.strip())
    if re.fullmatch(pattern, real):
        return ""
    return "the document shows\n" + "\n".join(shown) + "\nand it printed\n" + printed


_NUMBER = re.compile(
    r"\b(?:GPU|MIG)-[0-9a-f…-]+|\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b|\b[0-9a-f]{12,}\b"
    r"|[-−+]?\d[\d.,:]*(?:e[-+]?\d+)?(?:T[\d:.]+Z)?(?:-\d\d-\d\d(?:T[\d:.]+Z)?)?"
)
_SAID = re.compile(r"\s*\d+\s*|.*(?:=>|_up\{.*\}) +(?P<value>[01](?:\.0)?)(?: @\[.*)?\s*")


def _shape(line: str, *, pattern: bool = False) -> str:
    """A line without what is another each time."""
    plain = " ".join(_NUMBER.sub("0", line).split())
    if said := _SAID.fullmatch(line):
        plain += f" that is {said['value'] or line.strip()}"
    return ".*".join(re.escape(part) for part in plain.split("…")) if pattern else plain
