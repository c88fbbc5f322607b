"""Is the shift real? Two anytime-valid tests: against a sample of the source, and of the stream against itself."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from acclimate.core.config import whole
from acclimate.guard.betting import Betting, scores

__all__ = ["ReferenceMartingale", "StreamMartingale", "ranks_in_pool"]


@dataclass(frozen=True, kw_only=True)
class ReferenceMartingale(Betting):
    """Do scores of the stream come from the distribution that a reference sample of the source comes from?

    The rank of a score among `m` reference scores is `u = (#{x < z} + #{x = z} / 2) / m`. Its mean over `z` is not 1/2,
    because the sample is not the distribution, and betting as if it were would reject for certain in the end. But that
    mean is one of `m` independent variables that are uniform, or less spread where there are ties, and a uniform
    variable is sub-Gaussian with variance 1/12, so it lies within `slack = sqrt(log(s / b) / (6 m))` of 1/2 with
    probability `1 - b`, `s` the number of directions. Bets are on what is beyond: half of `alpha` pays for the slack,
    half for the bets, and in all a stream that is as the reference is ever called changed with probability at most
    `alpha`, over the draw of both. With `restart` the time between false alarms holds with probability `1 - alpha / 2`.

    Arguments: those of `Betting`; scores may have any scale, only their order counts. Published: testing by betting on
    means (Waudby-Smith and Ramdas, JRSS B 2024) and on the source's ranks of entropies (POEM, Bar et al., NeurIPS 2024,
    which takes the source's distribution as known); the slack and the mixture's use here are this project's. Cost:
    `O(n log m)` a batch. Sees that scores tend to be larger or smaller, if by more than the slack:
    `|P(z > x) - 1/2| > slack`. Fails to see a change that leaves that probability at 1/2, such as one of spread alone;
    scores that depend on each other (video, sorted labels) are a change of their own.

    >>> draw = torch.Generator().manual_seed(0)
    >>> test = ReferenceMartingale(alpha=0.01)
    >>> reference, state = test.reference(torch.rand(500, generator=draw)), test.initial()
    >>> any(test.update(state, torch.rand(100, generator=draw), reference) for _ in range(20))
    False
    >>> any(test.update(state, 0.3 + torch.rand(100, generator=draw), reference) for _ in range(20))
    True
    """

    @property
    def limit(self) -> float:
        return -math.log(self.alpha / 2)

    def slack(self, count: int) -> float:
        """How far from 1/2 the mean rank in a reference of `count` scores may lie by chance."""
        return math.sqrt(math.log(2 * len(self._signs) / self.alpha) / (6 * count))

    def reference(self, values: Tensor) -> Tensor:
        """The reference scores in the form that `update` takes, `[m]`: sorted, float64, for the caller to declare.

        ValueError if there are so few that no stream could differ from them.
        """
        found = np.sort(scores(values))
        if not len(found) or self.slack(len(found)) >= 0.5:
            least = math.floor(math.log(2 * len(self._signs) / self.alpha) / 1.5) + 1
            raise ValueError(f"found {len(found)} reference scores, expected at least {least}, better some hundreds.")
        return torch.from_numpy(found)

    def update(self, state: Tensor, values: Tensor | float, reference: Tensor) -> bool:
        """Take in a batch's scores `[n]`, one host read; whether they have by now been shown to differ."""
        numbers, taken, known = self._numbers(state), scores(values), reference.numpy()
        self._begin(numbers)
        below = np.searchsorted(known, taken, "left") + np.searchsorted(known, taken, "right")
        return self._bet(numbers, below / (2 * len(known)), self.slack(len(known)))


@dataclass(frozen=True, kw_only=True)
class StreamMartingale(Betting):
    """Do scores go on as they came? A conformal test of the stream against what it remembers of itself.

    Each score gets its rank in a pool of at most `pool` earlier ones, ties and its own place broken at random (see
    `ranks_in_pool`): as long as scores are independent draws of one distribution, whatever it is, these ranks are
    exactly uniform and independent, so no reference and no slack are needed.

    Arguments: those of `Betting`; `pool` >= 1, a memory of about so many scores. Published: conformal test martingales
    (Vovk, Gammerman and Shafer 2005; Vovk 2021), with all scores kept; the pool that forgets evenly is this project's.
    State: `pool` numbers more. Cost: `O(n)` list insertions a batch. Sees a change while the pool still remembers what
    was before, so within about `pool` scores. Fails to see a shift that was there from the beginning, one slow next to
    the pool, and one of spread alone; scores that depend on each other are a change of their own.

    >>> draw = torch.Generator().manual_seed(0)
    >>> test = StreamMartingale(alpha=0.01, restart=True)
    >>> state = test.initial()
    >>> calm = [test.update(state, torch.rand(100, generator=draw), draw) for _ in range(20)]
    >>> shifted = [test.update(state, 0.3 + torch.rand(100, generator=draw), draw) for _ in range(20)]
    >>> any(calm), any(shifted[:2])
    (False, True)
    """

    pool: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        whole(1, pool=self.pool)

    @property
    def size(self) -> int:
        return super().size + 1 + self.pool

    def update(self, state: Tensor, values: Tensor | float, generator: torch.Generator) -> bool:
        """Take in a batch's scores `[n]`, one host read; whether the stream has by now been shown to change.

        `generator`: a private one on the CPU; two draws are taken for each score.
        """
        numbers, taken = self._numbers(state), scores(values)
        self._begin(numbers)
        place = super().size
        known: list[float] = numbers[place + 1 : place + 1 + int(numbers[place])].tolist()
        chances = torch.rand(2, len(taken), dtype=torch.float64, generator=generator).tolist()
        ranks = np.array(ranks_in_pool(known, taken.tolist(), *chances, capacity=self.pool))
        numbers[place] = len(known)
        numbers[place + 1 : place + 1 + len(known)] = known
        return self._bet(numbers, ranks)


def ranks_in_pool(
    pool: list[float], values: Iterable[float], ties: Iterable[float], deaths: Iterable[float], *, capacity: int
) -> list[float]:
    """The rank of each value among those in the pool and itself, in [0, 1], and then the pool goes on.

    `u = (#{x < z} + tie (1 + #{x = z})) / (n + 1)` for a pool of `n`. The value joins the pool, and where this makes
    one too many, each member, the newcomer too, dies with the same chance. Then who died tells nothing of how the
    newcomer ranked, so that for independent draws of one distribution the ranks are independent and uniform. (By
    induction: a pool that is `n` independent draws given all ranks so far makes `n + 1` with the newcomer; their order
    statistics, and so the survivors of a death that does not look at age, are independent of the newcomer's rank.)
    A reservoir sample, where an old newcomer is likelier to die, has no such property.

    Arguments: `pool`, sorted, changed in place; `ties` and `deaths`, uniform in [0, 1), one each for every value.

    >>> pool = [1.0, 3.0]
    >>> ranks_in_pool(pool, [2.0], [0.5], [0.0], capacity=2), pool
    ([0.5], [2.0, 3.0])
    """
    ranks: list[float] = []
    for value, tie, death in zip(values, ties, deaths, strict=True):
        left, right = bisect_left(pool, value), bisect_right(pool, value)
        ranks.append((left + tie * (1 + right - left)) / (len(pool) + 1))
        pool.insert(left, value)
        if len(pool) > capacity:
            del pool[int(death * len(pool))]
    return ranks
