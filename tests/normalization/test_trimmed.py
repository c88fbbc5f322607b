"""Trimmed statistics: the formula by loops, batch statistics without trimming, and what outliers can do."""

from __future__ import annotations

import math
import statistics

import pytest
import torch
from torch import Tensor, nn

import acclimate
from acclimate.normalization.trimmed import TrimmedStatistics
from normalization.test_statistics import Whole, fixture


def trimmed_mean(values: list[float], trim: float) -> float:
    """Sorted, cut at both ends, averaged; never everything cut."""
    cut = math.floor(trim * len(values))
    while len(values) - 2 * cut < 1:
        cut -= 1
    kept = sorted(values)[cut : len(values) - cut]
    return sum(kept) / len(kept)


def by_loops(x: Tensor, layer: nn.BatchNorm2d, trim: float) -> Tensor:
    y = torch.empty_like(x)
    for c in range(x.shape[1]):
        rows = [row.flatten().tolist() for row in x[:, c]]
        means = [statistics.fmean(row) for row in rows]
        variances = [statistics.pvariance(row) for row in rows]
        m = trimmed_mean(means, trim)
        v = trimmed_mean(variances, trim) + trimmed_mean([(mean - m) ** 2 for mean in means], trim)
        y[:, c] = (x[:, c] - m) / math.sqrt(v + layer.eps) * layer.weight[c] + layer.bias[c]
    return y


def answer(x: Tensor, trim: float) -> Tensor:
    return acclimate.adapt(Whole(fixture()[0]), "source", normalization=TrimmedStatistics(trim=trim))(x)


@pytest.mark.parametrize("trim", [0.0, 0.1, 0.17, 0.34, 0.5])
@pytest.mark.parametrize("count", [1, 2, 5, 6])
def test_values(trim, count):
    layer, x = fixture()
    with torch.no_grad():
        assert torch.allclose(answer(x[:count], trim), by_loops(x[:count], layer, trim), rtol=0, atol=1e-12)


def test_nothing_cut_off_is_batch_statistics():
    layer, x = fixture()
    batch = acclimate.adapt(Whole(layer), "bn")(x)
    assert torch.allclose(answer(x, 0.0), batch, rtol=0, atol=1e-12)
    assert not torch.allclose(answer(x, 0.17), batch, atol=0.05), "one of six at each end"


def test_one_half_is_the_median():
    values = torch.tensor([[3.0], [-1.0], [9.0], [4.0], [0.0]]).double()[..., None, None]
    x = torch.cat([values - 0.5, values + 0.5], 3)
    layer = nn.BatchNorm2d(1).double().eval()
    y = acclimate.adapt(Whole(layer), "source", normalization="trimmed:median")(x)
    m, v = statistics.median([3, -1, 9, 4, 0]), 0.25 + statistics.median([0, 16, 36, 1, 9])
    assert torch.allclose(y, (x - m) / math.sqrt(v + layer.eps), atol=1e-12)


def test_gradients():
    """On samples without ties, at which a sort has no derivative."""
    adapted = acclimate.adapt(Whole(fixture()[0]), "source", normalization=TrimmedStatistics(trim=0.2))
    x = torch.randn(6, 3, 2, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    assert torch.autograd.gradcheck(adapted.module, x.requires_grad_())


def batch_with(odd: int, seed: int) -> tuple[Tensor, Tensor]:
    """Twenty samples of three channels, and the same with some saturated: all white but for one black pixel."""
    generator = torch.Generator().manual_seed(seed)
    clean = torch.randn(20, 3, 4, 4, generator=generator, dtype=torch.float64) * 0.5 + 0.2
    spoiled = clean.clone()
    spoiled[:odd] = 1e3
    spoiled[:odd, :, 0, 0] = 0
    return clean, spoiled


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("odd", [1, 2, 4])
def test_outliers_move_the_others_boundedly(odd, seed):
    """`m` stays within the others' means and `v` below what they could give, however far the odd ones are."""
    clean, spoiled = batch_with(odd, seed)
    layer = nn.BatchNorm2d(3, affine=False).double().eval()
    adapted = acclimate.adapt(Whole(layer), "source", normalization=TrimmedStatistics(trim=odd / 20))
    y = adapted(spoiled)[odd:]
    good = clean[odd:]
    slope = (y[0, :, 0, 0] - y[0, :, 0, 1]) / (good[0, :, 0, 0] - good[0, :, 0, 1])  # 1 / sqrt(v + eps)
    m, v = good[0, :, 0, 0] - y[0, :, 0, 0] / slope, slope**-2 - layer.eps
    means, variances = good.mean((2, 3)), good.var((2, 3), correction=0)
    assert bool((means.amin(0) <= m).all()) and bool((m <= means.amax(0)).all())
    assert bool((variances.amin(0) <= v + 1e-9).all())
    assert bool((v <= variances.amax(0) + (means - m).square().amax(0) + 1e-9).all())


@pytest.mark.parametrize("trim", [0.1, 0.25, 0.5])
def test_answers_of_the_others_move_far_less_than_with_batch_statistics(trim):
    clean, spoiled = batch_with(2, 7)
    layer = nn.BatchNorm2d(3, affine=False).double().eval()
    moved = {}
    for name in ("batch", TrimmedStatistics(trim=trim)):
        adapted = acclimate.adapt(Whole(layer), "source", normalization=name)
        before, after = adapted(clean)[2:], adapted(spoiled)[2:]
        moved[str(name)] = float((after - before).norm() / before.norm())
    plain, ours = moved.values()
    assert plain > 0.9, "two of twenty are enough to wipe out the others"
    assert ours < 0.2 * plain


@pytest.mark.parametrize("bad", [-0.1, 0.6, "half"])
def test_bad_settings(bad):
    with pytest.raises(ValueError, match="trim must"):
        TrimmedStatistics(trim=bad)
