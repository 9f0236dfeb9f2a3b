"""Who pays for an interval, in shares that sum to it exactly."""

from __future__ import annotations

from collections.abc import Sequence

from wattledger.model import IDLE, AttributedInterval, EnergyInterval, Payee, Usage
from wattledger.units import NS_PER_S


def largest_remainder(amount: int, weights: Sequence[int]) -> list[int]:
    """Whole parts of `amount` in proportion to `weights`, summing to `amount` exactly.

    Each part is the exact share rounded down; the units left over go to the largest remainders
    (Hamilton's method), ties to the earlier weight. Weights all 0 give the first part everything.

    Raises:
        ValueError: no weights, or a negative one.
    """
    whole = sum(weights)
    if not weights or min(weights) < 0:
        raise ValueError("weights must be given, and at least 0")
    if whole == 0:
        return [amount, *([0] * (len(weights) - 1))]
    divided = [divmod(amount * weight, whole) for weight in weights]
    parts = [part for part, _ in divided]
    left = amount - sum(parts)
    if left:
        remainders = [remainder for _, remainder in divided]
        # Reversed, and not negated: equal ones stay in their order either way.
        by_remainder = sorted(range(len(parts)), key=remainders.__getitem__, reverse=True)
        for i in by_remainder[:left]:
            parts[i] += 1
    return parts


def attribute(interval: EnergyInterval, usage: Usage) -> AttributedInterval:
    """Split an interval over its payees.

    First the idle floor (never more than there is) by its own weights, then the weights, then the
    rest. The order in which the weights are listed makes no difference: ties are broken by payee.
    """
    energy_uj = interval.energy_uj
    floor_uj = min(
        energy_uj, usage.floor_uw * max(0, interval.end_ns - interval.start_ns) // NS_PER_S
    )
    if not usage.weights:  # the common case, once per device and second
        shares: dict[Payee, int] = {usage.rest: energy_uj - floor_uj}
    else:
        shares = _split(usage.device, energy_uj - floor_uj, usage.weights, usage.whole, usage.rest)
    if floor_uj:
        floor = _split(usage.device, floor_uj, usage.floor_weights, usage.floor_whole, IDLE)
        for payee, part in floor.items():
            shares[payee] = shares.get(payee, 0) + part
    return AttributedInterval(interval, tuple(item for item in shares.items() if item[1]))


def _split(
    device: str,
    amount_uj: int,
    weighted: Sequence[tuple[Payee, int]],
    whole: int,
    rest: Payee,
) -> dict[Payee, int]:
    """An amount by weights over a whole; `rest` takes what they leave."""
    ordered = sorted(weighted)
    weights = [weight for _, weight in ordered]
    left = whole - sum(weights)
    if left < 0:
        raise ValueError(f"{device}: the weights sum to more than the whole")
    parts = largest_remainder(amount_uj, [*weights, left])
    shares = {rest: parts.pop()}
    for (payee, _), part in zip(ordered, parts, strict=True):
        shares[payee] = shares.get(payee, 0) + part
    return shares
