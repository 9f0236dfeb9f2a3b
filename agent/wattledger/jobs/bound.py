"""Jobs by their cgroups and by the schedulers' word, each told of the other."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from wattledger.jobs.claims import Bindings
from wattledger.jobs.watch import JobWatch
from wattledger.model import Instant
from wattledger.model.jobs import Survey
from wattledger.model.measuring import Process


class BoundJobs:
    """A watch whose surveys tell the bindings which jobs live; implements `ports.Jobs`."""

    def __init__(self, watch: JobWatch, bindings: Bindings) -> None:
        """Args: watch: made with `bindings.claims`. bindings: asked in a thread of their own."""
        self._watch = watch
        self._bindings = bindings

    def survey(
        self,
        now: Instant,
        busy_ns: int | None = None,
        processes: Mapping[str, tuple[Process, ...]] = MappingProxyType({}),
    ) -> Survey:
        """Look around once; see `ports.Jobs`."""
        survey = self._watch.survey(now, busy_ns, processes)
        self._bindings.saw(run.key for run in survey.runs.values())
        return survey
