"""Made-up clicks whose odds are known: interactions of two and three fields, and nothing else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from acclimate.core.config import at_least, whole
from acclimate.fields.recommendation.data.clicks import Clicks

__all__ = ["PlantedClicks", "planted"]

_Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class PlantedClicks:
    """Clicks, and how probable each was.

    Arguments:
        clicks: the rows.
        probability: of label 1, in (0, 1), float64 `[N]`.
    """

    clicks: Clicks
    probability: torch.Tensor

    @property
    def log_loss(self) -> float:
        """The expected log loss of the true probabilities, mean of `-p ln p - (1 - p) ln(1 - p)`: no model has less."""
        p = self.probability
        return float(-(torch.xlogy(p, p) + torch.xlogy(1 - p, 1 - p)).mean())

    @property
    def auc(self) -> float:
        """The AUC that ranking by the true probabilities is expected to have; no model is expected to have more.

        `sum_ij p_i (1 - p_j) s_ij / sum_ij p_i (1 - p_j)` over `i != j`, where `s_ij` is 1 if `p_i > p_j`, 1/2 if
        they are equal, else 0: the expected number of pairs in order by the expected number of pairs.
        """
        p, repeats = np.unique(self.probability.numpy(), return_counts=True)
        clicked, not_clicked = p * repeats, (1 - p) * repeats
        below = np.cumsum(not_clicked) - not_clicked
        itself = (p * (1 - p) * repeats).sum()  # a row makes no pair with itself
        ordered = (clicked * (below + not_clicked / 2)).sum() - itself / 2
        return float(ordered / (clicked.sum() * not_clicked.sum() - itself))


def planted(
    rows: int,
    *,
    fields: int = 6,
    values: int = 8,
    seed: int = 0,
    drift: Sequence[int] = (),
    angle: float = 45.0,
    second: float = 1.0,
    third: float = 1.0,
    bias: float = 0.0,
) -> PlantedClicks:
    """Draw clicks with planted interactions.

    Values are drawn evenly. The logit of a row is `bias + second * a + third * b`: `a` sums a table entry for each pair
    of neighbouring fields (f, f + 1), f even; `b` one for each triple (f, f + 1, f + 2), f a multiple of 3. Entries are
    normal, centred along every axis, and scaled so that `a` and `b` have variance 1 over all values: so a pair says
    nothing by one of its fields alone, and a triple nothing by two.

    Arguments:
        rows: 1 or more.
        fields: 3 or more.
        values: of each field, 2 or more; each has an out-of-vocabulary id besides, which no row has.
        seed: of tables, values and labels.
        drift: rows, ascending, from which on the tables are rotated once more.
        angle: of a rotation, in degrees: a table `A` becomes `cos(k angle) A + sin(k angle) B` after `k` of them, where
            `B` is another table drawn alike.
        second, third: standard deviations of the two parts of the logit, 0 or more.
        bias: the logit's mean.

    Raises:
        ValueError: an argument out of range.

    >>> made = planted(1000, seed=1)
    >>> len(made.clicks), made.clicks.sizes, made.log_loss < 0.6931 < 0.5 + made.auc
    (1000, (9, 9, 9, 9, 9, 9), True)
    """
    whole(1, rows=rows)
    whole(3, fields=fields)
    whole(2, values=values)
    at_least(0, second=second, third=third)
    if not (math.isfinite(bias) and math.isfinite(angle) and math.isfinite(second) and math.isfinite(third)):
        raise ValueError(f"bias {bias}, angle {angle}, second {second} and third {third} must be finite numbers.")
    if any(not 0 < place < rows for place in drift) or list(drift) != sorted(set(drift)):
        raise ValueError(f"drift is {list(drift)}; expected ascending rows between 1 and {rows - 1}.")
    rng = np.random.default_rng(seed)
    numbers = rng.integers(values, size=(rows, fields))
    turns = np.radians(angle) * np.searchsorted(np.asarray(drift, dtype=np.int64), np.arange(rows), side="right")
    logit = bias + second * _part(rng, numbers, values, 2, turns) + third * _part(rng, numbers, values, 3, turns)
    probability = 1 / (1 + np.exp(-logit))
    labels = (rng.random(rows) < probability).astype(np.float32)
    sizes = (values + 1,) * fields
    ids = torch.from_numpy(numbers + np.arange(fields) * (values + 1))
    names = tuple(f"field {number}" for number in range(1, fields + 1))
    return PlantedClicks(Clicks(ids, torch.from_numpy(labels), sizes, names), torch.from_numpy(probability))


def _part(rng: np.random.Generator, numbers: NDArray[np.int64], values: int, order: int, turns: _Floats) -> _Floats:
    """The sum of all interactions of an order, of variance 1: `[rows]`."""
    starts = range(0, numbers.shape[1] - order + 1, order)
    total = np.zeros(len(numbers))
    for start in starts:
        now, other = _table(rng, values, order), _table(rng, values, order)
        place = tuple(numbers[:, start + axis] for axis in range(order))
        total += np.cos(turns) * now[place] + np.sin(turns) * other[place]
    return total / math.sqrt(len(starts))


def _table(rng: np.random.Generator, values: int, order: int) -> _Floats:
    table = rng.standard_normal((values,) * order)
    for axis in range(order):
        table -= table.mean(axis, keepdims=True)
    return table / table.std()
