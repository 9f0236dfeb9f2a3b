"""Which commands are on which GPUs: their processes are not the others' any more."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from wattledger.jobs.runs.run import Run
from wattledger.jobs.shares import holders_among, slice_claims
from wattledger.model import Payee
from wattledger.model.jobs import RUN, WHOLE_SHARE_PPM, Claim, Survey
from wattledger.model.measuring import GpuNames, Process

Listed = tuple[Process, ...]
Mine = Mapping[str, Mapping[Process, Run]]
"""GPU → the processes of runs on it, each with the innermost run that it is in."""


class OnGpus:
    """Moves the processes of commands out of the drivers' lists and into the surveys."""

    def __init__(self, gpus: Callable[[], Sequence[GpuNames]] = tuple) -> None:
        """Args: gpus: this node's GPUs, as they are cut up now. Never blocks."""
        self._gpus = gpus
        self._filtered: dict[str, tuple[Listed, Listed, Listed]] = {}
        self._last: dict[Run, dict[str, set[str]]] = {}  # run → GPU → MIG instances

    def find(self, runs: Sequence[Run], processes: Mapping[str, Listed]) -> Mine:
        """Whose processes are in the lists; the runs are each after those around it."""
        found: dict[str, dict[Process, Run]] = {}
        for device, listed in processes.items():
            for process in listed:
                for run in reversed(runs):
                    start_ticks = run.tree.members.get(process.pid)
                    if start_ticks is not None and process.start_ticks in (0, start_ticks):
                        found.setdefault(device, {})[process] = run
                        break
        return found

    def others(self, processes: Mapping[str, Listed], mine: Mine) -> Mapping[str, Listed]:
        """The lists without the runs' processes, the same tuples as long as nothing changes."""
        if not mine:
            self._filtered.clear()
            return processes
        filtered: dict[str, tuple[Listed, Listed, Listed]] = {}
        for device, own in mine.items():
            listed, taken = processes[device], tuple(own)
            last = self._filtered.get(device)
            if last is None or last[0] is not listed or last[1] != taken:
                last = (listed, taken, tuple(p for p in listed if p not in own))
            filtered[device] = last
        self._filtered = filtered
        return {**processes, **{device: last[2] for device, last in filtered.items()}}

    def add(
        self,
        survey: Survey,
        mine: Mine,
        shown: Iterable[Run],
        payer_of: Callable[[Payee], Payee],
    ) -> Survey:
        """A survey of the others, with the runs among them.

        Args:
            survey: made with the lists of `others`.
            mine: see `find`.
            shown: the runs that are in the answer; of the others' processes nobody is told.
            payer_of: the job that pays for a run, itself if it does.
        """
        here = set(shown)
        cut_up = {gpu.uuid: gpu for gpu in (self._gpus() if here else ()) if gpu.instances}
        processes, sm, strangers = dict(survey.processes), dict(survey.sm), set(survey.strangers)
        instances, claims = dict(survey.instances), list(survey.claims)
        on_gpu: dict[Run, dict[str, set[str]]] = {}
        for device, own in mine.items():
            used: dict[Payee, int] = {}
            told = not processes.get(device) or device in sm
            for process, run in own.items():
                if run not in here:
                    strangers.add(device)
                    continue
                used[run.payee] = used.get(run.payee, 0) + (process.sm or 0)
                told = told and process.sm is not None
                on_it = on_gpu.setdefault(run, {}).setdefault(device, set())
                if process.instance is not None:
                    on_it.add(process.instance)
            if told and used:
                sm[device] = {**sm.get(device, {}), **used}
            else:
                sm.pop(device, None)
        for run, devices in self._last.items():
            # What has ended was on its GPUs until its end, whatever the driver lists now.
            if run.finish is not None and run in here:
                on_gpu[run] = {**devices, **on_gpu.get(run, {})}
        self._last = on_gpu
        for device in dict.fromkeys(device for on_it in on_gpu.values() for device in on_it):
            runs = {run: on_it[device] for run, on_it in on_gpu.items() if device in on_it}
            everybody = [*processes.get(device, ()), *(run.payee for run in runs)]
            if device in cut_up or device in instances or any(runs.values()):
                there = dict(instances.get(device, {}))
                for run, those in runs.items():
                    for name in those:
                        there[name] = (*there.get(name, ()), run.payee)
                instances[device] = there
                # Once over all of them: who else is on an instance has so much less of it.
                held = slice_claims(device, there, cut_up.get(device), payer_of)
                claims = [c for c in claims if (c.device, c.source) != (device, "processes")]
                claims += held
                everybody = holders_among(everybody, held)
                sm.pop(device, None)
            processes[device] = tuple(everybody)
        for run in here:
            claims += [
                Claim(RUN, run.payee.job_id, device, WHOLE_SHARE_PPM, "run")
                for device in run.gpus
                if device not in cut_up  # it was not when it was claimed
            ]
        return replace(
            survey,
            processes=processes,
            sm=sm,
            instances=instances,
            strangers=frozenset(strangers),
            claims=tuple(claims),
        )
