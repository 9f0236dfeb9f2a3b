"""What somebody says of the site's past since: a PUE or WUE that was measured, versioned."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from wattledger.model.pricing import Price

RESTATED = "restated"
"""The source of a factor of a final price that was restated."""
HOUR_S = 3600
END_S = 253_402_300_800  # the year 10000: where a restatement without an end ends
FACTORS = ("pue_ppm", "wue_ul_per_kwh", "ewif_ul_per_kwh")


class Restatement(NamedTuple):
    """Factors of a span of the past, and who says so; a factor that is None is left alone.

    Attributes:
        author: who says it.
        reason: why.
        made_at_ns: wall clock.
        from_s: Unix seconds, on a full hour.
        to_s: likewise, exclusive; `END_S`: from then on.
        pue_ppm: as in `Price`.
        wue_ul_per_kwh: likewise.
        ewif_ul_per_kwh: likewise.
    """

    author: str
    reason: str
    made_at_ns: int
    from_s: int
    to_s: int
    pue_ppm: int | None = None
    wue_ul_per_kwh: int | None = None
    ewif_ul_per_kwh: int | None = None

    @property
    def factors(self) -> dict[str, int]:
        """What it names, by the fields of `Price`."""
        named = {name: getattr(self, name) for name in FACTORS}
        return {name: value for name, value in named.items() if value is not None}


def factors_at(at_s: int, restatements: Iterable[Restatement]) -> dict[str, int]:
    """The restated factors of an instant, by the fields of `Price`.

    Args:
        at_s: Unix seconds.
        restatements: in the order in which they were made; of those that name a factor, the last
            holds.
    """
    found: dict[str, int] = {}
    for one in restatements:
        if one.from_s <= at_s < one.to_s:
            found |= one.factors
    return found


def restated_price(price: Price, factors: Mapping[str, int]) -> Price:
    """A price with the factors that were restated; each tells so in its source."""
    if not factors:
        return price
    changed: dict[str, Any] = {**factors, **{source_of(name): RESTATED for name in factors}}
    return price._replace(**changed)


def source_of(factor: str) -> str:
    """The field of `Price` that tells who says a factor."""
    return f"{factor.split('_', 1)[0]}_source"


def spans(restatements: Sequence[Restatement]) -> list[tuple[int, int]]:
    """Where anything is restated: spans of Unix seconds that do not touch, in order."""
    found: list[tuple[int, int]] = []
    for from_s, to_s in sorted((one.from_s, one.to_s) for one in restatements):
        if found and from_s <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], to_s)
        else:
            found.append((from_s, to_s))
    return found


def says_anew(one: Restatement, before: Sequence[Restatement]) -> bool:
    """Whether it changes any factor of any hour, after those that were made before it."""
    edges = {one.from_s, *(edge for old in before for edge in (old.from_s, old.to_s))}
    return any(
        factors_at(at_s, before) != factors_at(at_s, (*before, one))
        for at_s in edges
        if one.from_s <= at_s < one.to_s
    )


class Stale(NamedTuple):
    """Entries whose final price is not what the restatements in force make of it.

    Attributes:
        start_s: Unix seconds, where their slot or hour begins.
        is_hour: it is an hour, to which old slots were rolled up.
        entries: how many they are.
        part: of them, those of the payees whose row is this, modulo `parts`.
        parts: in how many parts they are corrected, each with a commit of its own.
    """

    start_s: int
    is_hour: bool
    entries: int = 1
    part: int = 0
    parts: int = 1
