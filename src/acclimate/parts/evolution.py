r"""Covariance matrix adaptation: search by draws from a normal distribution that follows the best of them.

Candidates are $p_k = m + \sigma y_k$ with $y_k \sim N(0, C)$. The better half moves the mean; two paths, of the mean's
moves, drive the step size $\sigma$ and the rank-one part of C; ranks alone count, so any rising function of the
fitness gives the same search.

N. Hansen: The CMA Evolution Strategy, A Tutorial, arXiv 1604.00772v1, equations 38 to 58, with its constants and its
negative weights; candidates from elsewhere as in N. Hansen: Injecting External Solutions Into CMA-ES, 2011.

Written out here because the state of a packaged CMA-ES is arrays and a generator of its own, out of the reach of
reset, snapshot, rollback, saving and device moves. All of it is declared, in float64, 2 n^2 + 4 n + 2 numbers: the
moves of C are of the order of 1 / n^2.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from acclimate.core.state import State

__all__ = ["declare_search", "draw", "learn_from", "rates"]


class Rates(NamedTuple):
    """Constants of the search for n dimensions and a number of candidates.

    `weights` by rank, of which the first `parents` are positive and sum to 1; `effective` is their variance-effective
    number; `steps`, `damping`, `paths`, `one` and `many` are c_sigma, d_sigma, c_c, c_1 and c_mu; `length` is the mean
    norm of a standard normal vector; `longest` bounds the norm of a candidate from elsewhere; `every` says after how
    many generations C is decomposed.
    """

    weights: tuple[float, ...]
    parents: int
    effective: float
    steps: float
    damping: float
    paths: float
    one: float
    many: float
    length: float
    longest: float
    every: int


@lru_cache(maxsize=32)
def rates(size: int, count: int) -> Rates:
    """The tutorial's defaults.

    >>> found = rates(10, 10)
    >>> found.parents, round(found.effective, 3), round(found.steps, 3)
    (5, 3.167, 0.284)
    """
    raw = [math.log((count + 1) / 2) - math.log(rank) for rank in range(1, count + 1)]
    parents = count // 2
    best, rest = raw[:parents], raw[parents:]
    effective = sum(best) ** 2 / sum(w * w for w in best)
    one = 2 / ((size + 1.3) ** 2 + effective)
    many = min(1 - one, 2 * (effective - 2 + 1 / effective) / ((size + 2) ** 2 + effective))
    opposed = sum(rest) ** 2 / sum(w * w for w in rest)
    limits = (1 + one / many, 1 + 2 * opposed / (effective + 2), (1 - one - many) / (size * many))
    positive, negative = sum(w for w in raw if w > 0), -sum(w for w in raw if w < 0)
    steps = (effective + 2) / (size + effective + 5)
    return Rates(
        weights=tuple(w / positive if w > 0 else min(limits) * w / negative for w in raw),
        parents=parents,
        effective=effective,
        steps=steps,
        damping=1 + 2 * max(0.0, math.sqrt((effective - 1) / (size + 1)) - 1) + steps,
        paths=(4 + effective / size) / (size + 4 + 2 * effective / size),
        one=one,
        many=many,
        length=math.sqrt(size) * (1 - 1 / (4 * size) + 1 / (21 * size * size)),
        longest=math.sqrt(size) + 2 * size / (size + 2),
        every=max(1, math.floor(1 / (10 * size * (one + many)))),
    )


def declare_search(state: State, size: int, spread: float) -> None:
    """Keep a search over `size` numbers that starts from N(0, spread^2 I). Call it in `setup`."""
    device = next(state.model.parameters()).device
    zeros = torch.zeros(size, dtype=torch.float64, device=device)
    eye = torch.eye(size, dtype=torch.float64, device=device)
    start: dict[str, tuple[Tensor, Tensor | float]] = {
        "mean": (zeros, 0.0),
        "path": (zeros, 0.0),
        "step_path": (zeros, 0.0),
        "scales": (zeros + 1, 1.0),
        "covariance": (eye, eye),
        "basis": (eye, eye),
        "spread": (zeros.new_tensor(spread), spread),
        "age": (zeros.new_tensor(0.0), 0.0),
    }
    for name, (tensor, initial) in start.items():
        state.declare(f"search.{name}", tensor.clone(), initial=initial, kind="memory", merge="first")
    state.generator("search")


@torch.no_grad()
def draw(state: State, count: int) -> Tensor:
    """So many candidates, `[count, n]` in float64."""
    mean = state["search.mean"]
    noise = torch.randn(count, len(mean), generator=state.generator("search"), dtype=torch.float64).to(mean.device)
    return mean + state["search.spread"] * ((noise * state["search.scales"]) @ state["search.basis"].T)


@torch.no_grad()
def learn_from(state: State, candidates: Tensor, fitness: Tensor, *, given: int = 0) -> None:
    """One generation from candidates `[K, n]` and their fitness `[K]`, lower is better.

    The first `given` candidates come from elsewhere: if one is further from the mean than a drawn one would be, its
    step is shortened. C is decomposed every `rates(n, K).every` batches; in between draws follow an earlier C.
    """
    mean, spread, age = state["search.mean"], state["search.spread"], state["search.age"]
    scales, basis, covariance = state["search.scales"], state["search.basis"], state["search.covariance"]
    path, step_path = state["search.path"], state["search.step_path"]
    size, c = len(mean), rates(len(mean), len(candidates))
    weights = torch.tensor(c.weights, dtype=mean.dtype, device=mean.device)

    steps = (candidates - mean) / spread
    white = ((steps @ basis) / scales) @ basis.T
    if given:
        short = torch.ones_like(fitness, dtype=mean.dtype)
        short[:given] = (c.longest / white[:given].norm(dim=1)).clamp_max(1)
        steps, white = steps * short[:, None], white * short[:, None]
    order = fitness.argsort(stable=True)
    steps, white = steps[order], white[order]

    move = weights[: c.parents] @ steps[: c.parents]
    mean.add_(spread * move)
    gain = math.sqrt(c.steps * (2 - c.steps) * c.effective)
    step_path.mul_(1 - c.steps).add_(weights[: c.parents] @ white[: c.parents], alpha=gain)
    age.add_(1)
    reach = step_path.norm()
    usual = reach / (1 - (1 - c.steps) ** (2 * age)).sqrt() < (1.4 + 2 / (size + 1)) * c.length
    goes = usual.to(mean.dtype)
    path.mul_(1 - c.paths).add_(goes * math.sqrt(c.paths * (2 - c.paths) * c.effective) * move)

    squares = white.square().sum(1).clamp_min(1e-30)
    shares = torch.where(weights < 0, weights * size / squares, weights)
    kept = 1 - c.one - c.many * sum(c.weights) + c.one * (1 - goes) * c.paths * (2 - c.paths)
    covariance.mul_(kept).add_(torch.outer(path, path), alpha=c.one)
    covariance.add_(steps.T @ (shares[:, None] * steps), alpha=c.many)
    spread.mul_((c.steps / c.damping * (reach / c.length - 1)).exp())
    if state.batches % c.every == 0:
        values, vectors = torch.linalg.eigh(covariance)
        scales.copy_(values.clamp_min(1e-20).sqrt())
        basis.copy_(vectors)
