"""Stochastic restoration: an exact Bernoulli draw for each element, from few random numbers."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from acclimate.parts import restore as module
from acclimate.parts.restore import restore, scattered


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("rate", [0.0, 1e-9, 1e-3, 0.01, 0.5, 0.97, 1.0])
@pytest.mark.parametrize("count", [0, 1000, 300_000])
def test_the_number_drawn_is_binomial(rate, count):
    chosen = scattered(count, rate, seeded())
    assert chosen.dtype == torch.long
    assert bool((chosen.diff() > 0).all())
    assert len(chosen) == 0 or 0 <= int(chosen[0]) <= int(chosen[-1]) < count
    spread = math.sqrt(count * rate * (1 - rate))
    assert abs(len(chosen) - count * rate) <= 4 * spread + 1e-3


def test_every_subset_has_its_probability():
    """Of four things, each of the sixteen subsets as often as independent draws give it."""
    generator, rate, trials = seeded(1), 0.3, 20_000
    seen = dict.fromkeys(itertools.product((0, 1), repeat=4), 0)
    for _ in range(trials):
        chosen = set(scattered(4, rate, generator).tolist())
        seen[tuple(int(number in chosen) for number in range(4))] += 1
    for subset, times in seen.items():
        p = math.prod(rate if one else 1 - rate for one in subset)
        assert abs(times - trials * p) < 4.5 * math.sqrt(trials * p * (1 - p)), subset


def test_gaps_are_geometric():
    """`P(gap = k) = rate (1 - rate)^k`, for the first index as for every later gap."""
    rate = 0.05
    chosen = scattered(4_000_000, rate, seeded(2))
    gaps = chosen.diff(prepend=torch.tensor([-1])) - 1
    firsts = torch.tensor([int(scattered(10_000, rate, seeded(seed))[0]) for seed in range(4000)])
    for found in (gaps, firsts):
        for k in range(60):
            p = rate * (1 - rate) ** k
            times = int((found == k).sum())
            assert abs(times - len(found) * p) < 4.5 * math.sqrt(len(found) * p), k
        assert float((found >= 60).float().mean()) == pytest.approx((1 - rate) ** 60, rel=0.15)
    assert float(torch.corrcoef(torch.stack([gaps[:-1], gaps[1:]]).double())[0, 1]) == pytest.approx(0, abs=0.01)


def test_few_numbers_are_drawn(monkeypatch):
    drawn: list[int] = []
    original = torch.rand
    monkeypatch.setattr(module.torch, "rand", lambda n, **o: drawn.append(n) or original(n, **o))
    scattered(10_000_000, 1e-3, seeded())
    assert 10_000 <= sum(drawn) <= 11_000


def test_an_unlucky_draw_goes_on(monkeypatch):
    """Where the numbers drawn at once do not reach the end, more are drawn, from where they stopped."""
    original = torch.rand
    monkeypatch.setattr(module.torch, "rand", lambda n, **o: original(7, **o))
    chosen = scattered(5000, 0.2, seeded())
    assert abs(len(chosen) - 1000) < 4 * math.sqrt(800)
    whole = original(len(chosen) + 7, dtype=torch.float64, generator=seeded())
    expected = (torch.floor(torch.log1p(-whole) / math.log1p(-0.2)) + 1).cumsum(0) - 1
    assert torch.equal(chosen, expected[expected < 5000].long())


def test_any_layout_is_restored_by_element():
    """Elements are counted as an index counts them, however the tensor lies in memory."""
    shapes = [(6, 5, 3, 3), (40, 30), (), (17,)]
    sources = [torch.arange(math.prod(s) or 1).reshape(s).double() + 0.5 for s in shapes]
    plain = [torch.zeros(s, dtype=torch.float64) for s in shapes]
    wide = torch.zeros(30, 80, dtype=torch.float64)
    odd = [
        torch.zeros(6, 5, 3, 3, dtype=torch.float64).contiguous(memory_format=torch.channels_last),
        wide.T[::2],
        torch.zeros((), dtype=torch.float64),
        torch.zeros(17, 2, dtype=torch.float64)[:, 1],
    ]
    restore(plain, sources, 0.4, seeded(3))
    restore(
        odd, [s.contiguous(memory_format=torch.channels_last) if s.ndim == 4 else s for s in sources], 0.4, seeded(3)
    )
    chosen = scattered(270 + 1200 + 1 + 17, 0.4, seeded(3))
    flat = torch.zeros(1488, dtype=torch.float64)
    flat[chosen] = torch.cat([s.flatten() for s in sources])[chosen]
    assert torch.equal(torch.cat([t.flatten() for t in plain]), flat)
    assert torch.equal(torch.cat([t.flatten() for t in odd]), flat)
    assert torch.equal(wide[:, 1::2], torch.zeros(30, 40, dtype=torch.float64))


def test_the_ends_of_the_rate():
    source, target = torch.rand(50, generator=seeded()), torch.zeros(50)
    restore([target], [source], 0.0, seeded())
    assert not target.any()
    restore([target], [source], 1.0, seeded())
    assert torch.equal(target, source)
