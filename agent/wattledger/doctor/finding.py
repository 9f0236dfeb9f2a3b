"""One line of the examination, and the words that both ways of looking share."""

from __future__ import annotations

from typing import Literal, NamedTuple

Level = Literal["ok", "note", "problem"]
ESTIMATED_HINT = (
    "where the hardware has a meter, make it answer (the daemon's log says why it does not); on a "
    "virtual machine set meters.estimate.idle_watts and max_watts to its share of the host"
)


class Finding(NamedTuple):
    """One line of the examination.

    Attributes:
        area: meter, exporter, web, grid, site, jobs, clock, ledger or daemon.
        level: `ok`; `note`: worth knowing, nothing is wrong; `problem`: something is.
        message: what was found, in plain words.
        hint: what to do, the exact command where there is one.
    """

    area: str
    level: Level
    message: str
    hint: str = ""

    @property
    def ok(self) -> bool:
        """Nothing to mend."""
        return self.level != "problem"
