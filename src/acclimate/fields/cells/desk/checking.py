"""What cannot be learned from, told before any training, with what to do about it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from acclimate.fields.cells.data.laboratory import Laboratory
from acclimate.fields.cells.desk.calibration import SHARE, held_out

__all__ = ["check_teachable"]


def check_teachable(laboratories: Sequence[Laboratory], words: Sequence[str]) -> None:
    """ValueError for fewer than two classes, too few labelled cells, or no masks.

    Arguments: `laboratories`, whose labels count in the same classes, all of which have cells; `words`, the digest of
    each of their pictures in turn, since copies count once.
    """
    names, classes = ", ".join(each.name for each in laboratories), laboratories[0].classes
    labels = torch.cat([each.labels for each in laboratories])
    if len(classes) < 2:
        found = f"{len(classes)} class{'' if len(classes) == 1 else 'es'} ({', '.join(classes) or 'none'})"
        raise ValueError(
            f"{names}: found cells of {found}, expected two classes or more. Put the pictures of each class into a "
            "folder of its own: LABORATORY/CLASS/IMAGE."
        )
    if not bool(held_out(labels, 0, words=words).any()):
        raise ValueError(
            f"{names}: no class has {SHARE} different labelled cells, so that none can be held out to find out when "
            "an answer is unsure. Label more cells."
        )
    if not any(bool(each.masked.any()) for each in laboratories):
        useless = [problem for each in laboratories for problem in each.problems if "has a mask" in problem.what]
        such = f" For one, {useless[0].key} {useless[0].what}." if useless else ""
        raise ValueError(
            f"{names}: no mask is known for any of {len(labels)} pictures, and the segmenter learns from masks.{such} "
            "Draw some, about fifty for a start: grey pictures of the size of the cell's picture, 0 background, 128 "
            "cytoplasm, 255 nucleus (or white cells on black), as MASKS/LABORATORY/CLASS/IMAGE.png, and add --masks "
            "MASKS. Or add laboratories whose masks are known: wbc:jtsc wbc:cellavision."
        )
