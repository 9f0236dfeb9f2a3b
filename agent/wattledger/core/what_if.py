"""The energy of the books at other prices, beside what was booked. Pure.

Formulas, with the facility's energy E × PUE as the books hold it, so that only the grid differs:

    CO2e       = E × PUE × other intensity
    grid water = E × PUE × other EWIF

Water on site is of the site and stays. A figure is the floor of the exact product for a row of the
report, while the books take the floor for each entry: priced at its own intensity, a row is what
was booked to within 1 µg for each of its entries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import NamedTuple

from wattledger.model import Amounts, TotalsRow
from wattledger.units import UJ_PER_KWH

JOIN = "+"


class Alternative(NamedTuple):
    """Another price of facility energy.

    Attributes:
        intensity_ug_per_kwh: exact.
        ewif_ul_per_kwh: exact; None: nothing is known about its water.
        basis: what the intensity counts; several, joined by `+`, are unlike things.
    """

    intensity_ug_per_kwh: Fraction
    ewif_ul_per_kwh: Fraction | None
    basis: str


class Line(NamedTuple):
    """A group of the books and what it would have been.

    Attributes:
        group: as in the report.
        real: as booked, or settled since.
        basis: what the booked CO2e counts.
        priced: the same, of the part for which there is another price.
        co2e_ug: of that part, at the other price; None: there is no such part.
        water_grid_ul: the same; None: also where the other water is not known for all of it.
        other_basis: what the other CO2e counts.
    """

    group: str
    real: Amounts
    basis: str
    priced: Amounts
    co2e_ug: int | None
    water_grid_ul: int | None
    other_basis: str

    @property
    def difference_ug(self) -> int | None:
        """How much more CO2e the same energy would have caused; below 0: less."""
        return None if self.co2e_ug is None else self.co2e_ug - self.priced.co2e_ug


def line(row: TotalsRow, other: Alternative | None) -> Line:
    """A row of the books beside what it would have been.

    Raises:
        ValueError: the row does not say how much energy the facility used.
    """
    if row.facility_uj is None:
        raise ValueError("the row lacks the facility's energy")
    basis = joined(str(basis) for basis in row.bases)
    if other is None:
        return Line(row.group, row.amounts, basis, Amounts(), None, None, "")
    return Line(
        row.group,
        row.amounts,
        basis,
        row.amounts,
        int(row.facility_uj * other.intensity_ug_per_kwh / UJ_PER_KWH),
        None
        if other.ewif_ul_per_kwh is None
        else int(row.facility_uj * other.ewif_ul_per_kwh / UJ_PER_KWH),
        other.basis,
    )


def merged(lines: Iterable[Line], group_of: Callable[[str], str]) -> list[Line]:
    """The lines summed up by a coarser group, in the order in which the groups come."""
    found: dict[str, Line] = {}
    for part in lines:
        group = group_of(part.group)
        old = found.get(group)
        found[group] = part._replace(group=group) if old is None else _plus(old, part)
    return list(found.values())


def _plus(one: Line, two: Line) -> Line:
    dry = any(part.co2e_ug is not None and part.water_grid_ul is None for part in (one, two))
    return Line(
        one.group,
        one.real.plus(two.real),
        joined((one.basis, two.basis)),
        one.priced.plus(two.priced),
        _sum(one.co2e_ug, two.co2e_ug),
        None if dry else _sum(one.water_grid_ul, two.water_grid_ul),
        joined((one.other_basis, two.other_basis)),
    )


def _sum(one: int | None, two: int | None) -> int | None:
    return two if one is None else one if two is None else one + two


def joined(bases: Iterable[str]) -> str:
    """What a sum counts: each basis once, in order, joined by `+`; empty ones are left out."""
    return JOIN.join(sorted({part for basis in bases for part in basis.split(JOIN)} - {""}))


def booked_price(row: TotalsRow) -> Alternative | None:
    """What a row of the books was priced at, as a whole; None: it holds no energy to tell it by.

    With it the same row is what was booked, exactly.
    """
    if not row.facility_uj:
        return None
    return Alternative(
        Fraction(row.amounts.co2e_ug * UJ_PER_KWH, row.facility_uj),
        Fraction(row.amounts.water_grid_ul * UJ_PER_KWH, row.facility_uj),
        joined(str(basis) for basis in row.bases),
    )


def mixed(parts: Iterable[tuple[Fraction, Fraction]]) -> Fraction:
    """The intensity of a mix: Σ share × intensity.

    Args:
        parts: shares and their intensities; the shares sum to 1.

    Raises:
        ValueError: they do not, or one is not above 0.
    """
    listed = list(parts)
    if any(share <= 0 for share, _ in listed):
        raise ValueError("each share is above 0")
    if (total := sum((share for share, _ in listed), Fraction(0))) != 1:
        raise ValueError(f"the shares sum to {float(total):g}, not to 1")
    return sum((share * intensity for share, intensity in listed), Fraction(0))
