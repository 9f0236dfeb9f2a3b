"""`wattledger verify`: by the running daemon, or over its ledger while it is stopped."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

from wattledger import build
from wattledger.config import Config
from wattledger.core.footprint import footprint
from wattledger.errors import DaemonUnreachable
from wattledger.ledger import open_reader_offline
from wattledger.remote import Remote
from wattledger_exporters.http.settle_api import VERIFY_PATH, verify_json
from wattledger_exporters.wording import printable

PATIENCE_S = 90.0
UNBALANCED_EXIT = 1
BALANCED = "The books balance: every entry, settlement and total was recomputed."


def verify_command(
    options: argparse.Namespace, config: Callable[[], Config], remote: Remote
) -> int:
    """Prints every difference between the books and what is recomputed of them.

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
            answer = verify_json(reader.check(footprint, sys.maxsize))
        finally:
            reader.close()
    said = list(answer["differences"]) or [BALANCED]
    text = json.dumps(answer, indent=2) if options.json else "\n".join(map(printable, said))
    sys.stdout.write(text + "\n")
    return 0 if answer["balanced"] else UNBALANCED_EXIT
