"""Published cases: what follows from their inputs, beside what was published."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from wattledger.core.estimate.formulas import Derived, derive
from wattledger.core.estimate.quantities import QUANTITIES


@dataclass(frozen=True, slots=True)
class Published:
    """A figure to compare with, or, without a value, a quantity to show.

    Attributes:
        quantity: a name of `QUANTITIES`.
        unit: one of its units; empty for the first.
        value: in that unit, above 0; None where nobody published one.
        within_percent: how far the computed one may lie from it, of the value.
        within: the same in the unit; either suffices.
        differs_because: why the inputs do not reproduce it; then it must lie outside of both.
        note: for people.
    """

    quantity: str
    unit: str = ""
    value: Fraction | None = None
    within_percent: Fraction | None = None
    within: Fraction | None = None
    differs_because: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Estimate:
    """One computation of a case.

    Attributes:
        name: what is particular to it; empty where the case has one only.
        inputs: names of `INPUTS` and their values.
        published: what to compare or to show; empty: everything that follows.
        note: for people.
        origins: inputs that nobody wrote down, and where they are from.
        changed: what took the place of inputs of the file, and which inputs it gave.
        unusable: what could not, and why.
    """

    name: str
    inputs: Mapping[str, Fraction]
    published: tuple[Published, ...] = ()
    note: str = ""
    origins: Mapping[str, str] = field(default_factory=dict)
    changed: Mapping[str, Collection[str]] = field(default_factory=dict)
    unusable: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Case:
    """A published claim.

    Attributes:
        name: its file's, without `.toml`.
        title: for people.
        source: who published it, where.
        url: where to read it; may be empty.
        doi: may be empty.
        note: what to know before using it.
        estimates: at least one.
    """

    name: str
    title: str
    source: str
    url: str
    doi: str
    note: str
    estimates: tuple[Estimate, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """A computed quantity beside the published one, both in `unit`.

    `changed` names what took the place of inputs of the file that this quantity follows from.
    """

    case: str
    estimate: str
    quantity: str
    unit: str
    published: Fraction | None
    computed: Fraction
    reproduced: bool | None
    note: str
    changed: tuple[str, ...] = ()

    @property
    def difference_percent(self) -> Fraction | None:
        """Of the published value; None without one."""
        if self.published is None:
            return None
        return (self.computed - self.published) / self.published * 100


def rows(case: Case) -> Iterator[Row]:
    """What each estimate of a case gives, beside what was published.

    Raises:
        ValueError: inputs that do not go together, or a quantity that does not follow from them.
    """
    for estimate in case.estimates:
        derived = derive(estimate.inputs)
        for published in estimate.published or map(Published, derived.values):
            yield _row(case.name, estimate, published, derived)


def _row(case: str, estimate: Estimate, published: Published, derived: Derived) -> Row:
    name, values = published.quantity, derived.values
    if name not in values:
        raise ValueError(f"{name} does not follow from the inputs {', '.join(estimate.inputs)}")
    unit = published.unit or QUANTITIES[name].unit
    computed = values[name] / QUANTITIES[name].units[unit]
    note = " ".join(filter(None, (published.differs_because, published.note)))
    used = derived.inputs_of(name)
    changed = tuple(what for what, inputs in estimate.changed.items() if used & set(inputs))
    return Row(
        case, estimate.name, name, unit, published.value, computed,
        _reproduced(published, computed), note, changed,
    )  # fmt: skip


def _reproduced(published: Published, computed: Fraction) -> bool | None:
    """Whether the computed value lies within a tolerance; None without a published value."""
    value = published.value
    if value is None:
        return None
    off = abs(computed - value)
    percent = published.within_percent
    return (percent is not None and off <= value * percent / 100) or (
        published.within is not None and off <= published.within
    )
