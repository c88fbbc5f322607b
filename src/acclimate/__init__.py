"""Keep a deployed PyTorch model accurate when the world shifts: online, without labels or source data.

`acclimate.vision_language`, `segmentation`, `recommendation`, `wide_area` and `diffusion` are imported when they are
asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from acclimate.adapted import Adapted
from acclimate.core.allocator import keep_freed_memory
from acclimate.core.budget import Budget
from acclimate.core.memory import MemoryPolicy
from acclimate.core.method import Card, Cost, Method, list_methods
from acclimate.core.normalization import Normalization
from acclimate.core.report import StepReport
from acclimate.core.state import State
from acclimate.entry import adapt, load

if TYPE_CHECKING:
    from acclimate.fields import diffusion, recommendation, segmentation, vision_language, wide_area

__version__ = "0.1.0"

__all__ = [
    "Adapted",
    "Budget",
    "Card",
    "Cost",
    "MemoryPolicy",
    "Method",
    "Normalization",
    "State",
    "StepReport",
    "adapt",
    "diffusion",
    "keep_freed_memory",
    "list_methods",
    "load",
    "recommendation",
    "segmentation",
    "vision_language",
    "wide_area",
]


def __getattr__(name: str) -> object:
    if name not in ("diffusion", "recommendation", "segmentation", "vision_language", "wide_area"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(f"acclimate.fields.{name}")
