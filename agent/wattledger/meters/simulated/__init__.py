"""A simulated NVML: pynvml's own surface, played from a scenario file.

    scenario = load_scenario(Path("configs/scenarios/eight-h100.toml"))
    driver = SimulatedNvml(scenario, clock)

`scenario` is the vocabulary, `schema` and `reader` the file format (with `locate` for line numbers
and `traces` for recorded power), `waveforms` the truth in closed form, `live` the truth as a file
dictates it, `card` the sensors, `faults` what goes wrong, `session` and `driver` pynvml's
functions.
"""

from __future__ import annotations

from wattledger.meters.simulated.driver import SimulatedNvml
from wattledger.meters.simulated.reader import load_scenario, parse_scenario
from wattledger.meters.simulated.scenario import Scenario

__all__ = ["Scenario", "SimulatedNvml", "load_scenario", "parse_scenario"]
