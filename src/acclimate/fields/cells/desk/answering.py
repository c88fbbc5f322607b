"""Answers for the cells of a laboratory, and which of them are to be doubted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import torch
from numpy.typing import NDArray

from acclimate.fields.cells.data.laboratory import Laboratory
from acclimate.fields.cells.data.problems import Problem, Severity
from acclimate.fields.cells.desk.model import CellModel
from acclimate.fields.cells.desk.opening import counted
from acclimate.fields.cells.desk.problems import Failed, Trouble, of_failed
from acclimate.fields.cells.desk.seeing import Sighted, sighted
from acclimate.fields.cells.pipeline import Stage
from acclimate.streams.image_files import is_image

__all__ = ["FEW", "Answers", "answers", "summary", "troubles"]

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
        unsure: bool `[N]`: the highest probability is below the threshold, no cell was found, the picture is of one
            colour, or there are fewer than `FEW` pictures where the model brings all pictures of a laboratory to common
            means.
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
        keys = [self.laboratory.keys[place] for place in empty]
        return (*self.laboratory.problems, *(Problem(key, _EMPTY, Severity.DOUBTFUL) for key in keys))

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
    unsure = model.threshold.unsure(probabilities) | seen.empty.numpy() | _of_one_colour(laboratory)
    unsure |= _few(laboratory, model)
    return Answers(laboratory, seen, probabilities, unsure)


def _few(laboratory: Laboratory, model: CellModel) -> bool:
    return model.encoder.plan.own and len(laboratory) < FEW


def _of_one_colour(laboratory: Laboratory) -> NDArray[np.bool_]:
    flat = laboratory.images.flatten(2)
    return torch.eq(flat, flat[..., :1]).flatten(1).all(1).numpy()


def troubles(found: Sequence[Answers], failed: Sequence[Failed] = ()) -> list[Trouble]:
    """All that is odd about pictures and folders, with the laboratory that it is in."""
    return [*of_failed(failed), *(Trouble(each.laboratory.name, one) for each in found for one in each.problems)]


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def summary(
    found: Sequence[Answers], model: CellModel, failed: Sequence[Failed] = (), *, codes: bool = False
) -> list[str]:
    """What a person has to know of the answers: how many, how many of them are unsure, what could not be read.

    Arguments:
        found: answers of each laboratory, at least one.
        model: that gave them.
        failed: folders of which nothing could be read.
        codes: tell of codes in place of answers.
    """
    total, unsure = sum(len(each.laboratory) for each in found), sum(int(each.unsure.sum()) for each in found)
    cells = _counted(total, "cell")
    lines = [f"{cells}." if codes else f"{cells}, {unsure} of them unsure ({unsure / total:.0%})."]
    lines += [each.why for each in failed]
    unread = [each for one in found for each in one.unread]
    if unread:
        named = ", ".join(each.key for each in unread[:3]) + (", ..." if len(unread) > 3 else "")
        lost = "without a code" if codes else "without an answer"
        lines.append(f"{_counted(len(unread), 'picture')} {lost}, since the file could not be read: {named}")
    odd = {(one.laboratory.name, each.key) for one in found for each in one.problems if each not in one.unread}
    if odd:
        lines.append(f"{len(odd)} more with something odd about them.")
    for one in found:
        if _few(one.laboratory, model):
            told = "" if codes else ", so all of its answers are unsure"
            lines.append(
                f"{one.laboratory.name} has {_counted(len(one.laboratory), 'picture')}{told}: colours and codes are "
                "brought to common means by all pictures of a folder together, which takes "
                f"{FEW} or more of mixed classes."
            )
    return lines
