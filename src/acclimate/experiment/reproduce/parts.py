"""The papers, and the tables and figures there are of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from acclimate.experiment.reproduce.choosing import Choosing
from acclimate.experiment.reproduce.continual import Continual
from acclimate.experiment.reproduce.defaults import Defaults
from acclimate.experiment.reproduce.gradual import Gradual
from acclimate.experiment.reproduce.guarding import Guarding
from acclimate.experiment.reproduce.holdings import Holdings, Peak
from acclimate.experiment.reproduce.importance import Importance
from acclimate.experiment.reproduce.mixing import Mixing
from acclimate.experiment.reproduce.optimizers import Optimizers
from acclimate.experiment.reproduce.part import Part
from acclimate.experiment.reproduce.poisoning import Poisoning
from acclimate.experiment.reproduce.settings import Consistency, Score
from acclimate.experiment.reproduce.share import Share
from acclimate.experiment.reproduce.sweeps import Sweeps
from acclimate.experiment.reproduce.variants import Variants

__all__ = ["PAPERS", "Paper", "choose_parts"]


@dataclass(frozen=True, kw_only=True)
class Paper:
    """What there is of a paper: tables and figures, by number or name."""

    title: str
    tables: Mapping[str, type[Part]]
    figures: Mapping[str, type[Part]]


PAPERS: Mapping[str, Paper] = {
    "palm": Paper(
        title="PALM's tables and figures",
        tables={
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
        },
        figures={"2": Importance, "3": Sweeps},
    ),
    "surgeon": Paper(title="SURGEON and memory", tables={"memory": Holdings}, figures={"peak": Peak}),
    "mixed": Paper(title="Streams of mixing domains", tables={"mixed": Mixing}, figures={}),
    "guard": Paper(title="The guard", tables={"guard": Guarding}, figures={}),
    "auto": Paper(title="One setting for all streams", tables={"auto": Choosing}, figures={}),
    "poisoning": Paper(title="Poisoned streams", tables={"poisoning": Poisoning}, figures={}),
}
"""By name on the command line. PALM's tables 1, 2 and 3 are the continual table, of whichever data set."""


def choose_parts(
    tables: Sequence[str] | None = None, figures: Sequence[str] | None = None, *, paper: str = "palm"
) -> list[Part]:
    """Those of a paper asked for, in its order; all of them where neither tables nor figures are named.

    ValueError for one that there is not.
    """
    there = PAPERS[paper]
    for what, names, known in (("table", tables, there.tables), ("figure", figures, there.figures)):
        for name in names or ():
            if name not in known:
                raise ValueError(f"there is no {what} {name!r} of {paper} to reproduce. There are: {', '.join(known)}.")
    if tables is None and figures is None:
        tables, figures = tuple(there.tables), tuple(there.figures)
    chosen = {there.tables[name] for name in tables or ()} | {there.figures[name] for name in figures or ()}
    kinds = dict.fromkeys((*there.tables.values(), *there.figures.values()))
    return [kind() for kind in kinds if kind in chosen]
