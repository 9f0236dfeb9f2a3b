"""Who holds a GPU, and how those share it who hold it together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from wattledger.model import Payee
from wattledger.model.jobs import TRUST, WHOLE_SHARE_PPM, Claim, JobKey, Survey

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


def among_steps(device: str, holders: Holders, survey: Survey) -> Holders:
    """The same, with what each job holds divided among it and its steps.

    A step has what its processes use, or the equal part of it; a job whose own processes are not
    on the device leaves all of it to the steps that are.
    """
    members: dict[Payee, list[Payee]] = {}
    for payee in survey.processes.get(device, ()):
        if payee in survey.runs:
            members.setdefault(payer_of(payee, survey.steps), []).append(payee)
    for claim in survey.claims:
        if claim.device == device and claim.source == "run":
            for step in survey.steps:
                if (step.manager, step.job_id) == (claim.manager, claim.job_id):
                    members.setdefault(payer_of(step, survey.steps), []).append(step)
    if not any(payee in survey.steps for those in members.values() for payee in those):
        return holders
    sm = survey.sm.get(device, {})
    parts: dict[Payee, list[tuple[Payee, int]]] = {}
    common = 1  # a multiple of every job's sum of weights, so that all stay whole numbers
    for payer, _ in holders.weights:
        those = sorted(set(members.get(payer, ()))) or [payer]
        used = [(payee, sm.get(payee, 0)) for payee in those]
        if not sum(weight for _, weight in used):
            used = [(payee, 1) for payee in those]
        parts[payer] = used
        common *= sum(weight for _, weight in used)
    weights = [
        (payee, weight * part * (common // sum(p for _, p in parts[payer])))
        for payer, weight in holders.weights
        for payee, part in parts[payer]
        if part
    ]
    return Holders(tuple(weights), holders.whole * common, holders.exact)
