"""`configs/estimates/README.md`, from the registries and the cases.

python -m wattledger.estimates.page > configs/estimates/README.md
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

from wattledger.core.estimate.cases import Case, Row
from wattledger.core.estimate.formulas import FORMULAS
from wattledger.core.estimate.inputs import INPUTS, MOST
from wattledger.core.estimate.quantities import QUANTITIES
from wattledger.estimates import files
from wattledger.estimates.showing import percent, readable

_INTRO = """\
# Estimates

Footprints without a meter, by the arithmetic of the books (`core/footprint.py`, integers): what the
well-known figures about AI's energy, carbon and water follow from, and which of them do. This page
is generated (`python -m wattledger.estimates.page`).

```sh node
wattledger estimate --list                            # every published case, computed again
wattledger estimate chatgpt-day                       # one of them: source, inputs, notes
wattledger estimate chatgpt-day --zone FR             # the same on another grid
wattledger estimate --chips 64 --days 12 --watts 700 --zone DE --pue 1.2
wattledger estimate --requests 1000000 --wh-per-request 0.24 --zone US
wattledger estimate mine.toml --json
```

On the command line, what is left out is the daemon's default: `WORLD`, PUE 1.56, WUE 0.36 L/kWh.
In a file nothing is assumed: what its inputs do not give is not computed.

Figures beside a case take the place of its own in each of its estimates that can use them, and the
notes of the rows that follow from them say so (`With zone = FR.`). A published figure that no
longer follows is left out: what was net of purchases on one grid says nothing about another. What
no row follows from is refused.
"""

_FILE = """\
## A file

```toml estimate
title = "Training of ours"
source = "…"                     # also url, doi, note: all may be left out

[inputs]                         # of every estimate below, each may put another in its place
pue = 1.15
zone = "DE"                      # intensity and grid water of the packaged country table

[[estimate]]
name = "from chips"              # also note
inputs = { chips = 64, days = 12, watts = 700 }

[[estimate.published]]           # none: everything that follows is shown
quantity = "co2e"
unit = "t"
value = 4.89                     # none: the quantity is shown without a comparison
within_percent = 2               # or within, in the unit; or differs_because = "…"
```

Every unknown key, bad value, quantity that follows in two ways, and input that serves nothing is
named, all in one message. Numbers are decimals: 0.1 is a tenth.

"""


def page() -> str:
    """The page."""
    cases = [files.load(name) for name in files.names()]
    return "\n".join([_INTRO, *_cases(cases), "", _FILE + "\n".join(_reference())]) + "\n"


def _cases(cases: Iterable[Case]) -> Iterator[str]:
    yield "## Published cases\n"
    yield "| case | estimate | quantity | published | computed | difference |"
    yield "| --- | --- | --- | --: | --: | --: |"
    apart: list[Row] = []
    told: list[str] = []
    for case in cases:
        rows = files.rows_of(case)
        apart += [row for row in rows if row.reproduced is False]
        told.append(_told(case))
        for row in rows:
            yield _row(row)
    yield "\n`*`: the inputs do not reproduce it:\n"
    for row in apart:
        what = ", ".join(filter(None, (f"`{row.case}`", row.estimate, row.quantity)))
        yield f"- {what}: {row.note}"
    yield "\n### Where they are from\n"
    yield from told


def _row(row: Row) -> str:
    unit = "" if row.unit == "1" else f" {row.unit}"
    published = "-" if row.published is None else readable(row.published) + unit
    mark = " \\*" if row.reproduced is False else ""
    cells = (
        f"`{row.case}`",
        row.estimate,
        row.quantity,
        published,
        readable(row.computed) + unit,
        percent(row.difference_percent) + mark,
    )
    return f"| {' | '.join(cells)} |"


def _told(case: Case) -> str:
    links = []
    if case.url:
        links.append(f"<{case.url}>")
    if case.doi:
        links.append(f"[doi:{case.doi}](https://doi.org/{case.doi})")
    source = ", ".join([case.source, *links])
    return f"- `{case.name}` **{case.title}.** {source}. {case.note}".rstrip()


def _reference() -> Iterator[str]:
    yield "### Inputs\n"
    yield "| input | option | meaning | range |"
    yield "| --- | --- | --- | --- |"
    for name, known in INPUTS.items():
        option = f"`{known.option}`" if known.option else ""
        low = "from 0" if known.low == 0 else "above 0"
        span = low if known.high == MOST else f"{known.low:g} to {known.high:g}"
        yield f"| `{name}` | {option} | {known.meaning} | {span} |"
    yield "| `zone` | `--zone` | a row of the country table | `DE`, `US`, …, `WORLD` |"
    yield "\n### Quantities\n"
    yield "| quantity | units | meaning | follows as |"
    yield "| --- | --- | --- | --- |"
    for name, quantity in QUANTITIES.items():
        units = ", ".join(f"`{unit}`" for unit in quantity.units)
        ways = "; or ".join(formula.text for formula in FORMULAS if formula.gives == name)
        yield f"| `{name}` | {units} | {quantity.meaning} | {ways} |"


if __name__ == "__main__":
    sys.stdout.write(page())
