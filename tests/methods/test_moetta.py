"""MoETTA against an oracle in float64 that is written from the formulas, and what must hold of its steps."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import acclimate
from acclimate.adapted import Adapted
from acclimate.core.state import State
from acclimate.methods.moetta import MoETTA
from acclimate.models.transformer import VisionTransformer
from acclimate.normalization.alpha import AlphaStatistics
from conformance.models import MODELS, built, images, tokens
from methods.reference import entropy, small_net, stream

CLASSES = 4
NORMS = ("1", "4")
Statistics = Callable[[Tensor, nn.BatchNorm2d], tuple[Tensor, Tensor]]


def by_batch(x: Tensor, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    return x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)


def by_alpha(x: Tensor, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=1)
    return 0.7 * norm.running_mean + 0.3 * mean, 0.7 * norm.running_var + 0.3 * variance


class Oracle:
    """The step, formula by formula, sample by sample, from the tensors that an adaptation starts with."""

    def __init__(self, adapted: Adapted, statistics: Statistics) -> None:
        self.net, self.method, self.statistics = small_net(), adapted.method, statistics
        self.theta = {name: w.detach().clone().requires_grad_() for name, w in adapted.state.weights.items()}
        self.speed = {name: torch.zeros_like(w) for name, w in self.theta.items()}
        self.penalty = {name: torch.zeros(self.method.experts).double() for name in NORMS}
        self.means: list[float] = []

    def norm(self, name: str, x: Tensor) -> Tensor:
        norm, method = self.net.get_submodule(name), self.method
        mean, variance = self.statistics(x, norm)
        at = lambda v: v[:, None, None]  # noqa: E731
        normalised = (x - at(mean)) / at((variance + norm.eps).sqrt())
        key = f"{name}.experts"
        if f"{key}.scale" not in self.theta:
            return normalised * at(norm.weight) + at(norm.bias)
        scale, shift, router, bias = (
            self.theta[f"{key}.{each}"] for each in ("scale", "shift", "router", "router_bias")
        )
        p = (x.mean((2, 3)) @ router.T + bias).softmax(1)
        counts, rows = torch.zeros(method.experts).double(), []
        for one, probability in zip(normalised, p, strict=True):
            biased = probability - self.penalty[name]
            chosen = biased.argsort(descending=True)[: method.active]
            c = biased[chosen] / biased[chosen].detach().sum()
            counts[chosen] += 1
            rows.append(one * at(norm.weight + c @ scale[chosen]) + at(norm.bias + c @ shift[chosen]))
        self.balance = self.balance + method.experts * (counts / counts.sum() * p.mean(0)).sum()
        if method.route_penalty:
            moved = self.penalty[name] + counts * method.route_penalty / (1 + method.penalty_decay * len(self.means))
            self.penalty[name] = moved - moved.min()
        return torch.stack(rows)

    def forward(self, x: Tensor) -> Tensor:
        self.balance = torch.zeros(()).double()
        for name, module in self.net.named_children():
            x = self.norm(name, x) if name in NORMS else module(x)
        return x

    def step(self, x: Tensor) -> Tensor:
        method, z = self.method, self.forward(x)
        doubt = entropy(z)
        self.means.append(float(doubt.detach().mean()))
        mean = sum(self.means) / len(self.means)
        reference = method.margin * math.log(CLASSES)
        kept = doubt.detach() <= (mean if method.dynamic_threshold else reference)
        if not method.selective:
            kept = torch.ones_like(kept)
        weight = torch.exp(reference - doubt.detach()) if method.entropy_weights else torch.ones_like(doubt.detach())
        loss = (weight * doubt)[kept].mean() if kept.any() else torch.zeros(())
        loss = loss + method.balance * (mean if method.dynamic_balance else 1.0) * self.balance
        gradients = torch.autograd.grad(loss, list(self.theta.values()), allow_unused=True, materialize_grads=True)
        with torch.no_grad():
            for (name, tensor), gradient in zip(self.theta.items(), gradients, strict=True):
                self.speed[name].mul_(method.momentum).add_(gradient)
                tensor.sub_(method.learning_rate * self.speed[name])
        self.kept, self.loss = int(kept.sum()), float(loss.detach())
        return z.detach()


SETTINGS: dict[str, MoETTA] = {
    "default": MoETTA(),
    "all norms": MoETTA(freeze_first=0),
    "two at once": MoETTA(active=2, freeze_first=0),
    "constant threshold": MoETTA(dynamic_threshold=False, margin=0.8),
    "nobody selected": MoETTA(dynamic_threshold=False, margin=0.0),
    "constant balance": MoETTA(dynamic_balance=False),
    "no weights": MoETTA(entropy_weights=False),
    "no selection": MoETTA(selective=False, balance=0.0),
    "penalty": MoETTA(route_penalty=0.02, penalty_decay=0.5, freeze_first=0, active=2),
}


@pytest.mark.parametrize("statistics", ["batch", "alpha"])
@pytest.mark.parametrize("name", SETTINGS)
def test_steps_are_those_of_the_formulas(name: str, statistics: str) -> None:
    method = dataclasses.replace(
        SETTINGS[name],
        learning_rate=0.05,
        experts=5,
        normalization=AlphaStatistics(source_weight=0.7) if statistics == "alpha" else "batch",
    )
    adapted = acclimate.adapt(small_net(), method)
    oracle = Oracle(adapted, by_alpha if statistics == "alpha" else by_batch)
    for x in stream(4):
        found, expected = adapted(x), oracle.step(x)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
        values = adapted.last.values
        assert adapted.last.updated
        assert values["selected"] == oracle.kept
        assert values["loss"] == pytest.approx(oracle.loss)
        assert values["balance"] == pytest.approx(float(oracle.balance.detach()))
    torch.testing.assert_close(
        {key: weight.data for key, weight in adapted.state.weights.items()},
        {key: tensor.data for key, tensor in oracle.theta.items()},
    )
    if method.route_penalty:
        for key in NORMS:
            torch.testing.assert_close(adapted.state[f"penalty.{key}"], oracle.penalty[key])


def test_the_threshold_is_the_mean_over_batches() -> None:
    """2.0, 2.6, 1.7, 3.1 give 2.0, 2.3, 2.1, 2.35, of which a fifth weighs the balance."""
    state = State(nn.Linear(2, 2).double())
    for name in ("steps", "mean_entropy"):
        state.declare(name, torch.zeros(()).double(), initial=0.0)
    found = [float(MoETTA._follow(state, torch.tensor(doubt).double())) for doubt in (2.0, 2.6, 1.7, 3.1)]
    assert found == pytest.approx([2.0, 2.3, 2.1, 2.35])


def transformer() -> nn.Module:
    return built(lambda: VisionTransformer(5, 8, width=16, depth=2, heads=2))


@pytest.mark.parametrize(
    "model", [*(name for name in MODELS if not name.startswith(("no_norm", "batch_norm_without")))]
)
def test_it_begins_as_the_source(model: str) -> None:
    """With the statistics that the model came with, before the first update."""
    factory, batch = MODELS[model]
    adapted = acclimate.adapt(factory(), "moetta", normalization="source")
    with torch.no_grad(), adapted.frozen():
        torch.testing.assert_close(adapted(batch(0)), factory().eval()(batch(0)), rtol=1e-6, atol=1e-6)
    assert adapted.last.forwards == 1


def test_nothing_but_experts_and_routers_moves() -> None:
    model = transformer()
    adapted = acclimate.adapt(model, MoETTA(learning_rate=0.1))
    for number in range(3):
        adapted(images(number))
    homes = dict(model.named_parameters())
    moved = {
        name for name, p in adapted.module.named_parameters() if name not in homes or not torch.equal(p, homes[name])
    }
    assert moved == adapted.state.weights.keys()
    assert {name.rpartition(".")[2] for name in moved} == {"scale", "shift", "router", "router_bias"}
    assert len(moved) == 4 * 4, "four of the five norms"


def test_experts_that_nobody_came_to_do_not_move() -> None:
    adapted = acclimate.adapt(transformer(), MoETTA(learning_rate=0.1))
    adapted(images(0))
    idle = 0
    shares = adapted.last.detail("expert_share")
    for name in adapted.last.detail("largest_share"):
        own = [shares[f"{name}[{number}]"] for number in range(9)]
        assert sum(own) == pytest.approx(1)
        assert max(own) == pytest.approx(adapted.last.detail("largest_share")[name])
        for number, share in enumerate(own):
            row = adapted.state.weights[f"{name}.experts.shift"][number]
            assert share > 0 or not row.any()
            idle += share == 0
    assert 0 < idle < 36
    assert any(bool(weight.any()) for name, weight in adapted.state.weights.items() if name.endswith("shift"))
    assert adapted.last.values["largest_share"] == pytest.approx(max(adapted.last.detail("largest_share").values()))


def test_without_balance_routers_rest_until_experts_differ() -> None:
    """With experts of zeros the coefficient of an expert changes nothing; from the second step on it does."""
    adapted = acclimate.adapt(transformer(), MoETTA(learning_rate=0.1, balance=0.0))
    begin = {name: w.detach().clone() for name, w in adapted.state.weights.items() if "router" in name}
    adapted(images(0))
    assert all(torch.equal(adapted.state.weights[name], value) for name, value in begin.items())
    adapted(images(1))
    assert not any(torch.equal(adapted.state.weights[name], value) for name, value in begin.items())


def test_batch_of_one_and_label_maps_and_tokens_are_learned_from() -> None:
    alone = acclimate.adapt(transformer(), "moetta")
    alone(images(0)[:1])
    assert alone.last.updated
    assert alone.last.selected == 1
    assert alone.last.values["largest_share"] == 1
    words = acclimate.adapt(MODELS["text"][0](), "moetta")
    words(tokens(0))
    assert words.last.updated
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        dense = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.ReLU(), nn.Conv2d(8, 5, 1))
    maps = acclimate.adapt(dense, "moetta")
    assert maps(images(0)).shape == (8, 5, 8, 8)
    assert maps.last.updated
    assert 0 < maps.last.selected < 8 * 64


def test_with_nobody_selected_the_balance_alone_is_learned() -> None:
    """The mean of no entropies is 0. Layers before a router move what it sees; none comes after the last one."""
    adapted = acclimate.adapt(transformer(), MoETTA(learning_rate=0.1, dynamic_threshold=False, margin=0.0))
    for number in range(2):
        adapted(images(number))
        assert adapted.last.selected == 0
    for name, weight in adapted.state.weights.items():
        assert bool(weight.any()) == (name not in ("norm.experts.scale", "norm.experts.shift")), name


def test_one_class_is_refused() -> None:
    model = built(lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.LayerNorm(8), nn.Linear(8, 1)))
    with pytest.raises(ValueError, match="one class"):
        acclimate.adapt(model, "moetta")(images(0))


def test_balancing_makes_the_load_more_even() -> None:
    """From the same start, and learning from nothing else."""
    alone = MoETTA(learning_rate=0.05, dynamic_threshold=False, margin=0.0, dynamic_balance=False)
    spread = []
    for balance in (1e-6, 1.0):
        adapted = acclimate.adapt(transformer(), dataclasses.replace(alone, balance=balance))
        for number in range(40):
            adapted(images(number))
        spread.append(adapted.last.values["balance"])
    assert spread[1] < spread[0]
    assert spread[1] == pytest.approx(4, rel=0.25), "one for each of four layers"


def test_a_penalty_makes_the_load_even_without_a_gradient() -> None:
    plain, penalised = (
        acclimate.adapt(transformer(), MoETTA(balance=0.0, learning_rate=1e-6, route_penalty=rate))
        for rate in (0.0, 0.01)
    )
    total = {id(plain): torch.zeros(36), id(penalised): torch.zeros(36)}
    for number in range(20):
        for adapted in (plain, penalised):
            adapted(images(number))
            total[id(adapted)] += torch.tensor(list(adapted.last.detail("expert_share").values()))
    largest = [counts.view(4, 9).amax(1).mean() / 20 for counts in total.values()]
    assert largest[1] < 0.6 * largest[0]


@pytest.mark.parametrize("model", ["class_token_vit", "residual"])
@pytest.mark.parametrize("memory", ["exact", "checkpointed", "checkpointed:exact"])
def test_memory_policies_change_no_step(model: str, memory: str) -> None:
    factory, batch = MODELS[model]
    method = MoETTA(learning_rate=0.05)
    plain, other = (acclimate.adapt(factory(), method, memory=policy) for policy in ("stock", memory))
    for number in range(3):
        torch.testing.assert_close(other(batch(number)), plain(batch(number)), rtol=1e-4, atol=1e-5)
    for name, weight in plain.state.weights.items():
        torch.testing.assert_close(other.state.weights[name], weight, rtol=1e-4, atol=1e-5)
    assert other.last.forwards == plain.last.forwards


@pytest.mark.parametrize("normalization", ["alpha", "ema", "source", "robust", "instance_aware", "find"])
def test_normalisations_run_under_the_experts(normalization: str, tmp_path: Path) -> None:
    """Statistics as without experts, and all of it saved, reset and gone on with."""
    factory, batch = MODELS["residual"]
    adapted = acclimate.adapt(factory(), MoETTA(learning_rate=0.05), normalization=normalization)
    reference = acclimate.adapt(factory(), "bn", normalization=normalization)
    torch.testing.assert_close(adapted(batch(0)), reference(batch(0)), rtol=1e-5, atol=1e-5)
    adapted(batch(1))
    adapted.save(tmp_path / "state")
    loaded = acclimate.load(factory(), tmp_path / "state")
    first = adapted(batch(2))
    assert torch.equal(loaded(batch(2)), first)
    adapted.reset()
    reference.reset()
    torch.testing.assert_close(adapted(batch(0)), reference(batch(0)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"experts": 0}, "experts must be a whole number of at least 1"),
        ({"experts": 3, "active": 4}, "active is 4, of 3 experts"),
        ({"balance": -1.0}, "balance must be at least 0"),
        ({"freeze_first": -1}, "freeze_first"),
        ({"margin": 1.2}, "margin must lie between 0 and 1"),
        ({"learning_rate": 0.0}, "learning_rate"),
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MoETTA(**wrong)
