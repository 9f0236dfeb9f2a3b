"""Writes the dashboards of `boards/` to `dashboards/*.json`; with `--check`, compares them.

    make dashboards
    python deploy/grafana/build.py --check

It needs grafana-foundation-sdk (in `pip install -e '.[dev]'`); Grafana itself reads the JSON only.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from boards import BOARDS
from grafana_foundation_sdk.cog.encoder import JSONEncoder

OUT = Path(__file__).parent / "dashboards"


def documents() -> dict[Path, str]:
    """Path → the JSON that belongs there."""
    found = {}
    for name, build in BOARDS.items():
        model = json.loads(JSONEncoder().encode(build().build()))
        for number, panel in enumerate(model["panels"], start=1):
            panel["id"] = number  # the SDK gives none, and links to a panel need one that stays
        found[OUT / f"{name}.json"] = json.dumps(model, indent=1, sort_keys=True) + "\n"
    return found


def main() -> int:
    """Returns the exit code: 1 where `--check` finds a difference."""
    made = documents()
    if "--check" not in sys.argv[1:]:
        OUT.mkdir(exist_ok=True)
        for path, text in made.items():
            path.write_text(text)
        return 0
    differing = [
        path.name for path, text in made.items() if not path.exists() or path.read_text() != text
    ]
    differing += sorted(path.name for path in set(OUT.glob("*.json")) - set(made))
    for name in differing:
        sys.stderr.write(f"{name} is not what boards/ makes: run make dashboards\n")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
