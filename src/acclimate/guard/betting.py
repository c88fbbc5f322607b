"""Evidence by betting: the capital of a gambler who wins only if what is assumed is false."""

from __future__ import annotations

import abc
import functools
import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from acclimate.core.config import Configured, below, one_of, positive
from acclimate.guard.detectors.detector import blank, checked, refuse_broken

__all__ = ["Betting", "scores"]

Floats = NDArray[np.float64]

_SHARES = 0.95 * 2.0 ** (-np.arange(11) / 2)
"""Shares of the capital that are bet at once, from nearly all to a thirty-second: a mixture needs no tuning."""

_PEAK, _FOUND, _CAPITAL = range(3)


@dataclass(frozen=True, kw_only=True)
class Betting(Configured, abc.ABC):
    """A test that may be looked at after every batch: capital grows only if ranks are no longer uniform.

    Ranks `u` in [0, 1] have mean 1/2 as long as nothing has changed. Gambler `k` bets a fixed share `s_k` of its
    capital that they are larger (or smaller), so that each rank multiplies it by `1 + s_k (u - 1/2) / (1/2)`, and the
    capital of all is their mean: no stake has to be chosen. As long as nothing has changed the capital is a martingale
    that begins at 1, so by Ville's inequality it ever reaches `1 / alpha` with probability at most `alpha`.

    Arguments: `alpha` in (0, 1); `direction` of the change, "up", "down" or "both"; `restart`: see below. State: zeros
    are the fresh state, `[size]`, float64 on the CPU, changed in place, for the caller to declare.

    With `restart=False` the verdict stays once it is reached, and the bound holds for a stream without end. A change
    after a long calm is then found late, because capital was lost meanwhile. With `restart=True` losses are forgiven:
    each gambler begins an update with at least 1 (Page's CUSUM on capital; Shin, Ramdas and Rinaldo's e-detectors), and
    the update after a verdict begins anew. Late changes are found as soon as early ones, but on a stream without end
    false alarms come, at least `1 / alpha` updates apart in the mean: the capital is at most the sum of tests begun
    at each update, which less the number of updates is a martingale.
    """

    alpha: float = 0.01
    direction: str = "both"
    restart: bool = False

    def __post_init__(self) -> None:
        positive(alpha=self.alpha)
        below(1, alpha=self.alpha)
        one_of("up", "down", "both", direction=self.direction)

    @property
    def size(self) -> int:
        """How many numbers the state has."""
        return _CAPITAL + self._gamblers

    @property
    def limit(self) -> float:
        """The logarithm of capital at which a change counts as real."""
        return -math.log(self.alpha)

    @property
    def _signs(self) -> tuple[int, ...]:
        return {"up": (1,), "down": (-1,), "both": (1, -1)}[self.direction]

    @property
    def _gamblers(self) -> int:
        return len(_SHARES) * len(self._signs)

    def initial(self) -> Tensor:
        """A fresh state, `[size]`."""
        return blank(self.size)

    def evidence(self, state: Tensor) -> float:
        """The logarithm of the capital now, in nats: 0 at the beginning, `limit` at a verdict."""
        return _mean(self._numbers(state)[_CAPITAL : _CAPITAL + self._gamblers])

    def peak(self, state: Tensor) -> float:
        """The most evidence so far; `exp(-peak)` is a p-value that holds at any time while there is no restart."""
        return float(self._numbers(state)[_PEAK])

    def _numbers(self, state: Tensor) -> Floats:
        return checked(state, self.size).numpy()

    def _begin(self, numbers: Floats) -> None:
        """What every update does first: after a verdict, a test that restarts knows nothing any more."""
        if self.restart and numbers[_FOUND]:
            numbers[:] = 0.0

    def _bet(self, numbers: Floats, ranks: Floats, slack: float = 0.0) -> bool:
        """Bet on ranks whose mean is known to lie within `slack` of 1/2 if nothing has changed."""
        stakes, cost = _stakes(self._signs, slack)
        capital = numbers[_CAPITAL : _CAPITAL + self._gamblers]
        if self.restart:
            np.maximum(capital, 0.0, out=capital)
        capital += np.log1p(stakes * (ranks - 0.5) - cost).sum(1)
        evidence = _mean(capital)
        numbers[_PEAK] = max(numbers[_PEAK], evidence)
        numbers[_FOUND] = numbers[_PEAK] >= self.limit
        return bool(numbers[_FOUND])


def scores(values: Tensor | float) -> Floats:
    """The scores of a batch as numbers on the host, `[n]`; ValueError unless all are finite."""
    found = torch.as_tensor(values).detach().to("cpu", torch.float64).flatten().numpy()
    refuse_broken(float(found.sum()))
    return found


def _mean(logarithms: Floats) -> float:
    """The logarithm of the mean of numbers given by their logarithms."""
    return float(np.logaddexp.reduce(logarithms)) - math.log(len(logarithms))


@functools.lru_cache(maxsize=64)
def _stakes(signs: tuple[int, ...], slack: float) -> tuple[Floats, Floats]:
    """What each gambler bets on `u - 1/2` and pays for the slack, `[k, 1]`; no bet can lose more than 0.95."""
    shares = (_SHARES / (0.5 + slack))[:, None]
    return np.concatenate([sign * shares for sign in signs]), np.concatenate([shares * slack for _ in signs])
