"""`python -m tests.bench`: run everything once, print the table; exit 1 if a target is missed."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.phases import Phases
from bench.process import machine
from bench.table import Result

QUICK_S = 20


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--seconds", type=float, default=120, help="of each energy span")
    parser.add_argument("--quick", action="store_true", help="20 s, shorter floods: a first look")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    parser.add_argument(
        "--only",
        choices=("counters", "scrapes", "mixed", "jobs", "ledger", "fleet"),
        help="one part of it; fleet, which needs victoria-metrics, is not in the whole",
    )
    parser.add_argument("--keep", action="store_true", help="keep the directory with the logs")
    options = parser.parse_args()
    seconds = QUICK_S if options.quick else options.seconds

    # /tmp is a tmpfs on some systems; the ledger is to be measured on a disk.
    place = "/var/tmp" if Path("/var/tmp").is_dir() else None
    directory = Path(tempfile.mkdtemp(prefix="wattledger-bench-", dir=place))
    result = Result(machine())
    try:
        Phases(directory, result, seconds, quick=options.quick).run(options.only)
    finally:
        if options.keep:
            print(f"logs and ledgers: {directory}", file=sys.stderr)
        else:
            shutil.rmtree(directory, ignore_errors=True)
    print(result.text())
    if options.json:
        result.write_json(options.json)
    if result.missed:
        print(f"\n{len(result.missed)} of the targets were missed", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
