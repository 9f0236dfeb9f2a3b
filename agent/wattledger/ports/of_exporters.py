"""What leaves the node, and what a plugin of somebody else's implements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from wattledger.model import Snapshot
from wattledger.model.exporting import EndedRun
from wattledger.ports.of_node import Clock


class RunOutbox(Protocol):
    """Ended runs that one exporter is to deliver: each waits in the ledger until it says so.

    What is said here is written with the next commit. A daemon that is killed before delivers
    again: at least once, with the same `EndedRun.record_id`.
    """

    def waiting(self, most: int) -> Sequence[EndedRun]:
        """Those that come next, at most so many; none that something was said of already.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        ...

    def delivered(self, runs: Sequence[EndedRun]) -> None:
        """A receiver has acknowledged these: they do not wait any more."""
        ...

    def refused(self, runs: Sequence[EndedRun]) -> None:
        """A receiver will never take these: they are kept, counted, and tried again in a day."""
        ...


class ExporterTools(Protocol):
    """What the daemon gives an exporter."""

    @property
    def clock(self) -> Clock:
        """Time."""
        ...

    @property
    def job_labels(self) -> tuple[str, ...]:
        """`jobs.labels`: what may leave the node of jobs besides their ids."""
        ...

    @property
    def commit_interval_ns(self) -> int:
        """How often there is a new snapshot."""
        ...

    @property
    def created_timestamps(self) -> bool:
        """`http.created_timestamps`: the page tells when a series was first booked."""
        ...

    @property
    def runs(self) -> RunOutbox:
        """The ended runs; only for a plugin that `delivers_runs`."""
        ...


class Exporter(Protocol):
    """What takes the books out of the node. All calls come from one thread of its own."""

    def export(self, snapshot: Snapshot) -> float:
        """Take the newest snapshot out. May block: nothing waits for it but its own next turn.

        Returns:
            Seconds after which it wants its next turn, a day at most; 0: with the next commit.

        Raises:
            ExportFailed: it could not, and is tried again. Anything else that is raised is logged
                as a fault of the exporter, which is tried again, too.
        """
        ...

    def close(self, last: Snapshot | None) -> None:
        """The daemon ends: a last delivery where that is quick, then let go of everything.

        The daemon waits half a second, and leaves without it then.

        Args:
            last: the snapshot of the last commit; None: there was none.
        """
        ...


class ExporterPlugin(Protocol):
    """What an entry point of the group `wattledger.exporters` names; see exporters/README.md.

    Finding it must load nothing heavy: whoever checks a configuration loads it, too.
    """

    @property
    def settings(self) -> type[Any]:
        """A frozen dataclass whose fields are made by `wattledger.setting.setting`.

        The table `[exporters.NAME]` becomes one of these, checked key by key by the fields' types.
        """
        ...

    @property
    def delivers_runs(self) -> bool:
        """Whether it delivers ended runs: the ledger then keeps each until it is delivered."""
        ...

    def faults(self, settings: Any) -> Sequence[tuple[str, str]]:
        """What the settings may not say together, and what they need that is not there.

        Returns:
            (Key, or empty for the table; a sentence with the remedy), for each fault.
        """
        ...

    def make(self, settings: Any, tools: ExporterTools) -> Exporter:
        """An exporter, made in its own thread: here is the place to load what is heavy."""
        ...
