"""Cases from files: the published ones that come with the program, and one's own."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from pathlib import Path

from wattledger.config.estimate_file import ZONE, parse_case, resolve
from wattledger.config.site_settings import DEFAULT_PUE, DEFAULT_WUE_L_PER_KWH
from wattledger.core.estimate.cases import Case, Estimate, Row, rows
from wattledger.core.estimate.formulas import derive
from wattledger.core.estimate.inputs import INPUTS
from wattledger.errors import ConfigError, WattledgerError
from wattledger.grid.table import WORLD

PACKAGED = Path(__file__).parent / "cases"  # where the wheel has them
CHECKOUT = Path(__file__).parents[3] / "configs" / "estimates"
_MOST_BYTES = 1 << 16  # the largest published case has 2 KiB
OWN = "estimate"  # the name of what the command line's own figures make
_SITE = {"pue", "intensity_g_per_kwh", "wue_l_per_kwh", "ewif_l_per_kwh", ZONE}

Given = Mapping[str, Decimal | str]


def directory() -> Path:
    """Where the published cases are.

    Raises:
        WattledgerError: neither beside the program nor in the checkout.
    """
    for place in (PACKAGED, CHECKOUT):
        if place.is_dir():
            return place
    raise WattledgerError("the published cases are not installed", "install the package again")


def names() -> list[str]:
    """The published cases, in order."""
    return sorted(path.stem for path in directory().glob("*.toml"))


def load(name: str, overrides: Given | None = None) -> Case:
    """A published case by its name, or a file of one's own by its path.

    Args:
        name: see above.
        overrides: inputs that take the place of its own in each estimate that can use them.

    Raises:
        ConfigError: no such case or file, or every fault of it; an override that cannot be.
    """
    try:
        resolve(overrides or {})
    except ConfigError as error:
        raise ConfigError([(_option(key), text) for key, text in error.faults]) from error
    own = name.endswith(".toml") or "/" in name
    if not own and name not in names():
        near = difflib.get_close_matches(name, names(), n=3, cutoff=0.4)
        remedy = f"did you mean {', '.join(near)}?" if near else "`estimate --list` shows them"
        raise ConfigError([(name[:60], f"is no published case; {remedy}")])
    path = Path(name) if own else directory() / f"{name}.toml"
    try:
        with path.open("rb") as file:
            raw = file.read(_MOST_BYTES + 1)
        if len(raw) > _MOST_BYTES:
            raise ConfigError([(str(path), "is larger than 64 KiB")])
        text = raw.decode("utf-8")
    except OSError as error:
        raise ConfigError([(str(path), f"cannot be read: {error.strerror}")]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([(str(path), f"is not UTF-8 text: {error}")]) from error
    return parse_case(text, path.stem, path.name, overrides)


def given_by(options: argparse.Namespace) -> dict[str, Decimal | str]:
    """The inputs that the command line states.

    Raises:
        ConfigError: an option whose value is no number.
    """
    given: dict[str, Decimal | str] = {}
    faults: list[tuple[str, str]] = []
    for name in (*INPUTS, ZONE):
        said = getattr(options, name, None)
        if said is None:
            continue
        try:
            given[name] = said if name == ZONE else Decimal(said)
        except InvalidOperation:
            faults.append((_option(name), f"{said[:40]!r} is not a number"))
    if faults:
        raise ConfigError(faults)
    return given


def own_case(given: Given) -> Case:
    """What the command line's own figures make, with the daemon's defaults for what they leave out.

    Raises:
        ConfigError: figures that cannot be, or that say nothing together.
    """
    defaults: dict[str, Decimal | str] = {}
    origins: dict[str, str] = {}
    if ZONE not in given and not {"intensity_g_per_kwh", "ewif_l_per_kwh"} <= set(given):
        defaults[ZONE] = WORLD
    for name, value in (("pue", DEFAULT_PUE), ("wue_l_per_kwh", DEFAULT_WUE_L_PER_KWH)):
        if name not in given:
            defaults[name] = Decimal(str(value))
            origins[name] = "default"
    work = {name: value for name, value in given.items() if name not in _SITE}
    try:
        if "facility_kwh" not in work and "it_energy" not in derive(resolve(work)[0]).values:
            remedy = "add --kwh, or --gpu-hours and --watts, or --requests and --wh-per-request"
            raise ConfigError([(OWN, f"these figures give no energy; {remedy}")])
        inputs, looked_up = resolve({**given, **defaults})
        derive(inputs)
    except ConfigError as error:
        raise ConfigError([(_option(name), text) for name, text in error.faults]) from error
    except ValueError as error:
        raise ConfigError([(OWN, str(error))]) from error
    estimate = Estimate("", inputs, origins={**origins, **looked_up})
    return Case(OWN, "Estimate", "", "", "", "", (estimate,))


def rows_of(case: Case, overrides: Given | None = None) -> list[Row]:
    """A case's rows; what was put in the place of their inputs is said in the notes of those.

    Raises:
        ConfigError: an override that none of them follows from.
    """
    found, given = list(rows(case)), overrides or {}
    used = {name for row in found for name in row.changed}
    if idle := [name for name in given if name not in used]:
        raise ConfigError([(_option(name), _of_no_use(case, name)) for name in idle])
    return [_noted(row, given) for row in found]


def _noted(row: Row, given: Given) -> Row:
    if not row.changed:
        return row
    changed = "With " + ", ".join(f"{name} = {given[name]}" for name in row.changed) + "."
    return replace(row, note=f"{changed} {row.note}".rstrip())


def _of_no_use(case: Case, name: str) -> str:
    """Why an override changes nothing; the same reason of several estimates is said once."""
    whys = dict.fromkeys(e.unusable[name] for e in case.estimates if name in e.unusable)
    if not whys or len(case.estimates) > sum(name in e.unusable for e in case.estimates):
        return f"no figure of {case.name} follows from it"
    return f"{case.name} cannot use it: {'; '.join(whys)}"


def _option(name: str) -> str:
    """How the command line calls an input; anything else stays as it is."""
    return INPUTS[name].option if name in INPUTS else f"--{name}" if name == ZONE else name
