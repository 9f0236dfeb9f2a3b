"""Commands under `wattledger run` and `wattledger.measure`: how they ask, and what is answered."""

from __future__ import annotations

from typing import NamedTuple

from wattledger.model.jobs import JobKey, JobRun
from wattledger.model.paying import Payee
from wattledger.model.receipts import Receipt


class RunRequest(NamedTuple):
    """Somebody wants a command measured.

    Attributes:
        pid: the process that is measured, with all its descendants.
        uid: whose it is, as the kernel says.
        name: what they call it.
        gpus: numbers or UUIDs of GPUs that they claim for it.
    """

    pid: int
    uid: int
    name: str = ""
    gpus: tuple[str, ...] = ()


class RunTicket(NamedTuple):
    """A command that is measured.

    Attributes:
        payee: (run, its id, its start).
        step_of: the job inside which it runs and which pays for it; None: it pays itself.
        gpus: UUIDs of the GPUs that it holds by its claim.
    """

    payee: Payee
    step_of: JobKey | None = None
    gpus: tuple[str, ...] = ()


class KnownRun(NamedTuple):
    """A command as it was measured when the ledger was last written.

    Attributes:
        run: `cgroup` names its root process, `inode` holds when that began, in clock ticks.
        step: a job pays for it.
        gpus: those that it claims.
    """

    run: JobRun
    step: bool = False
    gpus: tuple[str, ...] = ()


class RunResult(NamedTuple):
    """What is known of a command.

    Attributes:
        receipt: what it has cost.
        exit_code: of the command; None: it runs, or nobody told.
        complete: False: of its end a part is missing, since some meter did not answer in time.
    """

    receipt: Receipt
    exit_code: int | None = None
    complete: bool = True
