"""DATTA against an oracle in float64 written from the formulas, and its promises: who learns, and when."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import acclimate
from acclimate.functional import entropy
from acclimate.methods.datta import DATTA, batch_norm_affines
from acclimate.normalization.diversity import DiversityStatistics
from acclimate.parts.diversity.quantile import Quantile
from methods.reference import far_net as net
from methods.reference import stream

SLOT = "normalization.diversity.record"
RATE = 0.05


def batches(count: int) -> list[Tensor]:
    """Batches of even and of uneven colour, by turns of changing length."""
    made = []
    for number, x in enumerate(stream(count, size=10)):
        if number % 5 in (1, 2):
            x = x.clone()
            x[::2, 0] = 0.5 * x[::2, 0] + 0.5
            x[1::2, 2] *= 0.5
        made.append(x)
    return made


class Blend(nn.Module):
    """`m = rho mu_s + (1 - rho) mu_B`, `v = rho var_s + (1 - rho) var_B` with B the batch, over n - 1."""

    def __init__(self, source: nn.BatchNorm2d, switch: dict[str, float]) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(source.weight.data.clone()), nn.Parameter(source.bias.data.clone())
        self.mean, self.var, self.eps, self.switch = source.running_mean, source.running_var, source.eps, switch

    def forward(self, x: Tensor) -> Tensor:
        rho, n = self.switch["rho"], x.numel() // x.shape[1]
        mean = x.mean((0, 2, 3))
        var = ((x - mean[:, None, None]) ** 2).sum((0, 2, 3)) / (n - 1)
        m = (rho * self.mean + (1 - rho) * mean)[:, None, None]
        v = (rho * self.var + (1 - rho) * var)[:, None, None]
        return self.weight[:, None, None] * (x - m) / torch.sqrt(v + self.eps) + self.bias[:, None, None]


def oracle(model: nn.Sequential, xs: list[Tensor], warm_up: int) -> tuple[list[Tensor], nn.Module, list[bool]]:
    """Score, running median, blend, entropy and Nesterov's momentum, written out."""
    model, switch = copy.deepcopy(model), {"rho": 0.85}
    source = model[1].running_mean
    for place in (1, 4):
        model[place] = Blend(model[place], switch)
    weights = [p for place in (1, 4) for p in model[place].parameters()]
    velocity: list[Tensor | None] = [None] * len(weights)
    scores, answers, decisions = [], [], []
    for x in xs:
        features = model[0](x).detach()
        towards = features.mean((0, 2, 3)) - source
        away = features - source[:, None, None]
        product = (away * towards[:, None, None]).sum(1)
        cosine = product / (away.norm(dim=1) * towards.norm()).clamp_min(1e-10)
        angle = torch.arccos(cosine.mean((1, 2)).clamp(-1, 1))
        scores.append(float(((angle - angle.mean()) ** 2).mean().sqrt()))
        ordered = sorted(scores)
        middle = len(ordered) // 2
        median = ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
        single = len(scores) >= warm_up and min(scores) < max(scores) and scores[-1] <= median
        decisions.append(single)
        switch["rho"] = 0.60 if single else 0.85
        logits = model(x)
        answers.append(logits.detach())
        if not single:
            continue
        p = logits.softmax(1)
        gradients = torch.autograd.grad(-(p * p.log()).sum(1).mean(), weights)
        with torch.no_grad():
            for number, (weight, gradient) in enumerate(zip(weights, gradients, strict=True)):
                old = velocity[number]
                new = gradient.clone() if old is None else 0.9 * old + gradient
                velocity[number] = new
                weight.sub_(RATE * (gradient + 0.9 * new))
    return answers, model, decisions


def adapted_by(**settings) -> acclimate.Adapted:
    settings = {"discriminator": Quantile(warm_up=3), "learning_rate": RATE, **settings}
    return acclimate.adapt(net(), DATTA(**settings))


def test_against_the_oracle():
    xs = batches(14)
    expected, model, decisions = oracle(net(), xs, 3)
    assert 3 <= sum(decisions) <= 11, "both kinds are there"
    adapted = adapted_by()
    for x, answer, single in zip(xs, expected, decisions, strict=True):
        torch.testing.assert_close(adapted(x), answer, rtol=1e-9, atol=1e-9)
        assert adapted.last.values["single"] == float(single)
        assert adapted.last.values["rho"] == pytest.approx(0.60 if single else 0.85)
        assert (adapted.last.forwards, adapted.last.backwards) == (1, int(single))
    for place in (1, 4):
        torch.testing.assert_close(adapted.module[place].weight.data, model[place].weight.data, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(adapted.module[place].bias.data, model[place].bias.data, rtol=1e-9, atol=1e-9)


def tensors(adapted: acclimate.Adapted) -> dict[str, Tensor]:
    return {name: slot.tensor.detach().clone() for name, slot in adapted.state.table.entries() if name != SLOT}


def test_mixed_batches_leave_weights_and_momentum_alone():
    """And a mixed batch does not stop later ones from being learned from."""
    adapted, kinds = adapted_by(), []
    frozen = {name: p.detach().clone() for name, p in adapted.module.named_parameters()}
    for x in batches(14):
        before = tensors(adapted)
        adapted(x)
        after = tensors(adapted)
        kinds.append(adapted.last.values["single"] > 0)
        moved = {name for name in after if name not in before or not torch.equal(after[name], before[name])}
        assert bool(moved) == kinds[-1]
        assert all(p.grad is None for p in adapted.module.parameters())
    assert {(False, True), (True, False)} <= set(itertools.pairwise(kinds))
    learned = {name for name, p in adapted.module.named_parameters() if not torch.equal(p, frozen[name])}
    assert learned == {"1.weight", "1.bias", "4.weight", "4.bias"} == set(batch_norm_affines(net()))


def test_the_warm_up_of_the_published_rule():
    """49 batches are mixed whatever they hold, and leave every weight as it was; the 50th has a border."""
    adapted = acclimate.adapt(net(), DATTA(learning_rate=RATE))
    start = tensors(adapted)
    low, high = (0.5 + 0.2 * (x - 0.5) for x in stream(2, size=10))
    high[::2, 0] += 0.3
    high[1::2, 2] -= 0.3
    generator = torch.Generator().manual_seed(0)
    for number in range(50):
        x = (high if number % 2 == 0 else low) + 0.02 * torch.rand(low.shape, generator=generator, dtype=torch.float64)
        if number == 49:
            assert all(torch.equal(tensors(adapted)[name], tensor) for name, tensor in start.items())
        adapted(x)
        assert ("threshold" in adapted.last.values, adapted.last.values["single"]) == (
            (number == 49),
            float(number == 49),
        )
    assert any(not torch.equal(tensors(adapted)[name], tensor) for name, tensor in start.items())


def test_published_entropies():
    logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, -1.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    assert entropy(logits).tolist() == pytest.approx([0.665573, 0.832396, 1.098612], abs=1e-6)
    assert float(entropy(logits).mean()) == pytest.approx(0.865527, abs=1e-6)


def test_answers_come_from_before_the_update():
    xs = batches(8)
    fast, slow = adapted_by(), adapted_by(learning_rate=1e-30)
    for x in xs:
        first = fast(x)
        if fast.last.values["single"]:
            torch.testing.assert_close(first, slow(x), rtol=0, atol=1e-12)
            break
        slow(x)
    else:
        pytest.fail("no batch was learned from")


def test_no_graph_is_kept_of_mixed_batches():
    adapted = adapted_by(discriminator=Quantile(warm_up=100))
    seen = []
    adapted.module[8].register_forward_hook(lambda module, inputs, output: seen.append(output.requires_grad))
    adapted(batches(1)[0])
    assert seen == [False] and torch.is_grad_enabled()
    with pytest.raises(ValueError, match="expected"):
        adapted(torch.rand(4, 5, 8, 8, dtype=torch.float64))
    assert torch.is_grad_enabled()


def test_another_normalisation_for_both_kinds():
    """Only what is learned from is chosen: without learning, the answers are those of that normalisation."""
    adapted = adapted_by(normalization="batch", learning_rate=1e-30)
    alone = acclimate.adapt(net(), "bn")
    for x in batches(6):
        torch.testing.assert_close(adapted(x), alone(x), rtol=0, atol=1e-12)
    assert "rho" not in adapted.last.values and isinstance(adapted.method.normalization, DiversityStatistics)


def test_steps_repeat_the_update_and_not_the_decision():
    twice, once = adapted_by(steps=2), adapted_by()
    for x in batches(6):
        twice(x)
        once(x)
    kept = [adapted.state.table.slots[SLOT].tensor for adapted in (twice, once)]
    assert torch.equal(*kept)


def test_memory_is_that_of_a_step_that_learns():
    adapted = acclimate.adapt(net(), DATTA(learning_rate=RATE))
    assert adapted.memory(batches(1)[0]).saved > 0


def test_v1_and_robust():
    xs = batches(30)
    for preset in ("datta:v1", "datta:robust", "datta:imagenet"):
        adapted = acclimate.adapt(net(), preset)
        assert all(bool(adapted(x).isfinite().all()) for x in xs)
    v1 = acclimate.adapt(net(), "datta:v1")
    damped = acclimate.adapt(net(), "bn", normalization="damped")
    torch.testing.assert_close(v1(xs[0]), damped(xs[0]), rtol=0, atol=1e-12)


def test_without_batch_norm():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )
    with pytest.raises(ValueError, match=r"batch normalisation.*modules looked at"):
        acclimate.adapt(model, "datta")


def test_entropy_falls_where_it_learns():
    """A stream of one domain, and every batch taken for one: the point of it all."""
    x = batches(1)[0]
    adapted = adapted_by(discriminator=Quantile(warm_up=1, share=1.0), learning_rate=1e-2)
    generator = torch.Generator().manual_seed(1)
    found = [
        float(F.softmax(adapted(x + 0.01 * torch.rand(x.shape, generator=generator, dtype=x.dtype)), 1).amax(1).mean())
        for _ in range(20)
    ]
    assert found[-1] > found[1]
