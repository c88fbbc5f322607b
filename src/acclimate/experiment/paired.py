"""Is it a real difference? Two methods on the same images, with an interval."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acclimate.core.intervals import Bounded, percentiles
from acclimate.experiment.record import Record
from acclimate.experiment.results import Results, Track, segment_numbers
from acclimate.experiment.rows import unpack_bits

__all__ = ["Difference", "bootstrap_interval", "paired_difference"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Difference(Bounded):
    """Mean error of `a` minus that of `b`, in points; below zero `a` is better.

    `low` and `high` bound it with the given confidence; `clusters` independent images stand behind it.
    """

    a: str
    b: str
    mean: float
    low: float
    high: float
    confidence: float
    clusters: int

    def __str__(self) -> str:
        return f"{self.mean:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"


def bootstrap_interval(
    contributions: Floats, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of a sum of independent contributions, by resampling them with replacement.

    ValueError for less than two contributions.
    """
    count = len(contributions)
    if count < 2:
        raise ValueError(f"an interval needs at least two images, found {count}. Run a longer stream.")
    random = np.random.default_rng(seed)
    block = max(1, 2_000_000 // count)
    sums = [
        contributions[random.integers(count, size=(min(block, resamples - start), count))].sum(1)
        for start in range(0, resamples, block)
    ]
    return percentiles(np.concatenate(sums), confidence)


def paired_difference(
    results: Results, a: str, b: str, *, confidence: float = 0.95, resamples: int = 2000
) -> Difference:
    """The difference of two methods' mean errors with a paired bootstrap interval.

    Both answered the same images, so the difference is taken image by image before anything is averaged. The
    images are resampled, each with all its appearances under all shifts and seeds, since those are not
    independent of each other. The interval is about other images under the same shifts in the same order; it
    says nothing about other orders, models or data sets.

    A single image tells nothing: its interval is all that is possible, -100 to 100.

    Raises:
        ValueError: an unknown method, or no seed in common.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; expected a share between 0 and 1, such as 0.95.")
    ours, theirs = results.tracks(a), results.tracks(b)
    seeds = sorted(ours.keys() & theirs.keys())
    if not seeds:
        raise ValueError(
            f"{a} ran with the seeds {sorted(ours)} and {b} with {sorted(theirs)}: none in common. Run them together."
        )
    parts = [_contributions(ours[seed], theirs[seed], results.record(a), seed) for seed in seeds]
    _, places = np.unique(np.concatenate([images for images, _ in parts]), return_inverse=True)
    contributions = np.bincount(places, np.concatenate([values for _, values in parts])) / len(seeds)
    mean = float(contributions.sum())
    low, high = -100.0, 100.0
    if len(contributions) > 1:
        low, high = bootstrap_interval(contributions, confidence, resamples)
    return Difference(a, b, mean, low, high, confidence, len(contributions))


def _contributions(a: Track, b: Track, record: Record, seed: int) -> tuple[NDArray[np.int64], Floats]:
    """Each answer's image, and its share of the difference of mean errors, in points."""
    numbers = segment_numbers(a.rows)
    scored = np.bincount(numbers, a.column("scored"))
    weights = 100 / (max(1, np.count_nonzero(scored)) * np.maximum(scored, 1))
    images: list[NDArray[np.int64]] = []
    values: list[Floats] = []
    for place, (mine, other, segment) in enumerate(zip(a.rows, b.rows, numbers, strict=True)):
        if mine.wrong and other.wrong:
            wrong = unpack_bits(mine.wrong, mine.samples).astype(np.float64)
            difference = wrong - unpack_bits(other.wrong, other.samples)
            images.append(_images(record, a, place, numbers, seed))
        else:
            difference = np.array([float(mine.errors - other.errors)])
            images.append(np.array([-1 - place]))
        values.append(difference * weights[segment])
    return np.concatenate(images), np.concatenate(values)


def _images(record: Record, track: Track, place: int, numbers: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Positions in the data set of a batch's images: its own line, or that of the same place in a segment before."""
    first = int(np.searchsorted(numbers, numbers[place]))
    within = place - first
    for segment in range(int(numbers[place]), -1, -1):
        row = track.rows[int(np.searchsorted(numbers, segment)) + within]
        found = record.images.get((seed, row.batch))
        if found is not None:
            return np.array(found, dtype=np.int64)
    raise ValueError(f"{record.path} does not say which images batch {place} has. Restore it from a copy.")
