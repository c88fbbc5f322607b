"""Rows for training, validation and test: at random, or in order of time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from acclimate.core.config import positive, whole
from acclimate.fields.recommendation.data.clicks import Clicks

__all__ = [
    "SHARES",
    "Split",
    "by_parts",
    "check_labels",
    "checked",
    "parts_at_random",
    "parts_in_time",
    "random_split",
    "time_split",
]

SHARES = (0.8, 0.1, 0.1)
"""The published shares of training, validation and test."""


class Split(NamedTuple):
    """Clicks for learning, for choosing, and for the final score; encoded by one vocabulary."""

    train: Clicks
    validation: Clicks
    test: Clicks


def parts_at_random(rows: int, seed: int = 2021, shares: Sequence[float] = SHARES) -> NDArray[np.int8]:
    """For each row 0 (training), 1 (validation) or 2 (test): int8 `[rows]`.

    Arguments:
        rows: how many, 3 or more.
        seed: of the shuffle; one number of rows and one seed always give the same.
        shares: of the parts, 3 numbers above 0; each gets its share of rows, rounded, and at least one.

    Raises:
        ValueError: an argument out of range.
    """
    parts = np.empty(rows, dtype=np.int8)
    parts[np.random.default_rng(seed).permutation(rows)] = parts_in_time(rows, shares)
    return parts


def parts_in_time(rows: int, shares: Sequence[float] = SHARES) -> NDArray[np.int8]:
    """As `parts_at_random`, but the first rows are for training and the last for the test.

    >>> parts_in_time(10).tolist()
    [0, 0, 0, 0, 0, 0, 0, 0, 1, 2]
    """
    whole(3, rows=rows)
    if len(shares) != 3:
        raise ValueError(f"shares is {shares!r}; expected three numbers, of training, validation and test.")
    for share in shares:
        positive(share=share)
    ends = np.round(np.cumsum(np.asarray(shares, dtype=np.float64)) / sum(shares) * rows).astype(int)
    first = min(max(int(ends[0]), 1), rows - 2)
    second = min(max(int(ends[1]), first + 1), rows - 1)
    return np.repeat(np.arange(3, dtype=np.int8), [first, second - first, rows - second])


def random_split(clicks: Clicks, seed: int = 2021, shares: Sequence[float] = SHARES) -> Split:
    """Cut clicks by row at random; rows keep their order within a part. See `parts_at_random`.

    The clicks' vocabulary should have been fitted on the same training rows: see `preparing.prepare`.

    Raises:
        ValueError: too few rows, shares out of range, or a part whose labels are all equal.
    """
    return by_parts(clicks, parts_at_random(len(clicks), seed, shares))


def time_split(clicks: Clicks, times: Tensor | None = None, shares: Sequence[float] = SHARES) -> Split:
    """Cut clicks in order of time: training comes before validation, validation before the test.

    Arguments:
        clicks: to be cut.
        times: of each row, `[N]`; rows of the same time keep their order. None: rows are in order of time.
        shares: of the parts, 3 numbers above 0.

    Raises:
        ValueError: too few rows, shares or times out of range, or a part whose labels are all equal.
    """
    if times is not None:
        if times.shape != (len(clicks),) or bool(times.isnan().any()):
            raise ValueError(
                f"times is {list(times.shape)}; expected a number for each of the {len(clicks)} rows, none NaN."
            )
        clicks = clicks.take(times.argsort(stable=True))
    return by_parts(clicks, parts_in_time(len(clicks), shares))


def by_parts(clicks: Clicks, parts: NDArray[np.int8]) -> Split:
    """Clicks cut by the part of each row, 0, 1 or 2: int8 `[N]`."""
    return checked(Split(*(clicks.take(torch.from_numpy(np.flatnonzero(parts == part))) for part in range(3))))


def checked(split: Split) -> Split:
    """The split itself; ValueError as `check_labels`, of all three parts."""
    for name, clicks in split._asdict().items():
        check_labels(name, clicks)
    return split


def check_labels(name: str, clicks: Clicks) -> None:
    """Nothing can be learned from a part without rows or with one label only, nor measured on it.

    Raises:
        ValueError: it is such a part.
    """
    positives = int(clicks.labels.sum())
    if positives in (0, len(clicks)):
        found = f"{len(clicks)} rows that are all labelled {int(positives > 0)}" if len(clicks) else "no rows"
        raise ValueError(f"The {name} part has {found}; expected rows of both labels. Give it more rows, or others.")
