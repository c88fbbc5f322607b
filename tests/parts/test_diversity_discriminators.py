"""Borders between scores: published lists, scipy's density, brute force, and decisions."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from acclimate.core.config import Configured
from acclimate.parts.diversity.decision import Discriminating
from acclimate.parts.diversity.discriminator import discriminators
from acclimate.parts.diversity.kde import Kde, kde_threshold
from acclimate.parts.diversity.otsu import Otsu, otsu_threshold
from acclimate.parts.diversity.quantile import Quantile
from acclimate.parts.diversity.reference import Reference


def scores(low: int, high: int) -> torch.Tensor:
    first = [0.10 + 0.002 * (i % 7) for i in range(low)]
    return torch.tensor(first + [0.20 + 0.003 * (i % 9) for i in range(high)], dtype=torch.float64)


EVEN, UNEVEN = scores(25, 25), scores(40, 10)
RISING = 0.1 + 0.001 * torch.arange(50, dtype=torch.float64)
EQUAL = torch.full((50,), 0.2, dtype=torch.float64)


def test_published_valley():
    valley = kde_threshold(EVEN)
    assert valley is not None
    assert valley == pytest.approx((0.157966, 0.105586, 8.02242, 0.211091, 7.76899), rel=1e-5)
    assert valley.low_density / valley.high_density == pytest.approx(1.03262, rel=1e-5)


@pytest.mark.parametrize(("score", "single"), [(0.100, True), (0.130, True), (0.180, False), (0.250, False)])
def test_published_decisions(score, single):
    decision = Discriminating().decide(score, EVEN)
    assert decision.single is single and decision.share == float(not single)
    assert decision.threshold == pytest.approx(0.157966, abs=1e-6)


def test_published_refusals():
    """Peaks too uneven, one peak only, equal scores: no border, so several domains whatever the score."""
    valley = kde_threshold(UNEVEN)
    assert valley is not None
    assert valley.value == pytest.approx(0.163800, abs=1e-6)
    assert valley.low_density / valley.high_density == pytest.approx(4.26835, rel=1e-5)
    assert kde_threshold(RISING) is None and kde_threshold(EQUAL) is None
    for kept in (UNEVEN, RISING, EQUAL):
        for score in (0.0, 0.1, 0.2, 1.0):
            decision = Discriminating().decide(score, kept)
            assert (decision.single, decision.threshold) == (False, None)
    assert Discriminating(discriminator=Kde(density_ratio=5)).decide(0.1, UNEVEN).single


def test_density_is_that_of_scipy():
    stats = pytest.importorskip("scipy.stats")
    generator = torch.Generator().manual_seed(3)
    for _ in range(20):
        parts = [torch.randn(60, generator=generator) * 0.02 + centre for centre in (0.2, 0.35, 0.5)]
        values = torch.cat(parts).double()
        density = stats.gaussian_kde(values.numpy())
        grid = torch.linspace(float(values.min()), float(values.max()), 1000, dtype=torch.float64)
        expected = torch.from_numpy(density(grid.numpy()))
        inner = range(1, 999)
        peaks = [i for i in inner if expected[i - 1] < expected[i] > expected[i + 1]]
        first, second = sorted(sorted(peaks, key=lambda i: -float(expected[i]))[:2])
        valleys = [i for i in inner if first < i < second and expected[i - 1] > expected[i] < expected[i + 1]]
        lowest = min(valleys, key=lambda i: float(expected[i]))
        found = kde_threshold(values)
        assert found is not None
        wanted = [grid[lowest], grid[first], expected[first], grid[second], expected[second]]
        assert list(found) == pytest.approx([float(value) for value in wanted], rel=1e-9)


def test_scores_that_are_no_numbers_are_dropped():
    dirty = torch.cat([EVEN, torch.tensor([math.nan, math.inf], dtype=torch.float64)])
    assert kde_threshold(dirty) == kde_threshold(EVEN)
    assert otsu_threshold(dirty) == otsu_threshold(EVEN)
    assert not Discriminating().decide(math.nan, EVEN).single


def test_otsu_against_every_cut():
    generator = torch.Generator().manual_seed(5)
    for count in (2, 3, 17, 60):
        values = (torch.rand(count, generator=generator, dtype=torch.float64) * 8).round() / 8 + torch.tensor(
            [0.0] * (count - 1) + [1.0]
        )
        total = float(((values - values.mean()) ** 2).mean())
        best = (-1.0, 0.0)
        distinct = sorted(set(values.tolist()))
        for below, above in itertools.pairwise(distinct):
            cut = (below + above) / 2
            low, high = values[values < cut], values[values > cut]
            spread = len(low) * len(high) / count**2 * float(high.mean() - low.mean()) ** 2
            best = max(best, (spread / total, -cut))
        found = otsu_threshold(values)
        assert found is not None
        cut, share = found
        assert share == pytest.approx(best[0])
        assert cut.low == pytest.approx(float(values[values < cut.value].mean()))
        assert cut.high == pytest.approx(float(values[values > cut.value].mean()))


def test_otsu_needs_no_balance_but_a_gap():
    found = otsu_threshold(UNEVEN)
    assert found is not None and found[0].value == pytest.approx(0.156)
    rule = Discriminating(discriminator="otsu")
    assert rule.decide(0.11, UNEVEN).single and not rule.decide(0.21, UNEVEN).single
    normal = torch.distributions.Normal(0.3, 0.05).icdf(torch.linspace(0.001, 0.999, 999, dtype=torch.float64))
    for kept, share in ((normal, 0.64), (RISING, 0.75)):
        cut = otsu_threshold(kept)
        assert cut is not None and cut[1] == pytest.approx(share, abs=0.01)
        assert not rule.decide(0.0, kept).single, "no two classes"


def test_quantile_takes_equal_scores_for_low():
    values = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5] * 2, dtype=torch.float64)
    rule = Discriminating(discriminator="quantile")
    assert [rule.decide(score, values).single for score in (0.1, 0.3, 0.3001, 0.5)] == [True, True, False, False]
    assert not rule.decide(0.1, values[:9]).single, "the warm-up"
    most = Discriminating(discriminator=Quantile(share=0.9, warm_up=1))
    assert most.decide(0.45, values).single


def test_reference_holds_from_the_first_score_on():
    medians = torch.tensor([0.1, 0.4], dtype=torch.float64)
    rule = Discriminating(discriminator="reference")
    none = torch.empty(0, dtype=torch.float64)
    assert rule.decide(0.199, none, medians=medians).single and not rule.decide(0.201, none, medians=medians).single
    assert not rule.decide(0.0, none).single
    otsu = Discriminating(discriminator=Otsu(fallback=Reference()))
    assert otsu.decide(0.15, RISING, medians=medians).single, "no cut of its own"
    assert not otsu.decide(0.18, UNEVEN, medians=medians).single, "its own cut at 0.156"


def test_warm_up_counts_scores():
    assert not Discriminating().decide(0.1, EVEN[1:]).single
    assert Discriminating(discriminator=Kde(warm_up=49)).decide(0.1, EVEN[1:]).single


@pytest.mark.parametrize(
    ("areas", "expected"),
    [((1,), "1000"), ((1, 2), "1100"), ((2, 3), "0110"), ((1, 4), "1001"), ((), "0000")],
)
def test_areas(areas, expected):
    rule = Discriminating(areas=areas)
    found = [rule.decide(score, EVEN).single for score in (0.10, 0.12, 0.18, 0.25)]
    assert "".join(str(int(each)) for each in found) == expected


def test_hysteresis_keeps_the_last_decision_near_the_border():
    rule, near, far = Discriminating(hysteresis=0.05), 0.160, 0.170  # 0.05 of the peaks' distance is 0.0053
    assert [rule.decide(near, EVEN, last).single for last in (None, True, False)] == [False, True, False]
    assert not rule.decide(far, EVEN, True).single
    assert not Discriminating().decide(near, EVEN, True).single


def test_soft_share():
    """`sigmoid((S - Q) / (0.1 IQR))`, with the quartiles as torch and numpy interpolate them."""
    rule = Discriminating(soft=True)
    quartiles = torch.quantile(EVEN, torch.tensor([0.25, 0.75], dtype=torch.float64))
    width = 0.1 * float(quartiles[1] - quartiles[0])
    for score in (0.12, 0.157, 0.16, 0.2):
        decision = rule.decide(score, EVEN)
        wanted = 1 / (1 + math.exp(-(score - decision.threshold) / width))
        assert decision.share == pytest.approx(wanted, rel=1e-9)
        assert decision.single == (score < decision.threshold)


@pytest.mark.parametrize("name", discriminators.classes())
def test_settings_survive_a_file(name):
    rule = Discriminating(discriminator=name, areas=(1,))
    assert isinstance(rule.rule, Configured)
    assert discriminators.build(rule.config()["discriminator"]) == rule.rule
    nested = Otsu(fallback=Reference(samples=10))
    assert discriminators.build(nested.config()) == nested


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"discriminator": "kd"}, "Did you mean kde"),
        ({"apex": "middle"}, "apex must be one of"),
        ({"score": "mean"}, "score must be one of"),
        ({"kept": 1}, "kept must be a whole number"),
        ({"areas": (5,)}, "areas must be one of"),
        ({"hysteresis": -1}, "hysteresis must be at least"),
    ],
)
def test_bad_settings(settings, match):
    with pytest.raises(ValueError, match=match):
        Discriminating(**settings)


@pytest.mark.parametrize(
    ("rule", "settings"),
    [
        (Kde, {"density_ratio": 0.5}),
        (Kde, {"points": 2}),
        (Kde, {"warm_up": 0}),
        (Otsu, {"separation": 1.5}),
        (Quantile, {"share": -0.1}),
        (Reference, {"batch_size": 1}),
        (Reference, {"batches": 0}),
    ],
)
def test_bad_rules(rule, settings):
    with pytest.raises(ValueError, match="must"):
        rule(**settings)
