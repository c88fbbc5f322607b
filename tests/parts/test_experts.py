"""Experts in normalisation layers: published vectors in float64, and what must hold of any such layer."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import acclimate
from acclimate.core.state import State
from acclimate.methods.moetta import MoETTA
from acclimate.parts.experts import ExpertNorm, Experts, Routing, expert_norms, grow_experts, load, recorded
from conformance.models import MODELS, built, images

SAMPLES, TOKENS, WIDTH, COUNT = 3, 4, 5, 3


def close(found: Tensor, expected: object) -> None:
    """To the six decimals that are given."""
    torch.testing.assert_close(found, torch.as_tensor(expected, dtype=found.dtype), rtol=0, atol=6e-7)


def golden_input() -> Tensor:
    i, t, d = torch.meshgrid(*(torch.arange(n).double() for n in (SAMPLES, TOKENS, WIDTH)), indexing="ij")
    return torch.sin(0.5 * i + 0.8 * t + 1.1 * d) + 0.2 * i * torch.where(d % 2 == 0, -1.0, 1.0)


def golden_layer(active: int = 1, **settings: bool) -> ExpertNorm:
    d, n = torch.arange(WIDTH).double()[None], torch.arange(COUNT).double()[:, None]
    norm = nn.LayerNorm(WIDTH, eps=1e-6).double().requires_grad_(False)
    norm.weight.copy_(1 + 0.1 * d[0])
    norm.bias.copy_(0.05 * d[0])
    layer = grown(norm, Routing(experts=COUNT, active=active, **settings))
    values = {
        "router": torch.cos(0.9 * n + 0.4 * d),
        "scale": 0.01 * (n + 1) * (d - 2),
        "shift": 0.02 * (n - 1) * (d + 1),
    }
    for name, value in values.items():
        layer.experts.get_parameter(name).data = value
    return layer


def grown(norm: nn.Module, routing: Routing, randomness: float = 0.0) -> ExpertNorm:
    layer = ExpertNorm(norm.eval(), routing)
    layer.add_module("experts", Experts(layer, routing, randomness, torch.Generator().manual_seed(0)).double())
    return layer


def golden_loss(layer: ExpertNorm, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    with recorded({"norm": layer}):
        y = layer(x)
        balance = load({"norm": layer}).balance
    return y, balance, (y**2).mean() + 0.3 * balance


def test_one_expert_a_sample_as_published() -> None:
    layer, x = golden_layer(), golden_input()
    pooled = x.mean(1)
    close(pooled[0], [0.598098, 0.478526, -0.163983, -0.627290, -0.405090])
    p = layer.experts.probabilities(pooled)
    close(p, [[0.277783, 0.436964, 0.285254], [0.199603, 0.401133, 0.399264], [0.150560, 0.333179, 0.516260]])
    with recorded({"norm": layer}):
        y = layer(x)
        work = load({"norm": layer})
    assert work.counts.tolist() == [[0, 2, 1]]
    close(work.shares[0], [0, 2 / 3, 1 / 3])
    close(work.balance, 1.181110)
    close(y[0, 0], [-0.166810, 1.278813, 1.319282, -0.385798, -2.066834])
    close(y[1, 0], [0.311641, 1.655794, 0.410666, -0.574046, -1.991452])
    close(y[2, 0], [0.606859, 1.793759, -0.362804, -0.439984, -1.564710])


def test_gradients_as_published() -> None:
    layer = golden_layer()
    *_, loss = golden_loss(layer, golden_input())
    close(loss, 1.771338)
    scale, router = torch.autograd.grad(loss, [layer.experts.scale, layer.experts.router])
    assert torch.equal(scale[0], torch.zeros(WIDTH)), "exact zeros, of an expert that nobody came to"
    close(scale[1], [0.264244, 0.294948, 0.329969, 0.202952, 0.461663])
    close(scale[2], [0.075171, 0.160506, 0.266758, 0.114142, 0.175087])
    close(router[0], [-0.032753, -0.031727, 0.040551, 0.031934, 0.024999])


def test_two_experts_a_sample_as_published() -> None:
    layer, x = golden_layer(active=2), golden_input()
    coefficients, mask = layer.routing.choose(layer.experts.probabilities(x.mean(1)))
    assert mask.tolist() == [[0, 1, 1]] * 3
    close(coefficients[:, 1], [0.605031, 0.501167, 0.392234])
    close(coefficients[:, 2], [0.394969, 0.498833, 0.607766])
    y, balance, loss = golden_loss(layer, x)
    close(balance, 1.186027)
    close(loss, 1.764587)
    close(y[0, 0], [-0.157538, 1.290118, 1.342980, -0.355803, -2.039772])


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("active", [1, 2, 3])
def test_gradients_are_those_of_written_out_mixing(active: int, normalised: bool) -> None:
    """Against samples one by one, each with its chosen rows."""
    layer, x = golden_layer(active, normalised=normalised), golden_input().requires_grad_()
    *_, found = golden_loss(layer, x)
    tensors = [x, *layer.experts.parameters()]
    gradients = torch.autograd.grad(found, tensors)

    p = (x.mean(1) @ layer.experts.router.T + layer.experts.router_bias).softmax(1)
    outputs, counts = [], torch.zeros(COUNT, dtype=torch.float64)
    for row, probability in zip(x, p, strict=True):
        chosen = probability.argsort(descending=True)[:active].tolist()
        under = sum(probability[n].detach() for n in chosen)
        weight, bias = layer.weight, layer.bias
        for n in chosen:
            c = probability[n] / (under if normalised else probability[n].detach())
            weight, bias = weight + c * layer.experts.scale[n], bias + c * layer.experts.shift[n]
            counts[n] += 1
        centred = row - row.mean(-1, keepdim=True)
        outputs.append(centred / ((centred**2).mean(-1, keepdim=True) + layer.eps).sqrt() * weight + bias)
    balance = COUNT * (counts / counts.sum() * p.mean(0)).sum()
    expected = (torch.stack(outputs) ** 2).mean() + 0.3 * balance
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradients, torch.autograd.grad(expected, tensors))


def test_the_answer_is_the_same_however_sure_the_router_is() -> None:
    """Of one expert the coefficient is exactly 1."""
    layer, x = golden_layer(), golden_input()
    sure = copy.deepcopy(layer)
    sure.experts.router.data *= 5
    assert torch.equal(layer(x), sure(x))


def test_a_router_without_gradient_learns_from_the_balance_alone() -> None:
    layer, x = golden_layer(router_gradient=False), golden_input()
    y, balance, _ = golden_loss(layer, x)
    (nothing,) = torch.autograd.grad(y.square().sum(), [layer.experts.router], allow_unused=True, retain_graph=True)
    (something,) = torch.autograd.grad(balance, [layer.experts.router])
    assert nothing is None
    assert something.abs().sum() > 0


def test_a_penalty_moves_choices_and_coefficients_and_no_probability() -> None:
    p = torch.tensor([[0.5, 0.3, 0.2]], requires_grad=True)
    penalty = torch.tensor([0.4, 0.0, 0.05])
    coefficients, mask = Routing(experts=3, active=2).choose(p, penalty)
    assert mask.tolist() == [[0, 1, 1]]
    torch.testing.assert_close(coefficients, torch.tensor([[0, 0.3 / 0.45, 0.15 / 0.45]]))
    (slope,) = torch.autograd.grad(coefficients.sum(), [p])
    torch.testing.assert_close(slope, torch.tensor([[0, 1 / 0.45, 1 / 0.45]]))


NORMS = {
    "tokens": (lambda: nn.LayerNorm(6), (4, 7, 6), (1,)),
    "vectors": (lambda: nn.LayerNorm(6), (4, 6), ()),
    "windows": (lambda: nn.LayerNorm(6), (4, 3, 5, 6), (1, 2)),
    "group": (lambda: nn.GroupNorm(3, 6), (4, 6, 5, 5), (2, 3)),
    "group, no positions": (lambda: nn.GroupNorm(2, 6), (4, 6), ()),
    "batch": (lambda: nn.BatchNorm2d(6), (4, 6, 5, 5), (2, 3)),
    "batch of sequences": (lambda: nn.BatchNorm1d(6), (4, 6, 5), (2,)),
    "batch of vectors": (lambda: nn.BatchNorm1d(6), (4, 6), ()),
}


@pytest.mark.parametrize("kind", NORMS)
def test_every_sample_is_as_by_a_norm_of_its_own(kind: str) -> None:
    """Row by row the layer is the plain norm with the weight and bias of the expert that the row's mean leads to."""
    make, shape, inner = NORMS[kind]
    norm = make().double().requires_grad_(False)
    norm.weight.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(1))
    norm.bias.uniform_(-1, 1, generator=torch.Generator().manual_seed(2))
    plain, layer = copy.deepcopy(norm).eval(), grown(norm, Routing(experts=4), randomness=0.7)
    noise = torch.Generator().manual_seed(3)
    x = torch.randn(shape, generator=noise).double()
    x += 2 * torch.randn(4, *(1 if axis in inner else size for axis, size in enumerate(shape) if axis), generator=noise)
    assert layer(x).shape == x.shape
    chosen = set[int]()
    for number in range(4):
        a = x[number].mean([axis - 1 for axis in inner]) if inner else x[number]
        best = int((layer.experts.router @ a + layer.experts.router_bias).argmax())
        chosen.add(best)
        own = copy.deepcopy(plain)
        own.weight.copy_(layer.weight + layer.experts.scale.data[best])
        own.bias.copy_(layer.bias + layer.experts.shift.data[best])
        torch.testing.assert_close(layer(x)[number], own(x)[number])
    assert len(chosen) > 1


def test_random_experts_are_as_long_as_asked() -> None:
    layer = grown(nn.LayerNorm(64), Routing(experts=5), randomness=0.1)
    torch.testing.assert_close(layer.experts.scale.norm(dim=1), torch.full((5,), 0.8).double())
    assert torch.equal(layer.experts.shift, torch.zeros(5, 64)), "no longer than a bias of zeros"


def test_the_router_begins_with_the_variance_of_xavier() -> None:
    router = grown(nn.LayerNorm(2000), Routing(experts=50)).experts.router.detach()
    assert float(router.var()) == pytest.approx(2 / 2050, rel=0.02)


def test_a_layer_that_runs_twice_counts_both_times() -> None:
    """As if all its rows had come at once."""
    twice, once, x = golden_layer(), golden_layer(), golden_input()
    with recorded({"norm": twice}):
        twice(x[:2])
        twice(x[2:])
        found = load({"norm": twice})
    with recorded({"norm": once}):
        once(x)
        expected = load({"norm": once})
    torch.testing.assert_close(found.balance, expected.balance)
    assert torch.equal(found.counts, expected.counts)


def test_only_forwards_with_a_graph_count() -> None:
    layer, x = golden_layer(), golden_input()
    with recorded({"norm": layer}):
        with torch.no_grad():
            layer(x)
        layer(x)
        assert len(layer.routes) == 1
    assert layer.routes is None


def test_one_decision_for_all_rows_is_that_of_their_mean() -> None:
    layer, x = golden_layer(per_sample=False), golden_input()
    best = int((layer.experts.router @ x.mean((0, 1))).argmax())
    expected = F.layer_norm(
        x, (WIDTH,), layer.weight + layer.experts.scale[best], layer.bias + layer.experts.shift[best], layer.eps
    )
    torch.testing.assert_close(layer(x), expected)


class Rectified(nn.GroupNorm):
    """Norm and activation in one."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(super().forward(x))


class Rewritten(nn.LayerNorm):
    """The same computation under a forward of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)


class ChannelsFirst(nn.LayerNorm):
    """Layer norm over the channels of images [N, C, H, W]."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Fused(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.relu(super().forward(x))


class Mixed(nn.Module):
    """One norm of each kind, most of which cannot have experts."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norms = nn.Sequential(
            nn.GroupNorm(2, 8),
            Rectified(2, 8),
            ChannelsFirst(8),
            Fused(8),
            nn.GroupNorm(2, 8, affine=False),
            nn.LayerNorm([8, 8, 8]),
            nn.InstanceNorm2d(8, affine=True),
            nn.BatchNorm2d(8),
        )
        self.tokens = nn.Sequential(nn.LayerNorm(8, bias=False), Rewritten(8))
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norms(self.stem(x)).flatten(2).transpose(1, 2)
        return self.head(self.tokens(x).mean(1))


def test_norms_that_compute_something_else_stay_as_they_are() -> None:
    adapted = acclimate.adapt(built(Mixed), MoETTA(freeze_first=0))
    assert list(expert_norms(adapted.module)) == ["norms.0", "norms.7", "tokens.1"]
    reference = acclimate.adapt(built(Mixed), "bn")
    with adapted.frozen(), reference.frozen():
        torch.testing.assert_close(adapted(images(0)), reference(images(0)))
    for number in range(2):
        adapted(images(number))
    assert set(adapted.last.detail("largest_share")) == {"norms.0", "norms.7", "tokens.1"}


@pytest.mark.parametrize(("freeze", "kept"), [(None, 10), (0, 11), (4, 7), (99, 1)])
def test_the_first_norms_stay_frozen_and_the_last_never(freeze: int | None, kept: int) -> None:
    model = nn.Sequential(*(nn.LayerNorm(4) for _ in range(11)), nn.Linear(4, 2))
    names = grow_experts(State(model), Routing(), freeze, 0.0)
    assert names == [str(number) for number in range(11 - kept, 11)]


def test_three_tenths_stay_frozen_in_deep_models() -> None:
    """15 of 49, as published for the deeper of two transformers."""
    model = nn.Sequential(*(nn.LayerNorm(4) for _ in range(49)), nn.Linear(4, 2))
    assert len(grow_experts(State(model), Routing(), None, 0.0)) == 34


def test_a_model_without_such_norms_is_told() -> None:
    model = nn.Sequential(nn.InstanceNorm2d(3, affine=True), nn.Flatten(), nn.Linear(192, 5))
    with pytest.raises(ValueError, match="experts in batch, group or layer norms with weight and bias, but Sequential"):
        acclimate.adapt(model, "moetta")


def test_hooks_of_users_see_the_whole_layer() -> None:
    model = MODELS["vit"][0]()
    seen: list[Tensor] = []
    model.norm3.register_forward_hook(lambda module, inputs, output: seen.append(output.detach()))
    adapted = acclimate.adapt(model, MoETTA(learning_rate=0.1))
    adapted(images(0))
    adapted(images(1))
    torch.testing.assert_close(adapted.module.head(seen[-1].mean(1)).detach(), _frozen_before(model, images(1)))


def _frozen_before(model: nn.Module, x: Tensor) -> Tensor:
    other = acclimate.adapt(model, MoETTA(learning_rate=0.1))
    other(images(0))
    with other.frozen():
        return other(x)


@pytest.mark.parametrize("norm_first", [True, False])
def test_torchs_fused_transformer_layers_do_not_go_round_the_experts(norm_first: bool) -> None:
    """Without gradients torch runs such a layer as one function of its tensors, past modules that stand in it."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True, norm_first=norm_first)
    model = built(lambda: nn.Sequential(nn.Flatten(2), nn.Linear(64, 8), layer, nn.Flatten(), nn.Linear(24, 5)))
    adapted = acclimate.adapt(model, MoETTA(learning_rate=0.1, freeze_first=0))
    before = adapted(images(1))
    with adapted.frozen():
        assert float((adapted(images(1)) - before).abs().max()) > 1e-3, "frozen answers are with what was learned"
        after = adapted(images(1))
    torch.testing.assert_close(adapted(images(1)), after)
