"""Answers for the cells of a laboratory, and which of them are to be doubted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from acclimate.fields.cells.data.laboratory import Laboratory, Problem
from acclimate.fields.cells.desk.model import CellModel
from acclimate.fields.cells.desk.opening import counted
from acclimate.fields.cells.desk.seeing import Sighted, sighted
from acclimate.fields.cells.pipeline import Stage
from acclimate.streams.image_files import is_image

__all__ = ["FEW", "Answers", "answers", "summary"]

FEW = 20
"""Below so many pictures, what they have in common is theirs rather than the laboratory's."""

_EMPTY = "shows no cell that could be found; the whole picture counts"


@dataclass(frozen=True, eq=False, slots=True)
class Answers:
    """What a model says of a laboratory.

    Arguments:
        laboratory: its pictures; labels count in the model's classes.
        sight: codes and masks.
        probabilities: float32 `[N, C]`.
        unsure: bool `[N]`: the highest probability is below the threshold, no cell was found, or there are fewer than
            `FEW` pictures where the model brings all pictures of a laboratory to common means.
    """

    laboratory: Laboratory
    sight: Sighted
    probabilities: NDArray[np.float32]
    unsure: NDArray[np.bool_]

    @property
    def predicted(self) -> NDArray[np.int64]:
        """The likeliest class of each cell, int64 `[N]`."""
        return self.probabilities.argmax(1)

    @property
    def top(self) -> NDArray[np.float32]:
        """Its probability, float32 `[N]`."""
        return self.probabilities.max(1)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What was odd about files, and the pictures without a cell."""
        empty = self.sight.empty.nonzero()[:, 0].tolist()
        return (*self.laboratory.problems, *(Problem(self.laboratory.keys[place], _EMPTY) for place in empty))

    @property
    def unread(self) -> tuple[Problem, ...]:
        """The pictures that have no answer."""
        known = set(self.laboratory.keys)
        return tuple(
            each
            for each in self.laboratory.problems
            if each.key not in known and is_image(PurePosixPath(each.key).name)
        )


def answers(model: CellModel, laboratory: Laboratory, *, progress: Stage | None = None) -> Answers:
    """Look at all cells of a laboratory whose labels count in the model's classes, and answer."""
    seen = sighted(model.encoder, laboratory, progress=counted(f"looking at {laboratory.name}", progress))
    probabilities = model.probabilities(seen.codes)
    unsure = model.threshold.unsure(probabilities) | seen.empty.numpy() | _few(laboratory, model)
    return Answers(laboratory, seen, probabilities, unsure)


def _few(laboratory: Laboratory, model: CellModel) -> bool:
    return model.encoder.plan.own and len(laboratory) < FEW


def summary(found: Sequence[Answers], model: CellModel) -> list[str]:
    """What a person has to know of the answers: how many, how many of them are unsure, what could not be read."""
    total, unsure = sum(len(each.laboratory) for each in found), sum(int(each.unsure.sum()) for each in found)
    unread = [each for one in found for each in one.unread]
    lines = [f"{total} cells, {unsure} of them unsure ({unsure / total:.0%})."]
    if unread:
        named = ", ".join(each.key for each in unread[:3]) + (", ..." if len(unread) > 3 else "")
        lines.append(f"{len(unread)} pictures could not be read and have no answer: {named}")
    odd = {(one.laboratory.name, each.key) for one in found for each in one.problems if each not in one.unread}
    if odd:
        lines.append(f"{len(odd)} more have something odd about them, named with their answer or in the report.")
    for one in found:
        if _few(one.laboratory, model):
            lines.append(
                f"{one.laboratory.name} has {len(one.laboratory)} pictures, so all of its answers are unsure: colours "
                f"and codes are brought to common means by all pictures of a folder together, which takes {FEW} or "
                "more of mixed classes."
            )
    return lines
