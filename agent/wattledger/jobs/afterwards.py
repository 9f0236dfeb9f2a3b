"""Runs that were over before a survey could see them.

What is said of a job may come after its end: the thread that reads the files of the prolog and the
epilog looks now and then only. So a run that no survey saw is told once more when its name or its
GPUs become known, and so is one whose user's name was still being looked up. And a job that had
come and gone before anybody saw a cgroup of it (nodes whose Slurm makes none, or a prolog and an
epilog between two looks) is a run by the word of these files.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace

from wattledger.jobs.claims.records import JobFacts
from wattledger.model import Instant
from wattledger.model.jobs import SLURM, TRUST, Claim, Holding, JobKey, JobRun, job_payee
from wattledger.units import NS_PER_S

Past = Callable[[], Sequence[tuple[JobFacts, tuple[Claim, ...]]]]

LATE_NS = 15 * NS_PER_S  # so long something may become known of a run that ended
LOOK_NS = NS_PER_S // 2  # what a look takes at most, on a node full of jobs
KEEP_MOST = 1_024  # ended runs; the prolog's files tell of the last 256


def held_by(key: JobKey, claims: Sequence[Claim]) -> tuple[Holding, ...]:
    """What a job holds, by the most trusted source for each device."""
    best: dict[str, Claim] = {}
    for claim in claims:
        if (claim.manager, claim.job_id) != key or claim.source not in TRUST:
            continue
        known = best.get(claim.device)
        if known is None or TRUST.index(claim.source) < TRUST.index(known.source):
            best[claim.device] = claim
    return tuple(Holding(c.device, c.share_ppm, c.exact) for c in best.values())


class Afterwards:
    """What becomes known too late for a survey."""

    def __init__(
        self,
        boot_id: str,
        past: Past = tuple,
        describe: Callable[[JobRun], JobRun] = lambda run: run,
    ) -> None:
        """Nothing is known yet.

        Args:
            boot_id: of this boot.
            past: the last jobs that ended here and what they had held; the same object as long as
                nothing changes. Never blocks.
            describe: a run with all that is said of its job. Never blocks.
        """
        self._boot_id = boot_id
        self._past = past
        self._describe = describe
        self._first_ns: int | None = None
        self._read: object = None
        self._unread: tuple[tuple[JobFacts, tuple[Claim, ...]], ...] = ()
        self._by_job: dict[str, list[tuple[JobFacts, tuple[Claim, ...]]]] = {}
        self._told: set[tuple[str, int]] = set()
        self._ended: OrderedDict[JobKey, list[JobRun]] = OrderedDict()
        self._late: dict[JobKey, tuple[JobRun, int]] = {}

    def held(self, run: JobRun, claims: Sequence[Claim]) -> JobRun:
        """A run that has ended, with its GPUs, as far as they are known by now."""
        self._look()
        over = [
            claim
            for facts, held in self._by_job.get(run.payee.job_id, ())
            if facts.manager == run.payee.manager and _is_of(facts, run)
            for claim in held
        ]
        return replace(run, holdings=held_by(run.key, over or claims) or run.holdings)

    def note(self, run: JobRun, now: Instant, *, seen: bool) -> None:
        """A run has ended, and this is what the survey tells of it.

        Args:
            run: as it ended.
            now: this moment.
            seen: it was in a survey while it ran, so that all is known of it.
        """
        runs = self._ended.pop(run.key, [])
        self._ended[run.key] = [*runs[-7:], run]
        while len(self._ended) > KEEP_MOST:
            self._ended.popitem(last=False)
        nameless = run.uid is not None and not run.labels.get("user")
        if (nameless or not seen) and len(self._late) < KEEP_MOST:
            self._late[run.key] = (run, now.monotonic_ns)

    def news(self, now: Instant, start_of: Callable[[JobKey], int | None]) -> list[JobRun]:
        """Ended runs of which somebody told only now.

        Args:
            now: this moment.
            start_of: the start of a job's run; None: it does not run.
        """
        if self._first_ns is None:
            self._first_ns = now.wall_ns
        self._look()
        return [*self._of_the_past(now, start_of), *self._learnt(now)]

    def _look(self) -> None:
        past = self._past()
        if past is self._read:
            return
        self._read = past
        self._by_job = {}
        for facts, claims in past:
            self._by_job.setdefault(facts.job_id, []).append((facts, claims))
        self._unread = tuple(past)

    def _of_the_past(self, now: Instant, start_of: Callable[[JobKey], int | None]) -> list[JobRun]:
        unread, self._unread = self._unread, ()
        if not unread:
            return []
        told, self._told = self._told, set()
        found: list[JobRun] = []
        for facts, claims in unread:
            entry = (facts.job_id, facts.end_ns)
            self._told.add(entry)
            # What had ended before this process looked, another may have told of.
            if entry in told or facts.manager != SLURM or facts.end_ns <= (self._first_ns or 0):
                continue
            key = JobKey(SLURM, facts.job_id)
            running_ns = start_of(key)
            if running_ns is not None and running_ns < facts.end_ns:
                continue  # it has a cgroup, which tells more
            if any(_is_of(facts, run) for run in self._ended.get(key, ())):
                continue
            start_ns = min(facts.since_ns or facts.start_ns or facts.end_ns, facts.end_ns)
            run = JobRun(
                payee=job_payee(SLURM, facts.job_id, start_ns),
                uid=facts.uid,
                labels=facts.labels,
                boot_id=self._boot_id,
                holdings=held_by(key, claims),
                last_seen_ns=facts.end_ns,
                end_ns=facts.end_ns,
            )
            self.note(run, now, seen=True)
            found.append(run)
        return found

    def _learnt(self, now: Instant) -> list[JobRun]:
        news: list[JobRun] = []
        for key, (run, since_ns) in list(self._late.items()):
            if now.monotonic_ns - since_ns >= LATE_NS:
                del self._late[key]
                continue
            if since_ns == now.monotonic_ns:
                continue  # it is told in this very survey
            more = self._describe(run)
            if not run.holdings:
                more = self.held(more, ())
            if more != run:
                self._late[key] = (more, since_ns)
                news.append(more)
        return news


def _is_of(facts: JobFacts, run: JobRun) -> bool:
    """Whether what is said of a job is about this run: prolog, cgroup, epilog come in order.

    A look is as old as its beginning, so a directory may have been seen before it was made.
    """
    begun_ns = (facts.since_ns or facts.start_ns) - LOOK_NS
    return run.payee.start_ns <= facts.end_ns + LOOK_NS and run.end_ns >= begun_ns
