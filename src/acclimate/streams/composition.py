"""What a stream is made of: images of each domain, and how they meet in its batches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Composition", "Rows", "histogram"]

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """The images of a stream in order: each one's batch, domain and label, int64 `[T]`; labels of -1 are unknown."""

    batches: Ints
    domains: Ints
    labels: Ints


def histogram(rows: Rows, domains: int) -> Ints:
    """Images of each domain in each batch: int64 `[batches, domains]`."""
    batches = int(rows.batches[-1]) + 1 if len(rows.batches) else 0
    flat = np.bincount(rows.batches * domains + rows.domains, minlength=batches * domains)
    return flat.reshape(batches, domains).astype(np.int64)


@dataclass(frozen=True, kw_only=True)
class Composition:
    """How the domains of a stream meet. Entropies are in nats, means are over batches.

    Arguments:
        images: of each domain, in the order of `Stream.domains`.
        batches: of the stream.
        batch_domains: mean number of different domains in a batch.
        domain_entropy: mean entropy of a batch's shares of domains: 0 where each batch is of one domain, `log D`
            where all `D` have equal shares.
        label_entropy: mean entropy of a batch's shares of labels, of those that are known; None where none is.
        published: images of each domain in the published composition; -1 where there is none. Empty where no
            composition was published.
    """

    names: tuple[str, ...]
    images: tuple[int, ...]
    batches: int
    batch_domains: float
    domain_entropy: float
    label_entropy: float | None
    published: tuple[int, ...] = ()

    @classmethod
    def of(cls, rows: Rows, names: tuple[str, ...], published: tuple[int, ...] = ()) -> Composition:
        counts = histogram(rows, len(names))
        known = rows.labels >= 0
        entropy = None
        if known.any():
            _, codes = np.unique(rows.labels[known], return_inverse=True)
            entropy = _mean_entropy(rows.batches[known], codes.astype(np.int64))
        return cls(
            names=names,
            images=tuple(counts.sum(0).tolist()),
            batches=len(counts),
            batch_domains=round(float((counts > 0).sum(1).mean()), 4) if len(counts) else 0.0,
            domain_entropy=round(_mean_entropy(rows.batches, rows.domains), 4),
            label_entropy=None if entropy is None else round(entropy, 4),
            published=published,
        )

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Composition:
        """From what `json` gave."""
        whole: dict[str, Any] = dict(values)
        whole |= {name: tuple(values[name]) for name in ("names", "images", "published")}
        return cls(**whole)

    @property
    def shares(self) -> tuple[float, ...]:
        """Of all images, by domain."""
        total = max(1, sum(self.images))
        return tuple(count / total for count in self.images)

    @property
    def mixed(self) -> bool:
        """Whether some batch holds more than one domain."""
        return self.batch_domains > 1

    def __str__(self) -> str:
        """In a sentence."""
        total, count = sum(self.images), len(self.names)
        words = f"{total:,} images of {count} domain{'s' if count != 1 else ''} in {self.batches:,} batches"
        words += f"; a batch holds {self.batch_domains:.3g} of them, with an entropy of {self.domain_entropy:.2f}"
        if count > 1:
            words += f" of {np.log(count):.2f} nats"
        if self.label_entropy is not None:
            words += f"; entropy of its labels {self.label_entropy:.2f}"
        return f"{words}."

    def json(self) -> dict[str, Any]:
        return asdict(self)


def _mean_entropy(batches: Ints, codes: Ints) -> float:
    """The entropy of each batch's histogram of codes, averaged over batches; no table of batches by codes is made."""
    if not len(batches):
        return 0.0
    width = int(codes.max()) + 1
    cells, counts = np.unique(batches * width + codes, return_counts=True)
    owners, sums = np.unique(cells // width, return_inverse=True)[1], np.bincount(batches)
    shares = counts / sums[sums > 0][owners]
    return float(-(shares * np.log(shares)).sum() / (owners[-1] + 1)) + 0.0
