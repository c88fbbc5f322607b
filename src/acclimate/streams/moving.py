"""A stream that moves, without notice, from one kind to the next."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from acclimate.streams.arrangements import Arrangement, Member, by_domain, shuffled
from acclimate.streams.label_orders import correlated_order, sorted_order

__all__ = ["MOVING_PARTS", "moving", "moving_order"]

MOVING_PARTS = ("single", "sorted", "mixed", "correlated")
"""What comes one after the other: one domain at a time with mixed labels; sorted by label; all domains shuffled; one
domain at a time with labels in chunks."""

Ints = NDArray[np.int64]


def _cuts(count: int) -> list[int]:
    return [place * count // len(MOVING_PARTS) for place in range(len(MOVING_PARTS) + 1)]


def moving_order(labels: Ints, concentration: float, random: np.random.Generator) -> Ints:
    """Positions `[n]` of one domain's images, whose quarters are ordered as the parts say."""
    orders = {"sorted": sorted_order, "correlated": lambda own: correlated_order(own, concentration, random)}
    cuts = _cuts(len(labels))
    quarters = zip(MOVING_PARTS, cuts[:-1], cuts[1:], strict=True)
    return np.concatenate(
        [begin + orders.get(part, lambda own: np.arange(len(own)))(labels[begin:end]) for part, begin, end in quarters]
    ).astype(np.int64)


def moving(group: Sequence[Member], batch_size: int) -> Arrangement:
    """The first quarter of every domain, then the second, and so on; batches that are short at a border are kept."""
    domains: list[Ints] = []
    ranks: list[Ints] = []
    starts, stretches, begin = [np.zeros(1, dtype=np.int64)], [], 0
    for number, part in enumerate(MOVING_PARTS):
        spans = [_cuts(len(member))[number : number + 2] for member in group]
        own = [
            Member(member.positions[a:b], member.keys[a:b], member.labels[a:b])
            for member, (a, b) in zip(group, spans, strict=True)
        ]
        piece = shuffled(own, batch_size) if part == "mixed" else by_domain(own, batch_size)
        domains.append(piece.domains)
        ranks.append(piece.ranks + np.array([a for a, _ in spans], dtype=np.int64)[piece.domains])
        starts.append(piece.starts[1:] + begin)
        stretches.append(np.full(len(piece.starts) - 1, number, dtype=np.int64))
        begin += len(piece.domains)
    joined = (np.concatenate(parts) for parts in (domains, ranks, starts, stretches))
    return Arrangement(*joined)
