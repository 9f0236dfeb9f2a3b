"""`wattledger verify`: by the running daemon, or over its ledger while it is stopped."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from typing import Any

from wattledger import build
from wattledger.config import Config
from wattledger.core.footprint import footprint
from wattledger.errors import DaemonUnreachable
from wattledger.ledger import open_reader_offline
from wattledger.model.settle_report import Verified
from wattledger.remote import Remote
from wattledger_exporters.http.settle_api import VERIFY_PATH, verify_json
from wattledger_exporters.wording import printable

PATIENCE_S = 90.0
UNBALANCED_EXIT = 1
BALANCED = "The books balance: every entry, settlement and total was recomputed."


def verify_command(
    options: argparse.Namespace, config: Callable[[], Config], remote: Remote
) -> int:
    """Prints the differences between the books and what is recomputed of them.

    A daemon tells the first ones and how many there are.

    Returns:
        The exit code: 0 where there is none.

    Raises:
        LedgerError: no daemon runs, and its ledger cannot be read either.
    """
    answer: Mapping[str, Any]
    try:
        answer = remote.request(VERIFY_PATH, timeout_s=PATIENCE_S)
    except DaemonUnreachable:
        reader = open_reader_offline(build.ledger_path(config()))
        try:
            with closing(reader.findings(footprint)) as found:
                if not options.json:
                    return _say(found)
                differences = tuple(found)
                answer = verify_json(Verified(differences, len(differences)))
        finally:
            reader.close()
    if not options.json:
        return _say(answer["differences"], answer["count"])
    sys.stdout.write(json.dumps(answer, indent=2) + "\n")
    return 0 if answer["balanced"] else UNBALANCED_EXIT


def _say(found: Iterable[str], count: int = 0) -> int:
    told = 0
    for line in found:
        sys.stdout.write(printable(line) + "\n")
        told += 1
    if count > told:
        sys.stdout.write(f"and {count - told:,} more; all are listed while no daemon runs\n")
    if not told:
        sys.stdout.write(BALANCED + "\n")
    return UNBALANCED_EXIT if told else 0
