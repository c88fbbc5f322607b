"""How much members differ, and what that brings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from acclimate.fields.recommendation.measuring.scores import checked, log_losses, sigmoid

__all__ = ["Diversity", "diversity"]


@dataclass(frozen=True, slots=True)
class Diversity:
    """Means over pairs of members, and what their mean gains.

    Attributes:
        correlation: Pearson's, of logits; NaN where a member says the same of every row.
        distance: mean |p - q| of probabilities.
        disagreement: share of rows on whose likelier answer two members differ.
        gain: mean log loss of members less that of their mean logit; never below nought, since log loss is convex.
    """

    correlation: float
    distance: float
    disagreement: float
    gain: float


def diversity(logits: ArrayLike, labels: ArrayLike) -> Diversity:
    """Of members' logits `[M, N]`, M of 2 or more, on labels `[N]`. ValueError for one member, and as `scores`."""
    z = np.asarray(logits, dtype=np.float64)
    if z.ndim != 2 or len(z) < 2:
        raise ValueError(f"found logits {list(z.shape)}, expected [M, N] of two members or more.")
    y = checked(z[0], labels)[1]
    for each in z[1:]:
        checked(each, labels)
    p = sigmoid(z)
    first, second = np.triu_indices(len(z), 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        correlations = np.asarray(np.corrcoef(z))
    gain = float(log_losses(z, y, cut=False).mean() - log_losses(z.mean(0), y, cut=False).mean())
    return Diversity(
        correlation=float(correlations[first, second].mean()),
        distance=float(np.abs(p[first] - p[second]).mean()),
        disagreement=float(((p[first] > 0.5) != (p[second] > 0.5)).mean()),
        gain=gain,
    )
