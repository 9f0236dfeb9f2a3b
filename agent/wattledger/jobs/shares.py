"""How runs share the GPUs that their processes are on: by use, or by MIG slices."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from wattledger.jobs.holders import Located
from wattledger.jobs.paths import Place
from wattledger.model import Payee
from wattledger.model.jobs import WHOLE_SHARE_PPM, Claim
from wattledger.model.measuring import GpuNames

_FINE = 720_720  # divisible by all that can be on an instance, as far as it matters


class Shares(NamedTuple):
    """What the processes on the GPUs say of the runs; see `model.jobs.Survey`."""

    processes: dict[str, tuple[Payee, ...]]
    sm: dict[str, dict[Payee, int]]
    instances: dict[str, dict[str, tuple[Payee, ...]]]
    claims: tuple[Claim, ...]


def shares_of(
    located: Mapping[str, Located],
    run_of: Callable[[Place], Payee | None],
    gpus: Sequence[GpuNames],
) -> Shares:
    """From processes' cgroups to runs.

    Of a run on a GPU with MIG whose instance is not known nothing is said; see `slice_claims`.

    Args:
        located: GPU → its processes' cgroups.
        run_of: the run that a cgroup belongs to; None: it has ended.
        gpus: the node's GPUs as they are cut up now.
    """
    cut_up = {gpu.uuid: gpu for gpu in gpus if gpu.instances}
    shares = Shares({}, {}, {}, ())
    claims: list[Claim] = []
    for device, one in located.items():
        runs = {place.cgroup: run for place in one.places if (run := run_of(place)) is not None}
        if one.instances or device in cut_up:
            there = {
                instance: tuple(dict.fromkeys(runs[path] for path in paths if path in runs))
                for instance, paths in one.instances.items()
            }
            held = slice_claims(device, there, cut_up.get(device))
            claims += held
            shares.instances[device] = there
            on_it = holders_among(runs.values(), held)
        else:
            on_it = list(runs.values())
            if one.sm is not None and runs:
                sm = shares.sm[device] = dict.fromkeys(on_it, 0)
                for cgroup, run in runs.items():
                    sm[run] += one.sm[cgroup]
        shares.processes[device] = tuple(dict.fromkeys(on_it))
    return shares._replace(claims=tuple(claims))


def holders_among(runs: Iterable[Payee], claims: Iterable[Claim]) -> list[Payee]:
    """Those of the runs that claim something, each as often as it is named."""
    holders = {(claim.manager, claim.job_id) for claim in claims}
    return [run for run in runs if (run.manager, run.job_id) in holders]


def slice_claims(
    device: str,
    instances: Mapping[str, Sequence[Payee]],
    gpu: GpuNames | None,
    payer_of: Callable[[Payee], Payee] = lambda run: run,
) -> list[Claim]:
    """Each run's part of a GPU with MIG.

    It is held by slices: who is on an instance claims the instance's part of the GPU, several on
    one instance equal parts of that. An instance that is not the GPU's counts for nothing. A job
    and the commands inside it are one there; what it has is divided among them.

    Args:
        device: the GPU.
        instances: MIG instance → the runs whose processes are on it.
        gpu: as it is cut up now; None: it is not known.
        payer_of: the job that pays for a run, itself if it does.
    """
    parts: dict[Payee, tuple[int, bool]] = {}
    members: dict[Payee, dict[Payee, int]] = {}
    for instance in gpu.instances if gpu is not None else ():
        there: dict[Payee, list[Payee]] = {}
        for run in dict.fromkeys(instances.get(instance.uuid, ())):
            there.setdefault(payer_of(run), []).append(run)
        for payer, those in there.items():
            whole = max(gpu.slices if gpu is not None else 0, 1) * len(there)
            share_ppm, exact = parts.get(payer, (0, True))
            share_ppm += WHOLE_SHARE_PPM * instance.slices // whole
            parts[payer] = min(share_ppm, WHOLE_SHARE_PPM), exact and len(there) == 1
            own = members.setdefault(payer, {})
            for run in those:
                part = instance.slices * _FINE // (len(there) * len(those))
                own[run] = own.get(run, 0) + part
    claims = []
    for payer, (share_ppm, exact) in parts.items():
        left_ppm, left = share_ppm, sum(members[payer].values())
        for run, part in members[payer].items():
            own_ppm = left_ppm * part // left  # of the last it is all that is left
            left_ppm, left = left_ppm - own_ppm, left - part
            claims.append(Claim(run.manager, run.job_id, device, own_ppm, "processes", exact))
    return claims
