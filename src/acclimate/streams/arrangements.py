"""In which order the images of several domains arrive: pure functions of seeds, sizes, labels and options."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Arrangement",
    "Member",
    "alternating",
    "by_domain",
    "composed_at_random",
    "crossed",
    "drawn",
    "members",
    "piecewise",
    "shuffled",
    "switching",
]

Ints = NDArray[np.int64]

_LONGEST = 10


def drawn(seed: int, *words: str) -> np.random.Generator:
    """A generator of its own for these words: what one domain draws does not depend on the others."""
    digest = hashlib.sha256("\0".join(words).encode()).digest()
    return np.random.default_rng([seed, *np.frombuffer(digest[:16], dtype=np.uint32).tolist()])


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """The images of one domain that a stream shows, in a random order.

    Arguments:
        positions: int64 `[n]`, in the domain's data set.
        keys: float64 `[n]`, uniform in [0, 1) and rising: where each image stands in a shuffle over all domains.
        labels: int64 `[n]`.
    """

    positions: Ints
    keys: NDArray[np.float64]
    labels: Ints

    @classmethod
    def shuffled(cls, seed: int, name: str, positions: Ints, labels: Ints) -> Member:
        """Draw the order from the seed and the domain's name."""
        keys = drawn(seed, "order", name).random(len(positions))
        order = np.argsort(keys, kind="stable")
        return cls(positions[order], keys[order], labels[order])

    def __len__(self) -> int:
        return len(self.positions)

    def taken(self, order: Ints) -> Member:
        """The same images in another order."""
        return Member(self.positions[order], self.keys, self.labels[order])


@dataclass(frozen=True, slots=True, eq=False)
class Arrangement:
    """The rows of a stream and where its batches begin.

    Arguments:
        domains: int64 `[T]`, each row's domain.
        ranks: int64 `[T]`, which of its domain's images it is, in the order of the domain's `Member`.
        starts: int64 `[batches + 1]`, where each batch begins, and the end.
        stretches: int64 `[batches]`, which stretch of time each batch belongs to, where domains do not say it.
    """

    domains: Ints
    ranks: Ints
    starts: Ints
    stretches: Ints | None = None

    @classmethod
    def cut(cls, domains: Ints, ranks: Ints, batch_size: int) -> Arrangement:
        """Consecutive rows to a batch; a short last batch is kept."""
        count = len(domains)
        return cls(domains, ranks, np.append(np.arange(0, count, batch_size), count).astype(np.int64))

    @property
    def batches(self) -> Ints:
        """Each row's batch: int64 `[T]`."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))


def members(sizes: Sequence[int]) -> tuple[Ints, Ints]:
    """Domain and rank of all rows, one domain after the other."""
    domains = np.repeat(np.arange(len(sizes)), sizes)
    ranks = np.concatenate([np.arange(size) for size in sizes]) if sizes else np.zeros(0, dtype=np.int64)
    return domains.astype(np.int64), ranks.astype(np.int64)


def _sizes(group: Sequence[Member]) -> list[int]:
    return [len(member) for member in group]


def shuffled(group: Sequence[Member], batch_size: int) -> Arrangement:
    """All domains pooled, one shuffle over everything.

    An image's place follows from its key, which its own domain drew, so that the order of two images does not change
    when a domain is added.
    """
    domains, ranks = members(_sizes(group))
    order = np.argsort(np.concatenate([member.keys for member in group]), kind="stable")
    return Arrangement.cut(domains[order], ranks[order], batch_size)


def crossed(group: Sequence[Member], batch_size: int) -> Arrangement:
    """Domain by domain in turn, so that in each batch the domains' shares differ by one image at most.

    A domain that is used up drops out. ValueError if a batch cannot hold every domain.
    """
    if batch_size < len(group):
        raise ValueError(
            f"batch_size is {batch_size}, but every batch of a cross-mix holds all {len(group)} domains; expected "
            f"{len(group)} or more. Take larger batches, fewer domains, or the setting 'mixed'."
        )
    domains, ranks = members(_sizes(group))
    order = np.lexsort((domains, ranks))
    return Arrangement.cut(domains[order], ranks[order], batch_size)


def by_domain(group: Sequence[Member], batch_size: int) -> Arrangement:
    """One domain after the other; a short last batch of each is kept."""
    domains, ranks = members(_sizes(group))
    starts, begin = [0], 0
    for size in _sizes(group):
        starts += [
            min(place, begin + size) for place in range(begin + batch_size, begin + size + batch_size, batch_size)
        ]
        begin += size
    return Arrangement(domains, ranks, np.array(starts, dtype=np.int64))


def _two_copies(group: Sequence[Member], batch_size: int) -> tuple[Arrangement, Ints]:
    """The rows of both copies cut into full batches, and the numbers of the alternating ones, `[2, full]`."""
    total = sum(_sizes(group))
    full = total // batch_size
    if not full:
        raise ValueError(
            f"The domains have {total} images in all, and batch_size is {batch_size}; expected at least one full "
            "batch, since this setting drops what is left over. Take smaller batches or more images."
        )
    used = full * batch_size
    single, mixed = members(_sizes(group)), shuffled(group, batch_size)
    domains = np.concatenate([single[0][:used], mixed.domains[:used]])
    ranks = np.concatenate([single[1][:used], mixed.ranks[:used]])
    return Arrangement.cut(domains, ranks, batch_size), np.arange(2 * full).reshape(2, full)


def _in_order(arrangement: Arrangement, batches: Ints, batch_size: int) -> Arrangement:
    rows = (batches[:, None] * batch_size + np.arange(batch_size)).reshape(-1)
    return Arrangement.cut(arrangement.domains[rows], arrangement.ranks[rows], batch_size)


def alternating(group: Sequence[Member], batch_size: int) -> Arrangement:
    """Two copies of the data, one domain after the other and shuffled over all, of whose full batches one each in turn.

    Each copy is cut as a whole, as published, so a batch in which one domain ends and the next begins holds both.
    ValueError if there is no full batch.
    """
    copies, turns = _two_copies(group, batch_size)
    return _in_order(copies, turns.T.reshape(-1), batch_size)


def switching(group: Sequence[Member], batch_size: int, seed: int) -> Arrangement:
    """The batches of `alternating` in random order. ValueError if there is no full batch."""
    copies, turns = _two_copies(group, batch_size)
    return _in_order(copies, drawn(seed, "switching").permutation(turns.size), batch_size)


class _Shelves:
    """How many images of each domain are left, handed out in the order of each domain."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = np.array(sizes, dtype=np.int64)
        self.taken = np.zeros(len(sizes), dtype=np.int64)

    @property
    def open(self) -> Ints:
        """The domains that have images left."""
        return np.flatnonzero(self.taken < self.sizes)

    def some(self, random: np.random.Generator) -> Ints:
        """A random number of random domains, of those that have images left."""
        left = self.open
        return np.sort(random.permutation(left)[: random.integers(1, len(left) + 1)])

    def take(self, chosen: Ints) -> tuple[Ints, Ints]:
        """Domains and ranks for these rows; rows of domains that are used up are left out."""
        ranks = np.empty(len(chosen), dtype=np.int64)
        for domain in np.unique(chosen):
            rows = chosen == domain
            ranks[rows] = self.taken[domain] + np.arange(rows.sum())
        kept = ranks < self.sizes[chosen]
        self.taken += np.bincount(chosen[kept], minlength=len(self.sizes))
        return chosen[kept], ranks[kept]


def _joined(pieces: Sequence[tuple[Ints, Ints]], batch_size: int) -> Arrangement:
    domains, ranks = (np.concatenate(parts) for parts in zip(*pieces, strict=True))
    return Arrangement.cut(domains, ranks, batch_size)


def piecewise(group: Sequence[Member], batch_size: int, seed: int) -> Arrangement:
    """Pieces of 1 to 10 batches, each of a random number of random domains in equal expected shares.

    Every image comes once: domains that are used up are no longer chosen, and a piece ends early where its own are.
    """
    random, shelves = drawn(seed, "dynamic"), _Shelves(_sizes(group))
    pieces: list[tuple[Ints, Ints]] = []
    while len(shelves.open):
        length = batch_size * int(random.integers(1, _LONGEST + 1))
        pieces.append(shelves.take(random.choice(shelves.some(random), length)))
    return _joined(pieces, batch_size)


def composed_at_random(group: Sequence[Member], batch_size: int, seed: int) -> Arrangement:
    """Each batch draws how many domains it has, which, and their shares, uniformly over all shares.

    Every image comes once: what a used-up domain lacks is drawn anew from those that are left.
    """
    random, shelves = drawn(seed, "random"), _Shelves(_sizes(group))
    pieces: list[tuple[Ints, Ints]] = []
    missing = batch_size
    while len(shelves.open):
        chosen = shelves.some(random)
        shares = random.dirichlet(np.ones(len(chosen)))
        taken = shelves.take(random.choice(chosen, missing, p=shares))
        pieces.append(taken)
        missing = missing - len(taken[0]) or batch_size
    return _joined(pieces, batch_size)
