"""`acclimate cells train`, `embed`, `classify` and `report`."""

from __future__ import annotations

from acclimate.cli.cells_desk.asking import Classify, Embed, Report
from acclimate.cli.cells_desk.training import TrainCells
from acclimate.cli.command import Command

__all__ = ["CELLS"]

CELLS: dict[str, type[Command]] = {
    "cells train": TrainCells,
    "cells embed": Embed,
    "cells classify": Classify,
    "cells report": Report,
}
