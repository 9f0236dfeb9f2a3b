"""Claims that outlived their job: a hook that did not run must not make a dead job pay for ever."""

from __future__ import annotations

from wattledger.jobs.claims.records import Alive, SourceClaim
from wattledger.model import Fault
from wattledger.ports import Clock
from wattledger.units import NS_PER_S, format_duration

GRACE_NS = 300 * NS_PER_S


class Liveness:
    """Drops the claims of jobs that show no sign of life.

    A sign of life is a cgroup on this node. A job without one keeps its claim for a grace: a
    prolog runs before the first cgroup is made, and an allocation may be without a step for a
    while. A job whose GPU a living job claims, and that came later, has no such grace.

    Args:
        source: the source's name, for faults.
        clock: CLOCK_BOOTTIME is what counts here.
        alive: whether a job has a cgroup; None: nobody knows, every claim is kept.
        grace_ns: how long a claim is kept without a sign of life.
    """

    def __init__(
        self, source: str, clock: Clock, alive: Alive | None, grace_ns: int = GRACE_NS
    ) -> None:
        self._source = source
        self._clock = clock
        self._alive = alive
        self._grace_ns = grace_ns
        self._last_sign_ns: dict[tuple[str, str], int] = {}

    def sift(self, claims: tuple[SourceClaim, ...]) -> tuple[tuple[SourceClaim, ...], list[Fault]]:
        """The claims of jobs that live, or may; and a fault for each job that lost its claims."""
        if self._alive is None:
            return claims, []
        now_ns = self._clock.now().boottime_ns
        lives: dict[tuple[str, str], bool | None] = {}
        for claim in claims:
            key = (claim.manager, claim.job_id)
            if key not in lives:
                lives[key] = self._alive(*key) if claim.job_id else None
        signs = self._last_sign_ns
        self._last_sign_ns = {
            key: now_ns if life is not False else signs.get(key, now_ns)
            for key, life in lives.items()
        }
        expired = {
            key for key, at_ns in self._last_sign_ns.items() if now_ns - at_ns > self._grace_ns
        }
        superseded = self._superseded(claims, lives)
        gone = expired | superseded
        if not gone:
            return claims, []
        faults = [
            Fault(
                self._source,
                "stale",
                f"the claim of {manager} job {job_id} is ignored: "
                + (
                    "a later job holds its GPU"
                    if (manager, job_id) in superseded
                    else f"no cgroup of it was seen for {format_duration(self._grace_ns)}"
                ),
            )
            for manager, job_id in sorted(gone)
        ]
        return tuple(c for c in claims if (c.manager, c.job_id) not in gone), faults

    def _superseded(
        self, claims: tuple[SourceClaim, ...], lives: dict[tuple[str, str], bool | None]
    ) -> set[tuple[str, str]]:
        """Jobs without a cgroup whose GPU was handed to a living job after them."""
        latest: dict[tuple[str, str, str, int | None], int] = {}
        for claim in claims:
            if lives[claim.manager, claim.job_id]:
                since_ns = claim.job.since_ns
                latest[claim.target] = max(latest.get(claim.target, since_ns), since_ns)
        return {
            (claim.manager, claim.job_id)
            for claim in claims
            if lives[claim.manager, claim.job_id] is False
            and latest.get(claim.target, -1) > claim.job.since_ns
        }
