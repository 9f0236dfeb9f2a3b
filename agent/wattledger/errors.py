"""What can go wrong, named by what the reader should do.

WattledgerError                 every error that a person may see: a sentence and a hint
├── ConfigError                 the configuration: all faults at once, each with the key's path
├── ScenarioError               a simulation scenario: names the file and the line
├── MeterUnavailable            this meter cannot read now; others go on, it is tried again
├── GridError                   this source gave no usable signal; the next in the list is asked
├── LedgerError                 the books cannot be opened: the daemon does not start
│   └── LedgerLocked            another process keeps them
├── CommitFailed                this commit was not written; nothing is lost, it is tried again
├── ListenError                 the address, the socket or the web configuration cannot be served
├── DaemonUnreachable           the command line found no daemon to ask
└── ExportFailed                this exporter could not deliver now; it is tried again

Programming errors are none of these: they crash, and systemd starts the daemon again.
"""

from __future__ import annotations

from collections.abc import Sequence


class WattledgerError(Exception):
    """A sentence for a person and, where there is one, the remedy.

    Attributes:
        message: what happened, in one sentence.
        hint: what to do about it; empty where nothing can be done.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class ConfigError(WattledgerError):
    """Faults of a configuration, each as (key path, what is wrong and the remedy)."""

    def __init__(self, faults: Sequence[tuple[str, str]], source: str = "") -> None:
        self.faults = tuple(faults)
        self.source = source
        super().__init__("\n".join(f"{path}: {text}" for path, text in self.faults))


class ScenarioError(WattledgerError):
    """A simulation scenario that cannot be played; the message names file and line."""


class MeterUnavailable(WattledgerError):
    """A meter that cannot read now.

    Attributes:
        reason: lower-case words with underscores, a label of `wattledger_meter_errors_total`.
        retry_after_s: how long to leave it alone.
    """

    def __init__(
        self, reason: str, message: str, hint: str = "", retry_after_s: float = 60.0
    ) -> None:
        super().__init__(message, hint)
        self.reason = reason
        self.retry_after_s = retry_after_s


class GridError(WattledgerError):
    """A source of grid signals that gave none.

    Attributes:
        outcome: lower-case words with underscores, a label of `wattledger_grid_requests_total`.
        retry_after_s: what the server asked for, or None.
    """

    def __init__(
        self, outcome: str, message: str, hint: str = "", retry_after_s: float | None = None
    ) -> None:
        super().__init__(message, hint)
        self.outcome = outcome
        self.retry_after_s = retry_after_s


class LedgerError(WattledgerError):
    """The ledger cannot be opened."""


class LedgerLocked(LedgerError):
    """Another process holds the ledger's lock."""


class CommitFailed(WattledgerError):
    """A commit that was not written: the batch is still the caller's, to be tried again."""


class ListenError(WattledgerError):
    """The HTTP endpoint cannot be served as configured."""


class DaemonUnreachable(WattledgerError):
    """No daemon answers where the command line looked."""


class ExportFailed(WattledgerError):
    """An exporter that could not deliver.

    Attributes:
        reason: lower-case words with underscores, a label of `wattledger_exporter_errors_total`.
        retry_after_s: how long to leave it alone; None: longer each time it fails.
    """

    def __init__(
        self, reason: str, message: str, hint: str = "", retry_after_s: float | None = None
    ) -> None:
        super().__init__(message, hint)
        self.reason = reason
        self.retry_after_s = retry_after_s


class RunRefused(WattledgerError):
    """A command that is not measured as it was asked.

    Attributes:
        reason: `off`, `namespace`, `gone`, `gpu`, `too_many`, `starting` or `unknown`.
    """

    def __init__(self, reason: str, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.reason = reason
