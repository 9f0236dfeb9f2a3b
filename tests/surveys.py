"""Surveys of a GPU's holders, in seconds from an arbitrary instant."""

from __future__ import annotations

from dataclasses import replace

from fakes import FakeClock
from wattledger.core.attribution import attribute
from wattledger.core.usage import Payers
from wattledger.model import EnergyInterval, Instant, Kind, Payee, Quality
from wattledger.model.jobs import RUN, Holding, JobRun, Survey, job_payee
from wattledger.units import NS_PER_S

GPU = "GPU-1"
T0 = FakeClock().now()
JOB_A = job_payee("slurm", "1", T0.wall_ns - 3600 * NS_PER_S)
JOB_B = job_payee("slurm", "2", T0.wall_ns - 3600 * NS_PER_S)
STEP = job_payee(RUN, "s1", T0.wall_ns - 3600 * NS_PER_S)
INNER = job_payee(RUN, "s2", T0.wall_ns - 3600 * NS_PER_S)
WHOLE = Holding(GPU, 1_000_000)
ALL = (JOB_A, JOB_B, STEP, INNER)
STEPS = {STEP: JOB_A, INNER: STEP}


def at(seconds: float) -> Instant:
    ns = round(seconds * NS_PER_S)
    return Instant(*(clock + ns for clock in T0))


def survey(seconds: float, *payees: Payee, **more: object) -> Survey:
    runs = {payee: JobRun(payee) for payee in payees}
    return replace(Survey(at(seconds), runs), **more)  # type: ignore[arg-type]


def ended(payee: Payee, seconds: float, *holdings: Holding) -> JobRun:
    return JobRun(payee, holdings=holdings, end_ns=at(seconds).wall_ns)


def paid(
    payers: Payers, start_s: float, end_s: float, energy_uj: int = 1_000_000
) -> dict[Payee, int]:
    one = EnergyInterval(GPU, at(start_s).wall_ns, at(end_s).wall_ns, energy_uj, Quality.METERED)
    usage = payers.usage(one, Kind.GPU, processes=1, floor_uw=0)
    return dict(attribute(one, usage).shares)
