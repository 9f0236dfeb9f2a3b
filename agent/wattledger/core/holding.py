"""Who holds a GPU, and how those share it who hold it together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import lcm
from typing import NamedTuple

from wattledger.model import Payee
from wattledger.model.jobs import RUN, TRUST, WHOLE_SHARE_PPM, Claim, JobKey, Survey

Weights = tuple[tuple[Payee, int], ...]


class Holders(NamedTuple):
    """Who holds a device.

    Attributes:
        weights: run → weight; none: nobody.
        whole: what the weights are parts of.
        exact: False: it cannot be told how they share it, so equally.
    """

    weights: Weights = ()
    whole: int = 1
    exact: bool = True


def payer_of(payee: Payee, steps: Mapping[Payee, Payee]) -> Payee:
    """Who pays for a run: itself, or the job whose step (of a step …) it is."""
    seen = 0
    while payee in steps and seen < len(steps):
        payee, seen = steps[payee], seen + 1
    return payee


def holders_of(device: str, survey: Survey, running: Mapping[JobKey, Payee]) -> Holders:
    """Who pays for a GPU, by the most trusted source that names a run which is alive.

    Several that share it in a way that no source tells do so by the use of its multiprocessors;
    where that is not told either, or nobody used it, equally.

    Args:
        device: its UUID.
        survey: the latest.
        running: job → its run.
    """
    claimed = [
        (claim, payer_of(running[JobKey(claim.manager, claim.job_id)], survey.steps))
        for claim in survey.claims
        if claim.device == device
        and claim.share_ppm > 0
        and claim.source in TRUST
        and JobKey(claim.manager, claim.job_id) in running
    ]
    holders = _by_claims(claimed) if claimed else _by_processes(device, survey)
    if holders.exact:
        return holders
    used = _use_by_payer(device, survey)
    whole_use = sum(used.get(payee, 0) for payee, _ in holders.weights)
    if not whole_use:
        return holders
    # The part of the device that they hold together, by use: parts of one whole again.
    part = sum(weight for _, weight in holders.weights)
    return Holders(
        tuple((p, used[p] * part) for p, _ in holders.weights if used.get(p, 0)),
        holders.whole * whole_use,
    )


def _by_claims(claimed: list[tuple[Claim, Payee]]) -> Holders:
    best = min(TRUST.index(claim.source) for claim, _ in claimed)
    weights: dict[Payee, int] = {}
    exact = True
    for claim, payee in claimed:
        if TRUST.index(claim.source) == best:
            share = weights.get(payee, 0) + claim.share_ppm
            weights[payee] = min(share, WHOLE_SHARE_PPM)
            exact = exact and claim.exact
    whole = max(WHOLE_SHARE_PPM, sum(weights.values()))
    return Holders(tuple(sorted(weights.items())), whole, exact or len(weights) == 1)


def _by_processes(device: str, survey: Survey) -> Holders:
    payers = {
        payer_of(payee, survey.steps)
        for payee in survey.processes.get(device, ())
        if payee in survey.runs
    }
    if not payers:
        return Holders()
    return Holders(tuple((p, 1) for p in sorted(payers)), len(payers), len(payers) == 1)


def _use_by_payer(device: str, survey: Survey) -> dict[Payee, int]:
    used: dict[Payee, int] = {}
    for payee, sm in survey.sm.get(device, {}).items():
        payer = payer_of(payee, survey.steps)
        used[payer] = used.get(payer, 0) + sm
    return used


def members_of(device: str, survey: Survey) -> dict[Payee, list[tuple[Payee, int]]]:
    """Payer → those of it and its steps that are on a GPU, with their parts of what it holds.

    A step has what its processes use, with MIG by their slices, or the equal part of it; a job
    whose own processes are not on the device leaves all of it to the steps that are. A payer
    without an entry has no steps on it.
    """
    if not survey.steps:
        return {}
    on_it: dict[Payee, set[Payee]] = {}
    for payee in survey.processes.get(device, ()):
        if payee in survey.runs:
            on_it.setdefault(payer_of(payee, survey.steps), set()).add(payee)
    claiming = {c[:2] for c in survey.claims if c.device == device and c.source == RUN}
    for step in survey.steps:
        if (step.manager, step.job_id) in claiming:
            on_it.setdefault(payer_of(step, survey.steps), set()).add(step)
    sm = survey.sm.get(device, {})
    slices = {
        JobKey(claim.manager, claim.job_id): claim.share_ppm
        for claim in survey.claims
        if claim.device == device and claim.source == "processes"
    }
    members: dict[Payee, list[tuple[Payee, int]]] = {}
    for payer, those in on_it.items():
        if those.isdisjoint(survey.steps):
            continue
        used = [
            (payee, sm.get(payee, 0) if sm else slices.get(JobKey(*payee[1:3]), 0))
            for payee in sorted(those)
        ]
        if not sum(part for _, part in used):
            used = [(payee, 1) for payee, _ in used]
        members[payer] = used
    return members


def divide(
    weights: Weights,
    whole: int,
    members: Mapping[Payee, list[tuple[Payee, int]]],
    ran_ns: Callable[[Payee], int],
    length_ns: int,
) -> tuple[Weights, int]:
    """Payers' weights, divided among them and their steps.

    Args:
        weights: of payers.
        whole: what they are parts of.
        members: see `members_of`.
        ran_ns: how long a step ran in the time in question; the rest of its part is its payer's.
        length_ns: that time.
    """
    sums = {
        payer: sum(part for _, part in members[payer]) for payer, _ in weights if payer in members
    }
    if not sums or length_ns <= 0:
        return weights, whole
    scale = lcm(*sums.values())
    divided: dict[Payee, int] = {}
    for payer, weight in weights:
        left = weight * scale * length_ns
        for payee, part in members.get(payer, ()):
            if payee != payer:
                own = weight * part * (scale // sums[payer]) * min(ran_ns(payee), length_ns)
                divided[payee] = divided.get(payee, 0) + own
                left -= own
        divided[payer] = divided.get(payer, 0) + left
    return tuple(item for item in sorted(divided.items()) if item[1]), whole * scale * length_ns
