"""How well features give away the laboratory that a cell comes from."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from acclimate.core.config import whole
from acclimate.fields.cells.classify.arrays import Array, plain
from acclimate.fields.cells.classify.protocol import cross_laboratory

__all__ = ["chance", "separability"]


def separability(
    features_by_laboratory: Mapping[str, Array],
    *,
    classifier: str = "logistic",
    folds: int = 5,
    seed: int = 1234,
    balanced: bool = True,
) -> float:
    """Balanced accuracy of a classifier that guesses the laboratory, cross-validated: the mean over folds, 0 to 1.

    With L laboratories, 1/L is chance: the features tell nothing. 1 means that each cell's origin is plain. It measures
    what this classifier finds; a linear one may miss what another sees.

    Arguments:
        features_by_laboratory: finite, `[N, D]` with one D, of two laboratories or more.
        classifier: a name in `CLASSIFIERS`.
        folds: 2 or more; fewer where a laboratory has fewer cells.
        seed: of folds, classifier and draws.
        balanced: draw as many cells of each laboratory as the smallest has, without replacement.

    Raises:
        ValueError: fewer than two laboratories, or one with fewer than two cells.

    >>> from numpy.random import default_rng
    >>> separability({"a": default_rng(0).normal(0, 1, (40, 2)), "b": default_rng(1).normal(99, 1, (40, 2))})
    1.0
    """
    whole(2, folds=folds)
    arrays = {name: plain(each) for name, each in features_by_laboratory.items()}
    chance(arrays)
    sizes = {name: len(each) for name, each in arrays.items()}
    few = min(sizes, key=lambda name: sizes[name])
    if sizes[few] < 2:
        raise ValueError(f"{few} has {sizes[few]} cells; expected two or more.")
    if balanced:
        random = np.random.default_rng(seed)
        arrays = {n: each[np.sort(random.permutation(len(each))[: sizes[few]])] for n, each in arrays.items()}
    origin = np.repeat(np.arange(len(arrays)), [len(each) for each in arrays.values()])
    found = cross_laboratory(
        {"all": np.concatenate(list(arrays.values()))},
        {"all": origin},
        classifier,
        classes=len(arrays),
        folds=folds,
        seed=seed,
    )
    return found.within("balanced_accuracy")


def chance(features_by_laboratory: Mapping[str, Array]) -> float:
    """What guessing blindly scores, 1/L for L laboratories; ValueError for fewer than two."""
    if len(features_by_laboratory) < 2:
        raise ValueError(f"There are features of {list(features_by_laboratory)}; expected two laboratories or more.")
    return 1 / len(features_by_laboratory)
