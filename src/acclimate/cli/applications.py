"""`acclimate reproduce` of applications, which make tables and pages of their own."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from acclimate.cli.reproduce import Reproduce

__all__ = ["APPLICATIONS", "FIELD"]

FIELD = ("features", "auxiliary", "descriptions", "views", "weights_from")
"""Options of cosmic alone."""


def _scenes(command: Reproduce) -> None:
    """Hand over to what is made for scenes."""
    from acclimate.fields.segmentation import reproduce_camvid

    if command.paper != "surgeon":
        raise ValueError(f"{command.paper} has no scenes to classify. camvid is for: acclimate reproduce surgeon.")
    taken = ("weights", "data", "methods")
    command.takes("camvid", "benchmark", *taken)
    command.hand_over(reproduce_camvid, "scenes", "rows", *taken, "size", "seeds", "device")


def _vision_language(command: Reproduce) -> None:
    """Hand over to what is made for vision-language models: their data sets, or else small encoders on CIFAR-10."""
    from acclimate.fields.vision_language import reproduce_cosmic
    from acclimate.fields.vision_language.tiny.proof import reproduce_tiny

    taken = (*FIELD, "data", "model", "methods")
    command.takes("cosmic", *taken)
    if command.data is None and command.features is None:
        command.takes("cosmic without --data and --features", "methods", "views")
        size = () if command.size is None else ("size",)
        command.hand_over(reproduce_tiny, "rows", "trials", "methods", "views", "seeds", *size)
        return
    command.hand_over(reproduce_cosmic, "images", "trials", *taken, "size", "seeds", "device")


def _cells(command: Reproduce) -> None:
    """Hand over to what is made for blood cells."""
    from acclimate.fields.cells.reproduction import reproduce_cells

    command.takes("cells", "data", "model", "methods")
    command.hand_over(reproduce_cells, "rows", "trials", "data", "model", "methods", "seeds")


def _scaling(command: Reproduce) -> None:
    """Hand over to what is made for clicks."""
    from acclimate.fields.recommendation.reproduction import reproduce_scaling

    command.takes("scaling", "data", "methods", "tables", "jobs", usual=("seeds", "threads"))
    usual = next(each.default for each in fields(command) if each.name == "seeds")
    seeds = (0, 1, 2, 3) if command.seeds == usual else command.seeds
    if len(seeds) < 2:
        raise ValueError(f"--seeds is {' '.join(map(str, seeds))}; scaling merges seeds, so give two or more.")
    jobs = command.at_once(os.cpu_count() or 1)
    chosen = partial(reproduce_scaling, sets=command.tables or (), seeds=seeds, jobs=jobs)
    command.hand_over(chosen, "members", "members", "data", "methods")


def _wide_area(command: Reproduce) -> None:
    """Hand over to what is made for slow links."""
    from acclimate.fields.wide_area.reproduction import reproduce_decosgd

    command.takes("decosgd", "methods", "tables", "jobs", usual=("seeds", "threads"))
    jobs = command.at_once(os.cpu_count() or 1)
    chosen = partial(reproduce_decosgd, tables=command.tables or ("digits", "replicas"), jobs=jobs)
    command.hand_over(chosen, "trials", "trials", "methods", "seeds")


def _diffusion(command: Reproduce) -> None:
    """Hand over to what is made for diffusion."""
    from acclimate.fields.diffusion.reproduction import reproduce_compactfusion

    command.takes("compactfusion", "methods", "tables", "jobs", usual=("seeds", "threads"))
    jobs = command.at_once(os.cpu_count() or 1)
    chosen = partial(reproduce_compactfusion, models=command.tables or ("digits-dit",), jobs=jobs)
    command.hand_over(chosen, "trials", "trials", "methods", "seeds")


APPLICATIONS: Mapping[str, Callable[[Reproduce], None]] = {
    "camvid": _scenes,
    "cosmic": _vision_language,
    "cells": _cells,
    "scaling": _scaling,
    "decosgd": _wide_area,
    "compactfusion": _diffusion,
}
"""By paper, or by benchmark where that decides."""
