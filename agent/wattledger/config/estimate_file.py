"""From the TOML of an estimate, a published case or one's own, to a `Case`.

Strict as the settings are: every unknown key, bad value and input that serves nothing is named with
its path, all in one message. Numbers are read as decimals, so that 0.1 is a tenth.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from itertools import combinations
from typing import Any, NamedTuple, NewType

import cattrs
from cattrs.errors import AttributeValidationNote, ClassValidationError

from wattledger.config import structure
from wattledger.config.structure import Fault
from wattledger.core.estimate.cases import Case, Estimate, Published
from wattledger.core.estimate.formulas import Derived, derive
from wattledger.core.estimate.inputs import INPUTS, exact, number_of
from wattledger.core.estimate.quantities import QUANTITIES
from wattledger.errors import ConfigError
from wattledger.grid.table import CountryTable

ZONE = "zone"
_NONE, _MOST_PUBLISHED = Decimal(0), Decimal(10**24)

Text = NewType("Text", str)
Exact = NewType("Exact", Fraction)
Inputs = NewType("Inputs", dict[str, Decimal | str])


@dataclass(frozen=True)
class _Published:
    quantity: Text
    unit: Text = Text("")
    value: Exact | None = None
    within_percent: Exact | None = None
    within: Exact | None = None
    differs_because: Text = Text("")
    note: Text = Text("")


@dataclass(frozen=True)
class _Estimate:
    name: Text = Text("")
    note: Text = Text("")
    inputs: Inputs = field(default_factory=lambda: Inputs({}))
    published: tuple[_Published, ...] = ()


@dataclass(frozen=True)
class _File:
    title: Text = Text("")
    source: Text = Text("")
    url: Text = Text("")
    doi: Text = Text("")
    note: Text = Text("")
    inputs: Inputs = field(default_factory=lambda: Inputs({}))
    estimate: tuple[_Estimate, ...] = ()


def parse_case(
    text: str, name: str, source: str, overrides: Mapping[str, Decimal | str] | None = None
) -> Case:
    """The case of a TOML text.

    Args:
        text: TOML.
        name: the case's.
        source: what the text is called in messages.
        overrides: inputs, in range, that take the place of the file's, or are added to them, in
            each of its estimates that can use them.

    Raises:
        ConfigError: all faults, each with the key's path and the remedy.
    """
    try:
        tree = tomllib.loads(text, parse_float=Decimal)
    except (ValueError, ArithmeticError, RecursionError) as error:
        raise ConfigError([(source, f"not valid TOML: {error}")], source) from error
    try:
        file = _CONVERTER.structure(tree, _File)
    except Exception as error:  # (cattrs raises groups of anything)
        raise ConfigError(_named(source, structure.walk(error, "", _File)), source) from error
    faults: list[Fault] = []
    if not file.estimate:
        faults.append(("estimate", "is missing; write at least one [[estimate]]"))
    called = [estimate.name for estimate in file.estimate]
    faults += [
        (f"estimate[{number}].name", f"{name!r} is another's too; call each differently")
        for number, name in enumerate(called)
        if name in called[:number]
    ]
    estimates = [
        _estimate(f"estimate[{number}]", file.inputs, estimate, overrides or {}, faults)
        for number, estimate in enumerate(file.estimate)
    ]
    if faults:
        raise ConfigError(_named(source, faults), source)
    title = file.title or name
    return Case(name, title, file.source, file.url, file.doi, file.note, tuple(estimates))


def resolve(given: Mapping[str, Decimal | str]) -> tuple[dict[str, Fraction], dict[str, str]]:
    """Inputs as numbers, and the origins of those that a zone stands for.

    `zone` gives the grid's intensity and its water from the packaged country table, where they are
    not given themselves.

    Raises:
        ConfigError: a value that cannot be; its path is the input's name.
    """
    numbers: dict[str, Fraction] = {}
    origins: dict[str, str] = {}
    faults: list[Fault] = []
    for name, value in given.items():
        if isinstance(value, str):
            continue
        try:
            numbers[name] = number_of(name, value)
        except ValueError as error:
            faults.append((name, str(error)))
    zone = given.get(ZONE)
    if isinstance(zone, str):
        table = CountryTable.load()
        try:
            signal, ewif = table.signal(zone), table.ewif(zone)
        except ConfigError as error:
            faults += [(ZONE, sentence) for _, sentence in error.faults]
        else:
            if "intensity_g_per_kwh" not in numbers:
                numbers["intensity_g_per_kwh"] = Fraction(signal.intensity_ug_per_kwh, 10**6)
                year = table.row(signal.zone).year  # of the world's, where its own is not published
                origins["intensity_g_per_kwh"] = f"country table, {signal.zone} {year}"
            if "ewif_l_per_kwh" not in numbers:
                numbers["ewif_l_per_kwh"] = Fraction(ewif.ul_per_kwh, 10**6)
                origins["ewif_l_per_kwh"] = f"country table, {ewif.zone} (WRI 2020)"
    if faults:
        raise ConfigError(faults)
    return numbers, origins


def over(
    given: Mapping[str, Decimal | str], overrides: Mapping[str, Decimal | str]
) -> dict[str, Decimal | str]:
    """Inputs with others in their place; another zone takes the figures of the first along."""
    gone = {"intensity_g_per_kwh", "net_intensity_g_per_kwh", "ewif_l_per_kwh"}
    kept = {k: v for k, v in given.items() if ZONE not in overrides or k not in gone}
    return {**kept, **overrides}


def _estimate(
    path: str,
    common: Inputs,
    estimate: _Estimate,
    overrides: Mapping[str, Decimal | str],
    faults: list[Fault],
) -> Estimate:
    """The estimate; its faults are appended."""
    published = tuple(
        Published(
            p.quantity,
            p.unit,
            p.value,
            p.within_percent,
            p.within,
            p.differs_because,
            p.note,
        )
        for p in estimate.published
    )
    given = {**common, **estimate.inputs}
    try:
        used, found = _with(given, overrides)
    except ConfigError as error:
        faults += [(f"{path}.inputs.{name}", sentence) for name, sentence in error.faults]
        return Estimate(estimate.name, {})
    except ValueError as error:
        faults.append((f"{path}.inputs", str(error)))
        return Estimate(estimate.name, {})
    unusable = {
        name: _why_not(given, used, overrides, name) for name in overrides if name not in used
    }
    if used:  # what was published of other inputs may not follow from these
        before = _quantities(given)
        published = tuple(
            p for p in published if p.quantity in found.derived.values or p.quantity not in before
        )
        # What changes no figure that is shown would be said to be an input and be none.
        used = {name: value for name, value in used.items() if found.serves(name, published)}
        found = _found(over(given, used))
    for number, figure in enumerate(published):
        faults += _compared(f"{path}.published[{number}]", figure, found.derived.values)
    return Estimate(
        estimate.name,
        found.inputs,
        published,
        estimate.note,
        found.origins,
        {name: found.given_by(name) for name in used},
        unusable,
    )


class _Found(NamedTuple):
    """Inputs, the origins of those that nobody wrote down, and what follows from them."""

    inputs: dict[str, Fraction]
    origins: dict[str, str]
    derived: Derived

    def given_by(self, name: str) -> Collection[str]:
        """The inputs that a key gives: itself, or what a zone stands for."""
        return tuple(self.origins) if name == ZONE else (name,)

    def serves(self, name: str, published: Sequence[Published]) -> bool:
        """Whether a figure that is compared or shown follows from a key."""
        shown = [p.quantity for p in published if p.quantity in self.derived.values]
        given = set(self.given_by(name))
        return any(given & self.derived.inputs_of(q) for q in shown or self.derived.values)


def _found(given: Mapping[str, Decimal | str]) -> _Found:
    """What follows.

    Raises:
        ConfigError: an input that cannot be.
        ValueError: inputs that do not go together, or that say nothing.
    """
    inputs, origins = resolve(given)
    derived = derive(inputs)
    if not derived.values:
        raise ValueError("nothing follows from these")
    return _Found(inputs, origins, derived)


def _with(
    given: Mapping[str, Decimal | str], overrides: Mapping[str, Decimal | str]
) -> tuple[dict[str, Decimal | str], _Found]:
    """As many of the overrides as this estimate can use, and what follows with them.

    Raises:
        ConfigError: an input of the file that cannot be.
        ValueError: the file's inputs do not go together, or say nothing.
    """
    for count in range(len(overrides), 0, -1):
        for names in combinations(overrides, count):
            some = {name: overrides[name] for name in names}
            try:
                return some, _found(over(given, some))
            except (ConfigError, ValueError):
                continue
    return {}, _found(given)


def _quantities(given: Mapping[str, Decimal | str]) -> Collection[str]:
    """What follows; nothing where the inputs are not whole."""
    try:
        return _found(given).derived.values
    except (ConfigError, ValueError):
        return ()


def _why_not(
    given: Mapping[str, Decimal | str],
    used: Mapping[str, Decimal | str],
    overrides: Mapping[str, Decimal | str],
    name: str,
) -> str:
    """Why an override is of no use beside those that are."""
    try:
        _found(over(given, {**used, name: overrides[name]}))
    except (ConfigError, ValueError) as error:
        return error.faults[0][1] if isinstance(error, ConfigError) else str(error)
    raise AssertionError("the largest set that can be used was taken")


def _compared(path: str, published: Published, values: Mapping[str, Fraction]) -> Iterator[Fault]:
    """What is wrong with a published figure."""
    name, unit = published.quantity, published.unit
    if name not in QUANTITIES:
        yield f"{path}.quantity", _among(name, QUANTITIES)
    elif name not in values:
        yield f"{path}.quantity", f"{name} does not follow from the inputs; see the formulas"
    elif unit and unit not in QUANTITIES[name].units:
        yield f"{path}.unit", _among(unit, QUANTITIES[name].units)
    judged = [published.within_percent, published.within, published.differs_because or None]
    if published.value is None and any(part is not None for part in judged):
        yield f"{path}.value", "is missing; a tolerance is of a published value"
    elif published.value is not None and published.value <= 0:
        yield f"{path}.value", "is not above 0"
    elif published.value is not None and all(part is None for part in judged):
        yield path, "has a value without within_percent, within or differs_because"


def _named(source: str, faults: Iterator[Fault] | list[Fault]) -> list[Fault]:
    """With the file's name before each path, since several may be read."""
    return sorted((f"{source}: {path}" if path else source, text) for path, text in faults)


def _among(name: str, known: Mapping[str, Any]) -> str:
    return f"{name[:60]!r} is not possible here; write one of {', '.join(known)}"


# ── values ──────────────────────────────────────────────────────────────────────────────────────


def _text(value: Any, _: Any = None) -> str:
    """A text on one line; nothing in it that a terminal would obey."""
    line = " ".join(structure.text(value).split())
    if not line.isprintable():
        raise ValueError("holds a control character")
    return line


def _decimal(value: Any) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise ValueError(f"{str(value)[:40]!r} is not a number")
    return Decimal(value)


def _exact(value: Any, _: Any = None) -> Fraction:
    return exact(_decimal(value), _NONE, _MOST_PUBLISHED)


def _inputs(value: Any, _: Any = None) -> Inputs:
    """A table of inputs; every key is looked at, so that every fault is found."""
    if not isinstance(value, dict):
        raise ValueError(f"{value!r} is not a table of inputs")
    found = Inputs({})
    errors: list[Exception] = []
    for key, raw in value.items():
        try:
            if key == ZONE:
                found[key] = _text(raw)
            elif key in INPUTS:
                found[key] = _decimal(raw)
                number_of(key, _decimal(raw))
            else:
                raise ValueError(structure.unknown(key, [*INPUTS, ZONE]))
        except ValueError as error:
            error.__notes__ = [AttributeValidationNote(f"input {key}", key, None)]
            errors.append(error)
    if errors:
        raise ClassValidationError("", errors, dict)
    return found


def _build_converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True, detailed_validation=True)
    hooks: dict[Any, Callable[[Any, Any], Any]] = {Text: _text, Exact: _exact, Inputs: _inputs}
    for kind, hook in hooks.items():
        converter.register_structure_hook(kind, hook)
    converter.register_structure_hook(Exact | None, _exact)
    converter.register_structure_hook_func(structure.is_array, structure.array(converter))
    return converter


_CONVERTER = _build_converter()
