"""Shallow statistics against the formulas, layer by layer in float64, and what they leave alone."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

import acclimate
from acclimate.core.inputs import Call
from acclimate.core.normalization import convert
from acclimate.core.table import Table
from acclimate.normalization.shallow import SHARE, SPREAD, ShallowStatistics
from normalization.layered import deep_net, images, oracle


def adapted(net: nn.Module, **settings: object) -> acclimate.Adapted:
    return acclimate.adapt(net, "bn", normalization=ShallowStatistics(**settings))


@pytest.mark.parametrize("count", [1, 4, 20])
@pytest.mark.parametrize("settings", [{}, {"depth": 0.25, "prior": 0.0}, {"depth": 1.0, "prior": 2.5}])
def test_equals_the_formula(settings, count):
    net, x = deep_net(), images(count, mixed=False)
    assert torch.allclose(adapted(net, **settings)(x), oracle(net, x, **settings)[0], rtol=0, atol=1e-10)


def test_no_depth_is_the_source_and_all_depth_without_prior_the_batch():
    net, x = deep_net(), images(6, mixed=False)
    assert torch.allclose(adapted(net, depth=0.0)(x), net(x), atol=1e-12)
    batch = acclimate.adapt(net, "bn")(x)
    assert torch.allclose(adapted(net, depth=1.0, prior=0.0)(x), batch, atol=1e-10)


@pytest.mark.parametrize("groups", ["auto", "always"])
@pytest.mark.parametrize("mixed", [False, True])
def test_groups_where_domains_mix(groups, mixed):
    """The spread of the oracle is on the expected side of the border, and what is grouped follows from it."""
    net, x = deep_net(), images(24, mixed)
    expected, spread = oracle(net, x, groups=groups)
    assert (float(spread) > 0.54) == mixed
    ours = adapted(net, groups=groups)
    assert torch.allclose(ours(x), expected, rtol=0, atol=1e-9)
    plain = oracle(net, x)[0]
    assert torch.allclose(expected, plain) == (groups == "auto" and not mixed)
    if groups == "auto":
        assert float(ours.state.table.slots[SPREAD].tensor) == pytest.approx(float(spread), abs=1e-6)


def test_batches_too_small_for_groups_have_none():
    net, x = deep_net(), images(15, mixed=True)
    assert torch.allclose(adapted(net, groups="always")(x), oracle(net, x)[0], atol=1e-10)
    assert not torch.allclose(adapted(net, groups="always", least=15)(x), oracle(net, x)[0], atol=1e-3)


def test_the_spread_is_that_of_the_last_answer():
    """Of a batch too small for groups there is none; groups and followed deep layers go together."""
    net = deep_net()
    ours = adapted(net, groups="auto", follow=True)
    ours.state.table.slots[SHARE].tensor.fill_(1.0)
    for count, mixed in ((24, True), (15, True), (16, False)):
        x = images(count, mixed, seed=count)
        expected, spread = oracle(net, x, share=1.0, groups="auto" if count >= 16 else "never")
        assert torch.allclose(ours(x), expected, rtol=0, atol=1e-6)
        found = float(ours.state.table.slots[SPREAD].tensor)
        assert found == pytest.approx(float(spread) if count >= 16 else 0, abs=1e-6)


@pytest.mark.parametrize("groups", ["auto", "always"])
def test_rows_without_positions_have_no_groups(groups):
    net = nn.Sequential(*(part for _ in range(10) for part in (nn.Linear(4, 4), nn.BatchNorm1d(4)))).double().eval()
    rows = images(20, mixed=True).flatten(1)[:, :4]
    ours, x = adapted(net, groups=groups, depth=1.0, prior=5.0), rows
    with torch.no_grad():
        for layer in net:
            if isinstance(layer, nn.BatchNorm1d):
                mean, variance = 0.8 * x.mean(0), 0.2 + 0.8 * x.var(0, correction=0)
                x = (x - mean) / (variance + layer.eps).sqrt()
            else:
                x = layer(x)
        assert torch.allclose(ours(rows), x, rtol=0, atol=1e-9)
        assert torch.equal(ours(rows[:1]), net(rows[:1])), "a single row has no variance"


def test_the_share_of_deep_layers_is_state():
    net, x = deep_net(), images(12, mixed=False)
    ours = adapted(net, follow=True)
    assert torch.allclose(ours(x), oracle(net, x)[0], atol=1e-10)
    for share in (1.0, 0.25):
        ours.state.table.slots[SHARE].tensor.fill_(share)
        assert torch.allclose(ours(x), oracle(net, x, share=share)[0], atol=1e-10)
    ours.reset()
    assert torch.allclose(ours(x), oracle(net, x)[0], atol=1e-10)


def test_views_in_one_forward_have_statistics_and_groups_of_their_own():
    net = deep_net()
    both = [images(20, mixed=True), images(20, mixed=False, seed=1)]
    ours = acclimate.adapt(net, "tent", normalization=ShallowStatistics(groups="auto"))
    ours.state.begin(Call.of((torch.cat(both),), {}, indices=False))
    with torch.no_grad():
        together = ours.state.forward(torch.cat(both), answering=False, groups=2)
    apart = torch.cat([oracle(net, x, groups="auto")[0] for x in both])
    assert torch.allclose(together, apart, atol=1e-9)
    assert float(ours.state.table.slots[SPREAD].tensor) == 0, "only an answer leaves its spread"


def test_frozen_answers_and_merged_models_decide_by_themselves():
    net = deep_net()
    ours = adapted(net, groups="auto")
    ours(images(24, mixed=True))
    kept = float(ours.state.table.slots[SPREAD].tensor)
    x = images(24, mixed=False, seed=3)
    with ours.frozen():
        assert torch.allclose(ours(x), oracle(net, x, groups="auto")[0], atol=1e-9)
    assert float(ours.state.table.slots[SPREAD].tensor) == kept, "a frozen answer leaves no trace"
    for mixed in (True, False):
        y = images(24, mixed, seed=4)
        assert torch.allclose(ours.merged()(y), oracle(net, y, groups="auto")[0], atol=1e-9)


def test_gradients_go_through_the_statistics():
    """Against finite differences, with groups and without."""
    net = deep_net()
    clone = copy.deepcopy(net)
    convert(clone, ShallowStatistics(groups="always", least=2), Table())
    x = images(4, mixed=True)
    weight = clone[0].weight
    clone(x).square().sum().backward()
    direction = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    values = []
    with torch.no_grad():
        for sign in (1, -1):
            weight.add_(direction, alpha=sign * 1e-6)
            values.append(float(clone(x).square().sum()))
            weight.sub_(direction, alpha=sign * 1e-6)
    assert float((weight.grad * direction).sum()) == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-4)


def test_norms_it_cannot_follow_stay_as_they_are():
    class Own(nn.BatchNorm2d):
        def forward(self, x):
            return super().forward(x).relu()

    bare = nn.BatchNorm2d(3, track_running_stats=False)
    net = nn.Sequential(Own(3), bare, nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(27, 2)).eval()
    ours = adapted(net)
    assert type(ours.module[0]) is Own and type(ours.module[1]) is nn.BatchNorm2d
    x = torch.rand(5, 3, 3, 3)
    assert torch.allclose(ours(x), net(x), atol=1e-6), "the third of three layers is deep"


@pytest.mark.parametrize(
    ("setting", "value"),
    [("depth", 1.5), ("prior", -1.0), ("groups", "some"), ("level", math.nan), ("least", 1), ("watch", -0.1)],
)
def test_settings_out_of_range(setting, value):
    with pytest.raises(ValueError, match=setting):
        ShallowStatistics(**{setting: value})
