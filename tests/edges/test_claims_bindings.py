"""From what sources say to UUIDs and shares."""

from __future__ import annotations

from fakes import FakeClock
from wattledger.jobs.claims import Bindings, GpuBy, GpuNames, JobFacts, MigInstance, SourceClaim
from wattledger.jobs.claims.liveness import Liveness
from wattledger.model import Fault
from wattledger.model.jobs import Claim, JobKey

A, B, C = "GPU-a", "GPU-b", "GPU-c"
GPUS = (
    GpuNames(A, 0, 1),
    GpuNames(B, 1, 0),
    GpuNames(C, 2, 2, (MigInstance("MIG-1", 1, 3), MigInstance("MIG-2", 2, 2)), 7),
)


class Said:
    """A `ClaimSource` that says what it is told to."""

    def __init__(self, name: str, *claims: SourceClaim, jobs: tuple[JobFacts, ...] = ()) -> None:
        self.name = name
        self.said = claims
        self._jobs = jobs

    def claims(self) -> tuple[SourceClaim, ...]:
        return self.said

    def jobs(self) -> tuple[JobFacts, ...]:
        return self._jobs or tuple(claim.job for claim in self.said)

    def faults(self) -> tuple[Fault, ...]:
        return ()


def says(
    job_id: str,
    gpu: str,
    by: GpuBy,
    *,
    mig: str = "",
    instance: int | None = None,
    share: tuple[int, int] = (1, 1),
    source: str = "slurm",
) -> SourceClaim:
    job = JobFacts("slurm", job_id, uid=1001, sluid=f"s{job_id:0>13}")
    return SourceClaim(source, "slurm", job_id, gpu, by, mig, instance, *share, job=job)


def bound(*claims: SourceClaim) -> tuple[Claim, ...]:
    bindings = Bindings(lambda: GPUS)
    bindings.ask(Said("slurm", *claims))
    bindings.look()
    return bindings.claims()


def test_every_name_of_a_gpu_leads_to_its_uuid() -> None:
    assert [c.device for c in bound(
        says("1", "0", GpuBy.INDEX), says("2", "0", GpuBy.MINOR), says("3", C, GpuBy.UUID)
    )] == [A, B, C]  # fmt: skip


def test_mig_instances_are_parts_by_slices() -> None:
    assert bound(
        says("1", "", GpuBy.UUID, mig="MIG-1"), says("2", "2", GpuBy.INDEX, instance=2)
    ) == (
        Claim("slurm", "1", C, 3_000_000 // 7, "slurm", True),
        Claim("slurm", "2", C, 2_000_000 // 7, "slurm", True),
    )


def test_several_parts_of_one_gpu_add_up() -> None:
    both = says("1", "", GpuBy.UUID, mig="MIG-1"), says("1", "", GpuBy.UUID, mig="MIG-2")
    (claim,) = bound(*both)
    assert claim.share_ppm == 3_000_000 // 7 + 2_000_000 // 7


def test_replicas_share_and_are_flagged() -> None:
    assert bound(
        says("1", A, GpuBy.UUID, share=(1, 3)), says("2", A, GpuBy.UUID, share=(2, 3))
    ) == (
        Claim("slurm", "1", A, 333_333, "slurm", False),
        Claim("slurm", "2", A, 666_666, "slurm", False),
    )


def test_gpus_that_are_not_here_are_told_of() -> None:
    bindings = Bindings(lambda: GPUS)
    bindings.ask(
        Said(
            "slurm",
            says("1", "9", GpuBy.MINOR),
            says("2", "", GpuBy.UUID, mig="MIG-9"),
            says("3", "2", GpuBy.INDEX, instance=9),
            says("4", "0", GpuBy.INDEX),
        )
    )
    bindings.look()

    assert [c.job_id for c in bindings.claims()] == ["4"]
    assert [fault.reason for fault in bindings.faults()] == ["unknown_gpu"] * 3


def test_jobs_and_sluids_are_found() -> None:
    bindings = Bindings(lambda: GPUS)
    assert bindings.job(JobKey("slurm", "1")) is None
    bindings.ask(Said("slurm", says("1", "0", GpuBy.INDEX)))
    bindings.look()

    facts = bindings.job(JobKey("slurm", "1"))
    assert facts is not None
    assert facts.uid == 1001
    assert bindings.sluid("s0000000000001") == "1"
    assert bindings.sluid("s0000000000002") is None


def test_the_first_source_asked_describes_a_job() -> None:
    bindings = Bindings(lambda: GPUS)
    bindings.ask(
        Said("slurm", jobs=(JobFacts("slurm", "1", user="alice"),)),
        Said("dcgm", jobs=(JobFacts("slurm", "1", user="bob"), JobFacts("slurm", "2"))),
    )
    bindings.look()

    assert bindings.jobs()[JobKey("slurm", "1")].user == "alice"
    assert JobKey("slurm", "2") in bindings.jobs()


def test_alive_knows_only_of_managers_that_had_cgroups() -> None:
    bindings = Bindings(lambda: GPUS)
    assert bindings.alive("slurm", "1") is None
    bindings.saw([JobKey("slurm", "1")])
    assert bindings.alive("slurm", "1") is True
    assert bindings.alive("slurm", "2") is False
    assert bindings.alive("pod", "x") is None
    bindings.saw([])
    assert bindings.alive("slurm", "1") is False


def test_gpus_that_come_later_are_found() -> None:
    here: list[GpuNames] = []
    bindings = Bindings(lambda: here)
    bindings.ask(Said("slurm", says("1", "0", GpuBy.INDEX)))
    bindings.look()
    assert bindings.claims() == ()
    here.append(GPUS[0])
    bindings.look()
    assert [c.device for c in bindings.claims()] == [A]


def test_liveness_forgets_jobs_without_claims() -> None:
    clock = FakeClock()
    liveness = Liveness("slurm", clock, lambda *_: False)
    claim = says("1", A, GpuBy.UUID)
    for _ in range(3):
        assert liveness.sift((claim,))[0] == (claim,)
        assert liveness.sift(())[0] == ()
        clock.advance(200)
