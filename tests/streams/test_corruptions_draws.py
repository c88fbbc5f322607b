"""The random numbers against SplitMix64 in plain integers, and against their distributions."""

import numpy as np
import pytest
import torch

from acclimate.streams.corruptions.draws import Draws, mix
from acclimate.streams.corruptions.poisson import poisson

stats = pytest.importorskip("scipy.stats")

MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15


def splitmix(state: int) -> int:
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & MASK
    return state ^ (state >> 31)


def signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def draws(count: int, seed: int = 0) -> Draws:
    return Draws.keyed(torch.arange(count), seed, "test")


def test_mixing_gives_the_published_sequence():
    # The first outputs of SplitMix64 seeded with 1234567, as commonly tabulated.
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    state = torch.tensor([signed((1234567 + k * GOLDEN) & MASK) for k in range(1, 5)])
    assert [value & MASK for value in mix(state).tolist()] == published


def test_words_are_those_of_the_formula():
    key = 0x123456789ABCDEF0
    words = Draws(torch.tensor([key])).words(3, 5).tolist()[0]
    start = splitmix((key + 3 * GOLDEN) & MASK)
    halves: list[int] = []
    for k in range(1, 4):
        output = splitmix((start + k * GOLDEN) & MASK)
        halves += [output & 0xFFFFFFFF, output >> 32]
    assert [word & 0xFFFFFFFF for word in words] == halves[:5]


def test_keys_differ_in_every_part():
    parts = [(i, s, label) for i in (0, 1, -1, 2**40) for s in (0, 1, -7) for label in ("fog-1", "fog-2")]
    keys = {int(Draws.keyed(torch.tensor([i]), s, label).keys) for i, s, label in parts}
    assert len(keys) == len(parts)


def test_uniform():
    sample = draws(50).uniform(0, 4000, low=-2.0, high=3.0)
    assert sample.min() >= -2 and sample.max() < 3
    assert stats.kstest(sample.flatten().numpy(), "uniform", args=(-2, 5)).pvalue > 1e-3
    assert stats.kstest(sample.mean(1).numpy(), "norm", args=(0.5, 5 / np.sqrt(12 * 4000))).pvalue > 1e-3


def test_normal():
    sample = draws(50).normal(0, 8000).flatten().double().numpy()
    count = len(sample)
    assert abs(sample.mean()) < 4 / np.sqrt(count)
    assert abs(sample.var() - 1) < 4 * np.sqrt(2 / count)
    assert abs(stats.skew(sample)) < 4 * np.sqrt(6 / count)
    assert abs(stats.kurtosis(sample)) < 4 * np.sqrt(24 / count)
    assert stats.kstest(sample, "norm").pvalue > 1e-3
    assert 4.2 < np.abs(sample).max() < 6.5


def test_normal_is_the_quantile_of_its_word():
    source = draws(40)
    words = source.words(0, 5000).long()
    words, values = words.flatten(), source.normal(0, 5000).flatten().double()
    tail = (torch.where(words < 0, ~words, words).double() + 0.5) / 2**32
    expected = torch.where(words < 0, 1.0, -1.0) * torch.special.ndtri(tail)
    assert (values - expected).abs().max() < 3e-6


def test_streams_and_samples_are_uncorrelated():
    source = draws(30)
    sample = torch.cat([source.normal(stream, 3000) for stream in range(4)])
    correlation = torch.corrcoef(sample) - torch.eye(len(sample))
    assert correlation.abs().max() < 5 / np.sqrt(3000)


@pytest.mark.parametrize(("low", "high"), [(-1, 1), (0, 5), (-4, 4), (0, 512)])
def test_integers(low: int, high: int):
    sample = draws(20).integers(0, 3000, low=low, high=high).flatten()
    counts = torch.bincount(sample - low, minlength=high - low)
    assert len(counts) == high - low
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3


@pytest.mark.parametrize("rate", [0.02, 0.7, 3.0, 30.0, 250.0, 500.0])
@pytest.mark.parametrize("fraction", [1.0, 0.6, 0.123456])
def test_poisson(rate: float, fraction: float):
    sample = poisson(torch.full((40, 2000), fraction), rate, draws(40)).flatten().double().numpy()
    mean = rate * fraction
    assert abs(sample.mean() - mean) < 4.5 * np.sqrt(mean / len(sample)) + rate / 130560
    assert abs(sample.var() - mean) < 5 * np.sqrt((2 * mean**2 + mean) / len(sample))
    support = np.arange(int(mean + 12 * np.sqrt(mean) + 12))
    expected = stats.poisson.pmf(support, mean) * len(sample)
    found = np.bincount(sample.astype(int), minlength=len(support))[: len(support)]
    common = expected > 20
    assert np.all(np.abs(found - expected)[common] < 5 * np.sqrt(expected[common]))


def test_poisson_of_nothing_is_nothing():
    assert poisson(torch.zeros(3, 100), 500.0, draws(3)).abs().max() == 0


def test_poisson_shortcut_agrees_with_the_distribution_function():
    fraction = (torch.arange(256) / 255).repeat(8, 20)
    counts = poisson(fraction, 75.0, draws(8))
    word = draws(8).words(0, fraction.shape[1]).long()
    uniform = ((word + 2**31).double() + 0.5) / 2**32
    exact = stats.poisson.ppf(uniform.numpy(), fraction.double().numpy() * 75)
    # ppf of a rate of zero is -1 or 0 by convention.
    assert np.array_equal(counts.numpy(), np.maximum(exact, 0))
