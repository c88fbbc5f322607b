"""The tables and figures there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from acclimate.experiment.reproduce.continual import Continual
from acclimate.experiment.reproduce.defaults import Defaults
from acclimate.experiment.reproduce.gradual import Gradual
from acclimate.experiment.reproduce.importance import Importance
from acclimate.experiment.reproduce.optimizers import Optimizers
from acclimate.experiment.reproduce.part import Part
from acclimate.experiment.reproduce.settings import Consistency, Score
from acclimate.experiment.reproduce.share import Share
from acclimate.experiment.reproduce.sweeps import Sweeps
from acclimate.experiment.reproduce.variants import Variants

__all__ = ["FIGURES", "TABLES", "choose_parts"]

TABLES: Mapping[str, type[Part]] = {
    "1": Continual,
    "2": Continual,
    "3": Continual,
    "4": Gradual,
    "5": Share,
    "6": Optimizers,
    "7": Score,
    "8": Consistency,
    "variants": Variants,
    "defaults": Defaults,
}
"""By number in the paper; 1, 2 and 3 are the continual table, of whichever data set."""

FIGURES: Mapping[str, type[Part]] = {"2": Importance, "3": Sweeps}


def choose_parts(tables: Sequence[str] | None = None, figures: Sequence[str] | None = None) -> list[Part]:
    """Those asked for, in the paper's order; all of them where neither tables nor figures are named.

    ValueError for one that there is not.
    """
    for what, names, known in (("table", tables, TABLES), ("figure", figures, FIGURES)):
        for name in names or ():
            if name not in known:
                raise ValueError(f"there is no {what} {name!r} to reproduce. There are: {', '.join(known)}.")
    if tables is None and figures is None:
        tables, figures = tuple(TABLES), tuple(FIGURES)
    chosen = {TABLES[name] for name in tables or ()} | {FIGURES[name] for name in figures or ()}
    return [kind() for kind in dict.fromkeys((*TABLES.values(), *FIGURES.values())) if kind in chosen]
