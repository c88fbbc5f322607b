"""The evolution strategy against the equations of its tutorial, number by number, and on known functions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from acclimate.core.state import State
from acclimate.parts.evolution import declare_search, draw, learn_from, rates


class Search:
    """One search in numpy: mean m, step size s, covariance C and two paths; one generation a call."""

    def __init__(self, size: int, spread: float) -> None:
        self.n, self.s, self.g = size, spread, 0
        self.m, self.ps, self.pc = np.zeros(size), np.zeros(size), np.zeros(size)
        self.c = np.eye(size)
        self.root = np.eye(size)  # C^-1/2, of the last C that was decomposed

    def learn(self, points: np.ndarray, values: np.ndarray, given: int = 0, decompose: bool = True) -> None:
        n, count = self.n, len(points)
        mu = count // 2
        w = np.array([math.log((count + 1) / 2) - math.log(i) for i in range(1, count + 1)])
        mueff = w[:mu].sum() ** 2 / (w[:mu] ** 2).sum()
        mueff_minus = w[mu:].sum() ** 2 / (w[mu:] ** 2).sum()
        c1 = 2 / ((n + 1.3) ** 2 + mueff)
        cmu = min(1 - c1, 2 * (mueff - 2 + 1 / mueff) / ((n + 2) ** 2 + 2 * mueff / 2))
        cc = (4 + mueff / n) / (n + 4 + 2 * mueff / n)
        cs = (mueff + 2) / (n + mueff + 5)
        ds = 1 + 2 * max(0, math.sqrt((mueff - 1) / (n + 1)) - 1) + cs
        chi = math.sqrt(n) * (1 - 1 / (4 * n) + 1 / (21 * n**2))
        bound = min(1 + c1 / cmu, 1 + 2 * mueff_minus / (mueff + 2), (1 - c1 - cmu) / (n * cmu))
        w = np.array([x / w[w > 0].sum() if x >= 0 else bound * x / -w[w < 0].sum() for x in w])
        y = [(p - self.m) / self.s for p in points]
        for k in range(given):
            length = np.linalg.norm(self.root @ y[k])
            y[k] = y[k] * min(1, (math.sqrt(n) + 2 * n / (n + 2)) / length) if length else y[k]
        y = [y[k] for k in np.argsort(values, kind="stable")]
        yw = sum(w[i] * y[i] for i in range(mu))
        self.m = self.m + self.s * yw
        self.ps = (1 - cs) * self.ps + math.sqrt(cs * (2 - cs) * mueff) * self.root @ yw
        norm = np.linalg.norm(self.ps)
        h = norm / math.sqrt(1 - (1 - cs) ** (2 * (self.g + 1))) < (1.4 + 2 / (n + 1)) * chi
        self.pc = (1 - cc) * self.pc + h * math.sqrt(cc * (2 - cc) * mueff) * yw
        c = (1 + c1 * (1 - h) * cc * (2 - cc) - c1 - cmu * w.sum()) * self.c + c1 * np.outer(self.pc, self.pc)
        for i in range(count):
            away = np.linalg.norm(self.root @ y[i]) ** 2
            share = w[i] if w[i] >= 0 else w[i] * n / away if away else 0.0
            c = c + cmu * share * np.outer(y[i], y[i])
        self.c = c
        self.s *= math.exp(cs / ds * (norm / chi - 1))
        self.g += 1
        if decompose:
            values_, vectors = np.linalg.eigh(self.c)
            self.root = vectors @ np.diag(values_**-0.5) @ vectors.T


def begun(size: int, spread: float = 1.0, seed: int = 0) -> State:
    state = State(nn.Linear(2, 2), seed)
    declare_search(state, size, spread)
    return state


def close(state: State, search: Search, tolerance: float = 1e-9) -> None:
    pairs = {"mean": search.m, "covariance": search.c, "path": search.pc, "step_path": search.ps, "spread": search.s}
    for name, expected in pairs.items():
        assert np.allclose(state[f"search.{name}"].numpy(), expected, rtol=tolerance, atol=tolerance), name


def minimise(state: State, function, count: int, generations: int) -> float:
    lowest = math.inf
    for _ in range(generations):
        points = draw(state, count)
        values = function(points)
        lowest = min(lowest, float(values.min()))
        learn_from(state, points, values)
    return lowest


def ellipsoid(points: Tensor) -> Tensor:
    """Axes of lengths 1 to 100, turned, around (1, 1, ...)."""
    size = points.shape[1]
    turn, _ = torch.linalg.qr(torch.randn(size, size, generator=torch.Generator().manual_seed(5), dtype=points.dtype))
    scale = torch.logspace(0, 2, size, dtype=points.dtype)
    return (((points - 1) @ turn * scale) ** 2).sum(1)


def rosenbrock(points: Tensor) -> Tensor:
    a, b = points[:, :-1], points[:, 1:]
    return (100 * (b - a**2) ** 2 + (1 - a) ** 2).sum(1)


@pytest.mark.parametrize(("size", "count", "given"), [(3, 7, 0), (7, 11, 0), (12, 28, 1), (40, 9, 2), (2, 4, 1)])
def test_every_generation_follows_the_tutorial(size, count, given):
    """Thirty generations of points and values that the search did not ask for, some from far away."""
    state, search = begun(size, 0.6), Search(size, 0.6)
    generator = torch.Generator().manual_seed(size)
    for _ in range(30):
        points = draw(state, count)
        points[:given] += 20 * state["search.spread"] * torch.randn(given, size, generator=generator)
        values = ellipsoid(points)
        learn_from(state, points, values, given=given)
        search.learn(points.numpy(), values.numpy(), given)
        close(state, search)


def test_a_decomposition_is_one():
    state = begun(6)
    minimise(state, ellipsoid, 9, 40)
    basis, scales = state["search.basis"], state["search.scales"]
    assert torch.allclose(basis @ basis.T, torch.eye(6, dtype=torch.float64), rtol=0, atol=1e-12)
    whole = basis @ torch.diag(scales**2) @ basis.T
    assert torch.allclose(whole, state["search.covariance"], rtol=1e-9, atol=1e-12)


def test_draws_have_the_moments_they_should():
    state = begun(3, 0.5)
    minimise(state, ellipsoid, 8, 10)
    points = draw(state, 200_000)
    expected = state["search.spread"] ** 2 * state["search.covariance"]
    error = (torch.cov(points.T) - expected).abs() / torch.outer(expected.diag().sqrt(), expected.diag().sqrt())
    assert error.max() < 0.02, "a correlation of 200,000 draws is off by 0.0032 or less, mostly"
    assert ((points.mean(0) - state["search.mean"]) / expected.diag().sqrt()).abs().max() < 0.02


@pytest.mark.parametrize(
    ("function", "size", "count", "generations"), [(ellipsoid, 8, 10, 500), (rosenbrock, 5, 12, 500)]
)
def test_it_finds_the_minimum(function, size, count, generations):
    for seed in range(3):
        state = begun(size, 0.5, seed)
        assert minimise(state, function, count, generations) < 1e-12
        assert (state["search.mean"] - 1).abs().max() < 1e-5


def test_covariance_becomes_the_inverse_hessian():
    """Up to a factor: the whitened Hessian of an ellipsoid of condition 10,000 has a condition of a few."""
    state = begun(6, 0.5)
    minimise(state, ellipsoid, 12, 300)
    hessian = torch.autograd.functional.hessian(lambda p: ellipsoid(p[None])[0], torch.ones(6, dtype=torch.float64))
    values = torch.linalg.eigvals(state["search.covariance"] @ hessian).real
    assert torch.linalg.cond(hessian) > 9_000
    assert values.max() / values.min() < 10


def test_ranks_alone_count():
    first, second = begun(5), begun(5)
    minimise(first, ellipsoid, 9, 20)
    minimise(second, lambda p: ellipsoid(p).log() * 7 - 3, 9, 20)
    for name in ("mean", "covariance", "spread", "path", "step_path", "basis", "scales"):
        assert torch.equal(first[f"search.{name}"], second[f"search.{name}"])


def test_a_candidate_from_far_away_moves_the_mean_no_further_than_a_long_draw():
    size, count = 10, 8
    state = begun(size)
    points = draw(state, count)
    points[0] = 1e6
    learn_from(state, points, torch.arange(count), given=1)
    best = rates(size, count).weights[0] * (math.sqrt(size) + 2 * size / (size + 2))
    rest = rates(size, count).weights
    others = sum(rest[k] * points[k] for k in range(1, 4))
    assert float((state["search.mean"] - others).norm()) == pytest.approx(best, rel=1e-9)


def test_a_candidate_at_the_mean_does_no_harm():
    for rank in (0.0, 99.0):
        state, search = begun(4), Search(4, 1.0)
        points = torch.cat([torch.zeros(1, 4, dtype=torch.float64), draw(state, 7)])
        values = torch.cat([torch.tensor([rank]), torch.arange(1.0, 8.0)])
        learn_from(state, points, values, given=1)
        search.learn(points.numpy(), values.numpy(), 1)
        close(state, search)


def test_large_searches_decompose_now_and_then():
    """Between decompositions draws follow the earlier C, and all else goes on as the equations say."""
    size, count = 400, 28
    every = rates(size, count).every
    assert every > 1
    assert [rates(n, count).every for n in (48, 192)] == [1, 1]
    state, search = begun(size), Search(size, 1.0)
    for number in range(every + 1):
        state.table.counters["batches"] = number
        before = state["search.basis"].clone()
        points = draw(state, count)
        learn_from(state, points, points.square().sum(1))
        search.learn(points.numpy(), points.square().sum(1).numpy(), decompose=number % every == 0)
        assert torch.equal(before, state["search.basis"]) is (number % every > 0)
        close(state, search)


def test_seeds_draw_apart_and_again():
    points = [draw(begun(4, seed=seed), 5) for seed in (1, 1, 2)]
    assert torch.equal(points[0], points[1])
    assert not torch.equal(points[0], points[2])
