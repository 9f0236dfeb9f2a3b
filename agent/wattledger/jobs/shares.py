"""How runs share the GPUs that their processes are on: by use, or by MIG slices."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from wattledger.jobs.holders import Located
from wattledger.jobs.paths import Place
from wattledger.model import Payee
from wattledger.model.jobs import WHOLE_SHARE_PPM, Claim
from wattledger.model.measuring import GpuNames


class Shares(NamedTuple):
    """What the processes on the GPUs say of the runs; see `model.jobs.Survey`."""

    processes: dict[str, tuple[Payee, ...]]
    sm: dict[str, dict[Payee, int]]
    claims: tuple[Claim, ...]


def shares_of(
    located: Mapping[str, Located],
    run_of: Callable[[Place], Payee | None],
    gpus: Sequence[GpuNames],
) -> Shares:
    """From processes' cgroups to runs.

    A GPU with MIG is held by slices: who is on an instance claims the instance's part of the GPU,
    several on one instance equal parts of that. Of a run there whose instance is not known nothing
    is said.

    Args:
        located: GPU → its processes' cgroups.
        run_of: the run that a cgroup belongs to; None: it has ended.
        gpus: the node's GPUs as they are cut up now.
    """
    cut_up = {gpu.uuid: gpu for gpu in gpus if gpu.instances}
    shares = Shares({}, {}, ())
    claims: list[Claim] = []
    for device, one in located.items():
        runs = {place.cgroup: run for place in one.places if (run := run_of(place)) is not None}
        if one.instances or device in cut_up:
            held = _by_slices(device, one.instances, runs, cut_up.get(device))
            claims += held
            holders = {(claim.manager, claim.job_id) for claim in held}
            on_it = [run for run in runs.values() if (run.manager, run.job_id) in holders]
        else:
            on_it = list(runs.values())
            if one.sm is not None and runs:
                sm = shares.sm[device] = dict.fromkeys(on_it, 0)
                for cgroup, run in runs.items():
                    sm[run] += one.sm[cgroup]
        shares.processes[device] = tuple(dict.fromkeys(on_it))
    return shares._replace(claims=tuple(claims))


def _by_slices(
    device: str,
    instances: Mapping[str, Sequence[str]],
    runs: Mapping[str, Payee],
    gpu: GpuNames | None,
) -> list[Claim]:
    """Each run's part of a GPU with MIG; an instance that is not the GPU's counts for nothing."""
    parts: dict[Payee, tuple[int, bool]] = {}
    for instance in gpu.instances if gpu is not None else ():
        there = dict.fromkeys(
            runs[cgroup] for cgroup in instances.get(instance.uuid, ()) if cgroup in runs
        )
        for run in there:
            whole = max(gpu.slices if gpu is not None else 0, 1) * len(there)
            share_ppm, exact = parts.get(run, (0, True))
            share_ppm += WHOLE_SHARE_PPM * instance.slices // whole
            parts[run] = min(share_ppm, WHOLE_SHARE_PPM), exact and len(there) == 1
    return [
        Claim(run.manager, run.job_id, device, share_ppm, "processes", exact)
        for run, (share_ppm, exact) in parts.items()
    ]
