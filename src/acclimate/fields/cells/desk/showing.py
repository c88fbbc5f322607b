"""Which cells a report shows, and what it says under each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from acclimate.fields.cells.data.laboratory import UNKNOWN
from acclimate.fields.cells.desk.answering import Answers
from acclimate.fields.cells.desk.model import CellModel
from acclimate.fields.cells.pictures.gallery import gallery
from acclimate.fields.cells.pictures.outlines import enlarged, outlined

__all__ = ["least_certain", "masks_drawn", "of_each_class", "spread"]

_EACH, _LEAST, _DRAWN = 12, 24, 12
_SIDE, _WIDE = 168, 224
"""Pixels of a picture in the file: twice what it has on the page at most, for fine screens."""


class _Cell(NamedTuple):
    found: Answers
    place: int

    @property
    def top(self) -> float:
        return float(self.found.top[self.place])

    def picture(self) -> NDArray[np.uint8]:
        return enlarged(self.found.laboratory.images[self.place].numpy(), _SIDE)

    def drawn(self) -> NDArray[np.uint8]:
        image, mask = self.found.laboratory.images[self.place].numpy(), self.found.sight.masks[self.place].numpy()
        return outlined(image, mask, _WIDE)

    def lines(self, classes: Sequence[str], answers: int) -> list[str]:
        """Likeliest classes, the true one where it is known and another, the key, and whether it is unsure."""
        said = self.found.probabilities[self.place]
        order = np.argsort(-said, kind="stable")[:answers].tolist()
        told = [f"{classes[label]} {said[label]:.2f}" for label in order]
        true = int(self.found.laboratory.labels[self.place])
        if true not in (UNKNOWN, order[0]):
            told.append(f"truly {classes[true]}")
        unsure = ["unsure"] if self.found.unsure[self.place] else []
        return [*told, *unsure, self.found.laboratory.keys[self.place]]


def spread(count: int, wanted: int) -> list[int]:
    """Places from the first to the last of `count`, at even distances, at most `wanted`.

    >>> spread(10, 4), spread(2, 4)
    ([0, 3, 6, 9], [0, 1])
    """
    return sorted({round(place) for place in np.linspace(0, count - 1, min(count, wanted)).tolist()})


def of_each_class(found: Sequence[Answers], model: CellModel) -> dict[str, tuple[str, str]]:
    """For each class, pictures of the cells that were answered so, and a line on them."""
    cells = [_Cell(each, place) for each in found for place in range(len(each.laboratory))]
    shown: dict[str, tuple[str, str]] = {}
    for label, name in enumerate(model.classes):
        own = sorted((cell for cell in cells if cell.found.predicted[cell.place] == label), key=lambda cell: -cell.top)
        if not own:
            shown[name] = ("<p>No cell.</p>", "")
            continue
        chosen = [own[place] for place in spread(len(own), _EACH)]
        told = f"{len(chosen)} of {len(own)} cells, from the surest to the least sure."
        shown[name] = (gallery((cell.picture(), cell.lines(model.classes, 1)) for cell in chosen), told)
    return shown


def least_certain(found: Sequence[Answers], model: CellModel) -> tuple[str, str]:
    """Pictures of the cells with the lowest probabilities, and a line on them."""
    cells = sorted(
        (_Cell(each, place) for each in found for place in range(len(each.laboratory))), key=lambda cell: cell.top
    )
    told = "The cells whose likeliest class has the lowest probability; their two likeliest classes."
    return gallery((cell.picture(), cell.lines(model.classes, 2)) for cell in cells[:_LEAST]), told


def masks_drawn(found: Sequence[Answers]) -> tuple[str, str]:
    """Pictures of cells of each laboratory with the contours that the segmenter found, and a line on them."""
    each = max(1, _DRAWN // len(found))
    cells = [_Cell(one, place) for one in found for place in spread(len(one.laboratory), each)]
    empty = sum(int(one.sight.empty.sum()) for one in found)
    told = "Green: the cell. Yellow: its nucleus, where the model tells it apart."
    if empty:
        told += f" In {empty} pictures no cell was found; see Problems."
    return gallery(((cell.drawn(), [cell.found.laboratory.keys[cell.place]]) for cell in cells), width=150), told
