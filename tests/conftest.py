"""For all tests: nothing is judged by the time it took, and the gate judges the same cases always.

Elsewhere each run explores new cases, which is how properties find what nobody thought of.

A case may hold constants of the program's modules, of those that are loaded by then. So that a case
does not depend on which tests ran before in the same process, the gate loads all of them.
"""

from __future__ import annotations

import os
import pkgutil
from importlib import import_module

from hypothesis import HealthCheck, settings

import wattledger
import wattledger_exporters

CI = os.environ.get("CI") == "true"
settings.register_profile(
    "wattledger",
    deadline=None,
    derandomize=CI,
    suppress_health_check=(HealthCheck.too_slow,),
)
settings.load_profile("wattledger")

for package in (wattledger, wattledger_exporters) if CI else ():
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not module.name.endswith("__main__"):
            import_module(module.name)
