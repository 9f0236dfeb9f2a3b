"""Commands that are measured: `wattledger run` and `wattledger.measure`."""

from wattledger.jobs.runs.registry import RunRegistry
from wattledger.jobs.runs.run import Where, where_is
from wattledger.jobs.runs.with_runs import NoJobs, WithRuns

__all__ = ["NoJobs", "RunRegistry", "Where", "WithRuns", "where_is"]
