"""Batches folded into one forward are normalised as if they had come one by one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import acclimate
from acclimate.adapted import Adapted
from acclimate.core.inputs import Call
from acclimate.normalization.alpha import AlphaStatistics
from methods.reference import small_net, stream

NORMALIZATIONS = {
    "batch": "batch",
    "source": "source",
    "alpha": "alpha",
    "prior": AlphaStatistics(prior=16),
    "ema": "ema",
}


class Activated(nn.BatchNorm2d):
    """Norm and activation in one layer, with a forward of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).relu()


def with_statistics(net: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(5)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            module.running_mean.copy_(torch.randn(module.num_features, generator=generator) * 0.3)
            module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
    return net


def own_kind(**options: bool) -> nn.Module:
    net = small_net()
    norm = Activated(8, **options).double().eval()
    norm.weight.data.copy_(net[4].weight)
    net[4] = norm
    return with_statistics(net)


def without_statistics() -> nn.Module:
    net = small_net()
    net[4] = nn.BatchNorm2d(8, track_running_stats=False).double().eval()
    return with_statistics(net)


def begun(net: nn.Module, normalization: str | AlphaStatistics) -> Adapted:
    """Three batches in, so that running statistics have moved, with the books open for one more."""
    adapted = acclimate.adapt(net, "source", normalization=normalization)
    for x in stream(3):
        adapted(x)
    adapted.state.begin(Call((stream(4)[3],), {}, 0))
    return adapted


def counted(adapted: Adapted) -> list[int]:
    rows: list[int] = []
    adapted.module.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    return rows


@torch.no_grad()
def folded_and_single(adapted: Adapted) -> tuple[Tensor, Tensor]:
    parts = stream(4, seed=9)
    single = torch.cat([adapted.state.forward(x, answering=False) for x in parts])
    return adapted.state.forward(torch.cat(parts), answering=False, groups=4), single


@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_folded_batches_equal_single_ones(name):
    adapted = begun(with_statistics(small_net()), NORMALIZATIONS[name])
    rows = counted(adapted)
    folded, single = folded_and_single(adapted)
    assert torch.allclose(folded, single, rtol=0, atol=1e-12)
    assert rows == [12, 12, 12, 12, 48]


@pytest.mark.parametrize("name", ["batch", "alpha", "prior"])
def test_statistics_over_all_groups_would_be_others(name):
    """What the fold is for: without groups, one batch's statistics are the other's too."""
    adapted = begun(with_statistics(small_net()), NORMALIZATIONS[name])
    _, single = folded_and_single(adapted)
    with torch.no_grad():
        mixed = adapted.state.forward(torch.cat(stream(4, seed=9)), answering=False)
    assert float((mixed - single).abs().max()) > 1e-3


@pytest.mark.parametrize(
    ("net", "normalization"),
    [(own_kind, "batch"), (lambda: own_kind(track_running_stats=False), "source"), (without_statistics, "source")],
    ids=["own kind", "own kind without statistics", "stock without statistics"],
)
def test_layers_that_cannot_fold_run_one_group_after_another(net, normalization):
    adapted = begun(net(), normalization)
    rows = counted(adapted)
    folded, single = folded_and_single(adapted)
    assert torch.equal(folded, single)
    assert rows == [12] * 8


def test_an_own_kind_with_its_source_statistics_folds():
    adapted = begun(own_kind(), "source")
    rows = counted(adapted)
    folded, single = folded_and_single(adapted)
    assert torch.allclose(folded, single, rtol=0, atol=1e-12)
    assert rows[-1] == 48


@pytest.mark.parametrize("net", [small_net, own_kind])
def test_gradients_of_folded_batches(net):
    adapted = acclimate.adapt(with_statistics(net()), "tent")
    state, parts = adapted.state, stream(3, seed=9)
    state.begin(Call((parts[0],), {}, 0))
    folded = state.forward(torch.cat(parts), answering=False, groups=3)
    together = state.gradients((folded**2).sum())
    single = [state.gradients((state.forward(x, answering=False) ** 2).sum()) for x in parts]
    for name, gradient in together.items():
        assert torch.allclose(gradient, sum(each[name] for each in single), rtol=1e-9, atol=1e-9), name


def test_groups_end_with_the_forward():
    """A forward that raises leaves no group behind."""
    adapted = begun(small_net(), "batch")
    with pytest.raises(RuntimeError):
        adapted.state.forward(torch.zeros(4, 5, 8, 8, dtype=torch.float64), answering=False, groups=2)
    assert all((layer.groups, layer.phase) == (1, "answer") for layer in adapted.state.layers)


class Weighted(nn.Module):
    """Takes one more number for each row."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        return self.net(x) * weights[:, None]


@pytest.mark.parametrize("net", [small_net, own_kind], ids=["folds", "one after another"])
def test_further_arguments_follow_the_rows(net):
    adapted = acclimate.adapt(Weighted(with_statistics(net())), "source", normalization="batch")
    x, weights = stream(1)[0], torch.linspace(0.5, 2, 12, dtype=torch.float64)
    adapted.state.begin(Call((x, weights), {}, 0))
    views = [x * 0.9, x.flip(-1), x * 0.5]
    with torch.no_grad():
        single = torch.cat([adapted.state.forward(view, answering=False) for view in views])
        rows = torch.arange(12).repeat(3)
        folded = adapted.state.forward(torch.cat(views), answering=False, groups=3, rows=rows)
    assert torch.allclose(folded, single, rtol=0, atol=1e-12)
