"""What backward keeps: policies found by their decorator, the engine that applies them, and the meter.

The policies are imported when they are asked for: `from acclimate.memory import SurgeonSavings`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from acclimate.memory.checkpointed import Checkpointed
    from acclimate.memory.device import profiled
    from acclimate.memory.exact import ExactSavings
    from acclimate.memory.quantized import QuantizedSavings
    from acclimate.memory.stock import Stock
    from acclimate.memory.surgeon import SurgeonSavings

__all__ = ["Checkpointed", "ExactSavings", "QuantizedSavings", "Stock", "SurgeonSavings", "profiled"]

_HOMES = {
    "Checkpointed": "checkpointed",
    "ExactSavings": "exact",
    "QuantizedSavings": "quantized",
    "Stock": "stock",
    "SurgeonSavings": "surgeon",
    "profiled": "device",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
