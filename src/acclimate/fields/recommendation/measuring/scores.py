r"""How good scores are: AUC, log loss, calibration.

With logits z and labels y, log loss is the mean of $\log(1 + e^z) - y z$; AUC is the chance that a row that was clicked
has a higher score than one that was not, ties counting half.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Floats", "Scores", "auc", "checked", "log_losses", "scores", "sigmoid", "weighted_auc"]

Floats = NDArray[np.float64]

_CLIP = 1e-7
_BINS = 10


@dataclass(frozen=True, slots=True)
class Scores:
    """Of logits on labelled rows.

    Attributes:
        auc: 0 to 1.
        log_loss: natural logarithm, probabilities cut to 1e-7 from both ends as in the field.
        calibration_error: mean of |mean probability - share clicked| over ten bins of as many rows each, in order of
            probability; rows of one probability count as clicked by the share of all of them, wherever a bin ends.
        ratio: mean probability over share clicked; 1 is right.
    """

    auc: float
    log_loss: float
    calibration_error: float
    ratio: float


def scores(logits: ArrayLike, labels: ArrayLike) -> Scores:
    """Score logits `[N]` against labels 0 and 1 `[N]`, in float64.

    ValueError for lengths that differ, logits that are not finite, other labels, or labels of one kind only.

    >>> found = scores([2.0, -1.0, 0.5, -3.0], [1, 0, 0, 1])
    >>> found.auc, round(found.log_loss, 3)
    (0.5, 1.116)
    """
    z, y = checked(logits, labels)
    p = sigmoid(z)
    _, place, count = np.unique(p, return_inverse=True, return_counts=True)
    clicked = (np.bincount(place, y) / count)[place]
    bins = [part for part in np.array_split(np.argsort(p, kind="stable"), _BINS) if len(part)]
    gaps = [abs(p[part].mean() - clicked[part].mean()) * len(part) for part in bins]
    return Scores(auc(z, y), float(log_losses(z, y).mean()), float(sum(gaps) / len(y)), float(p.mean() / y.mean()))


def auc(logits: ArrayLike, labels: ArrayLike) -> float:
    """Area under the curve of true over false positives; errors as for `scores`."""
    z, y = checked(logits, labels)
    return float(weighted_auc(z, y, np.ones((1, len(y))))[0])


def weighted_auc(logits: Floats, labels: Floats, weights: Floats) -> Floats:
    """AUC under R sets of weights `[R, N]`, float64 `[R]`; NaN where all weight is on one label.

    Rows are sorted once; equal scores are one step of the curve.
    """
    order = np.argsort(logits, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(logits[order]) != 0, True))
    clicked = _steps(weights[:, order] * labels[order], ends)
    others = _steps(weights[:, order] * (1 - labels[order]), ends)
    below = np.cumsum(others, 1) - others / 2
    with np.errstate(invalid="ignore"):
        return (clicked * below).sum(1) / (clicked.sum(1) * others.sum(1))


def _steps(values: Floats, ends: NDArray[np.intp]) -> Floats:
    """Sums of columns between ends."""
    return np.diff(np.cumsum(values, 1)[:, ends], axis=1, prepend=0.0)


def log_losses(logits: Floats, labels: Floats, *, cut: bool = True) -> Floats:
    """Of each row; uncut it is convex in the logit."""
    edge = np.log((1 - _CLIP) / _CLIP)
    z = np.clip(logits, -edge, edge) if cut else logits
    return np.logaddexp(0.0, z) - labels * z


def sigmoid(logits: Floats) -> Floats:
    """Probabilities, without overflow."""
    return np.exp(-np.logaddexp(0.0, -logits))


def checked(logits: ArrayLike, labels: ArrayLike) -> tuple[Floats, Floats]:
    """As float64; errors as for `scores`."""
    z, y = np.asarray(logits, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    if z.ndim != 1 or z.shape != y.shape or not len(z):
        raise ValueError(f"found logits {list(z.shape)} and labels {list(y.shape)}, expected one of each a row, [N].")
    if not np.isfinite(z).all():
        row = int(np.flatnonzero(~np.isfinite(z))[0])
        raise ValueError(f"the logit of row {row} is {z[row]}, expected finite ones. Leave the row or the model out.")
    if not np.isin(y, (0, 1)).all():
        raise ValueError(f"found labels {np.unique(y)[:5].tolist()}, expected 0 and 1.")
    if y.min() == y.max():
        raise ValueError(f"all {len(y)} labels are {int(y[0])}; AUC needs both. Take more rows.")
    return z, y
