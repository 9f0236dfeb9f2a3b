"""A PUE that changes with time: from a meter of the site, a Prometheus or a file.

The sources `json`, `prometheus` and `csv` carry a number and its time; here the number is a PUE.
What makes a live ratio is not the annual figure of ISO/IEC 30134-2, which calls it interim.
"""

from __future__ import annotations

from wattledger.errors import GridError
from wattledger.grid.client import HttpClient
from wattledger.grid.kinds import KINDS, SourceConfig
from wattledger.grid.outcome import Outcome, failure
from wattledger.grid.site_readings import SiteReading
from wattledger.model import Basis

NAME = "live_pue"
LOWEST_PPM = 1_000_000  # by its definition
HIGHEST_PPM = 5_000_000
LIVE_KINDS = ("json", "prometheus", "csv")


class LivePue:
    """The source `live_pue`.

    Args:
        client: the way out.
        config: what to ask; of `zone`, `basis` and `unit` nothing is used.

    Raises:
        ValueError: it is none of `LIVE_KINDS`, or cannot be built; a sentence.
    """

    def __init__(self, client: HttpClient, config: SourceConfig) -> None:
        if config.kind not in LIVE_KINDS:
            raise ValueError(f"{config.kind!r} is not known; known are {', '.join(LIVE_KINDS)}")
        # "g/kWh" leaves a number as it is, and on this basis any that is not negative passes: the
        # signal's millionths of a gram are those of the PUE.
        plain = config._replace(zone="site", basis=Basis.GENERATION, unit="g/kWh")
        self._source = KINDS[config.kind].build(client, plain, NAME)
        self.name = NAME
        self.cadence_ns = self._source.cadence_ns
        self.identity = repr(plain._replace(token_file=None))

    def latest(self, now_wall_ns: int) -> list[SiteReading]:
        """What is told of the last hours. See `SiteSource.latest`.

        A number that is no PUE is a gap, unless it is the newest: a meter that fails now must not
        go unnoticed for the sake of what it said before.
        """
        try:
            signals = self._source.latest(now_wall_ns)
        except GridError as error:
            if error.outcome == Outcome.BAD_VALUE and "intensity" in error.message:
                raise _implausible() from None
            raise
        found = [
            SiteReading(signal.valid_from_ns, signal.valid_to_ns, signal.intensity_ug_per_kwh)
            for signal in signals
        ]
        good = [r for r in found if LOWEST_PPM <= (r.millionths or 0) <= HIGHEST_PPM]
        if not good or good[-1] is not found[-1]:
            raise _implausible()
        return good


def _implausible() -> GridError:
    return failure(
        Outcome.BAD_VALUE,
        f"the PUE is no number from {LOWEST_PPM / 1e6:g} to {HIGHEST_PPM / 1e6:g}",
        hint="check site.live_pue: it is facility power over IT power, not in percent",
    )
