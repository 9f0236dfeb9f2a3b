"""For all tests: nothing is judged by the time it took, and the gate judges the same cases always.

Elsewhere each run explores new cases, which is how properties find what nobody thought of.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "wattledger",
    deadline=None,
    derandomize=os.environ.get("CI") == "true",
    suppress_health_check=(HealthCheck.too_slow,),
)
settings.load_profile("wattledger")
