"""wattledger: energy, carbon and water books for GPU nodes.

For programs: `wattledger.measure`, whose module is loaded when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wattledger.measured import Measure, MeasuredReceipt, measure

__version__ = "0.1.0"
__all__ = ["Measure", "MeasuredReceipt", "__version__", "measure"]


def __getattr__(name: str) -> Any:
    if name in ("Measure", "MeasuredReceipt", "measure"):
        from wattledger import measured

        return getattr(measured, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
