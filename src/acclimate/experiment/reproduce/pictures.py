"""Wrong answers by picture of the data set: what two trials on the same stream are compared by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acclimate.experiment.paired import bootstrap_interval
from acclimate.experiment.reproduce.store import Outcome
from acclimate.experiment.rows import BatchRow, unpack_bits
from acclimate.streams import Batch

__all__ = ["PairedError", "PictureTally", "paired_error", "pooled_error"]


class PictureTally:
    """Counts the wrong answers to each picture, over all the shifts under which it comes.

    >>> import torch
    >>> from acclimate.streams import Segment
    >>> tally = PictureTally()
    >>> batch = Batch(torch.zeros(3, 1, 1, 1), torch.tensor([0, 1, 0]), torch.tensor([7, 2, 7]), Segment("fog", 5), 0)
    >>> row = BatchRow(method="", seed=0, batch=0, segment="fog", severity=5, samples=3, scored=3, errors=2, wrong="a0")
    >>> tally.add(batch, row)
    >>> tally.facts()
    {'scored': 3, 'wrong': [0, 2]}
    """

    def __init__(self) -> None:
        self._index: list[NDArray[np.int64]] = []
        self._wrong: list[NDArray[np.bool_]] = []
        self._scored = 0

    def add(self, batch: Batch, row: BatchRow) -> None:
        """Count a batch as it was answered; rows without a label count for nothing."""
        known = (batch.labels >= 0).numpy()
        self._index.append(batch.index.numpy()[known])
        self._wrong.append(unpack_bits(row.wrong, row.samples)[known])
        self._scored += row.scored

    def facts(self) -> dict[str, Any]:
        """Scored answers in all, and the wrong ones to each picture that came, in the order of the data set."""
        if not self._index:
            return {"scored": 0, "wrong": []}
        _, places = np.unique(np.concatenate(self._index), return_inverse=True)
        wrong = np.bincount(places, np.concatenate(self._wrong).astype(np.float64)).astype(np.int64)
        return {"scored": self._scored, "wrong": wrong.tolist()}


@dataclass(frozen=True, kw_only=True)
class PairedError:
    """Error of one trial minus that of another on the same stream, in points, with its interval.

    `images` answers, to `pictures` different pictures, stand behind it.
    """

    mean: float
    low: float
    high: float
    images: int
    pictures: int


def pooled_error(outcomes: Sequence[Outcome] | None) -> float | None:
    """Error over all answers in percent, mean over seeds; None while a seed is missing."""
    found = [_counts(outcome) for outcome in outcomes or ()]
    if not found or any(counts is None or not counts["scored"] for counts in found):
        return None
    shares = [100 * sum(counts["wrong"]) / counts["scored"] for counts in found if counts is not None]
    return sum(shares) / len(shares)


def paired_error(
    ours: Sequence[Outcome], theirs: Sequence[Outcome], *, confidence: float = 0.95, resamples: int = 2000
) -> PairedError:
    """The difference of pooled errors, outcomes paired by seed, with a paired bootstrap interval.

    The pictures are resampled, each with all its appearances under all shifts and seeds, since those are not
    independent of each other. The interval is about other pictures under the same shifts in the same order.

    Raises:
        ValueError: outcomes that were not counted by picture, or not on the same stream.
    """
    pairs = [(_counts(mine), _counts(other)) for mine, other in zip(ours, theirs, strict=True)]
    contributions: list[NDArray[np.float64]] = []
    images = 0
    for mine, other in pairs:
        if mine is None or other is None or len(mine["wrong"]) != len(other["wrong"]):
            raise ValueError("these trials did not answer the same pictures, so they cannot be paired. Run them again.")
        difference = np.array(mine["wrong"], dtype=np.float64) - np.array(other["wrong"], dtype=np.float64)
        contributions.append(100 * difference / mine["scored"] / len(pairs))
        images += mine["scored"]
    same = len({len(each) for each in contributions}) == 1  # a size takes the same pictures under every seed
    whole = np.sum(contributions, axis=0) if same else np.concatenate(contributions)
    low, high = bootstrap_interval(whole, confidence, resamples)
    return PairedError(mean=float(whole.sum()), low=low, high=high, images=images, pictures=len(whole))


def _counts(outcome: Outcome) -> Mapping[str, Any] | None:
    return outcome.facts.get("pictures")
