"""What the commands' tables and receipts share: plain text, CSV without formulas, JSON."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

PIPE_COLUMNS = 180  # into a pipe or a file a table is as wide as it is

TABLE_ROWS = 50
"""How many jobs or users a table of a report shows where nobody says."""


def print_json(answer: Mapping[str, Any]) -> None:
    """As the API answers it."""
    sys.stdout.write(json.dumps(answer, indent=2) + "\n")


def print_csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """RFC 4180 with a header line; names come from outside: none may be a spreadsheet's formula."""
    out = io.StringIO()
    writer = csv.DictWriter(out, columns)
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _no_formula(row[name]) for name in columns})
    sys.stdout.write(out.getvalue())


def can_print(text: str) -> bool:
    """Whether standard output's encoding has these characters."""
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def printable(text: str) -> str:
    """Nothing that a terminal would obey, nor anything that its encoding lacks."""
    shown = "".join(c if c.isprintable() else "\ufffd" for c in text)
    return shown if can_print(shown) else shown.encode("ascii", "replace").decode()


def _no_formula(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value[:1] in tuple("=+-@\t\r") else value
