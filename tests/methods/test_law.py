"""LAW against a float64 oracle of its formulas, and against what can be derived about it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import acclimate
from acclimate.methods.law import LAW
from methods.reference import by_batch, entropy, small_net, stream


def net():
    """Without the bias before a batch norm, whose gradient, and so the least information, would be 0."""
    model = small_net()
    model[3].bias = None
    return model


def view(x, generator=None):
    return x.flip(-1) * 0.9


def law(model, batches, *, learning_rate, power, consistency, carry_gradients=False):
    """The six steps of the specification with `.grad` slots and torch's Adam built anew for each batch and tensor."""
    twin = by_batch(model)
    theta = {
        f"{name}.{key}": p
        for name, m in twin.named_modules()
        if isinstance(m, (nn.Conv2d, nn.BatchNorm2d))
        for key, p in m.named_parameters(recurse=False)
    }
    fisher = {k: torch.zeros_like(p) for k, p in theta.items()}
    answers, log = [], []
    for x in batches:
        z, other = twin(x), twin(view(x))
        answers.append(z.detach().clone())
        if not carry_gradients:
            twin.zero_grad()
        nn.functional.cross_entropy(z, z.argmax(1)).backward(retain_graph=True)
        for k, p in theta.items():
            fisher[k] = fisher[k] + p.grad**2
        size = torch.stack([f.mean().sqrt() for f in fisher.values()])
        weight = (size - size.min()) / (size.max() - size.min() + 1e-8)
        twin.zero_grad()
        loss = entropy(z).mean()
        if consistency:
            loss = loss - consistency * z.shape[1] * (z.softmax(1) * torch.log(other.softmax(1))).sum(1).mean()
        loss.backward()
        for p, w in zip(theta.values(), weight, strict=True):
            torch.optim.Adam([p], lr=learning_rate * float(w) ** power).step()
        log.append({k: float(w) ** power for k, w in zip(theta, weight, strict=True)})
    return answers, twin, log


SETTINGS = [
    {},
    {"power": 0.6},
    {"power": 3.0},
    {"power": 0.0},
    {"consistency": 0.0},
    {"consistency": 0.3},
    {"carry_gradients": True},
]


@pytest.mark.parametrize("changed", SETTINGS, ids=str)
def test_equals_the_oracle(changed):
    options = {"learning_rate": 5e-3, "power": 1.0, "consistency": 0.05, **changed}
    answers, twin, log = law(net(), stream(6), **options)
    adapted = acclimate.adapt(net(), LAW(**options, views=view))
    for x, expected, rates in zip(stream(6), answers, log, strict=True):
        assert torch.allclose(adapted(x), expected, rtol=0, atol=1e-8)
        assert adapted.last.detail("rate") == pytest.approx(rates, rel=1e-6, abs=1e-7)
    expected = dict(twin.named_parameters())
    for name, weight in adapted.state.weights.items():
        assert torch.allclose(weight, expected[name], rtol=0, atol=1e-8), name


def test_the_oracle_streams_exercise_what_they_are_for():
    """Rates lie between the ends, change over the stream, and depend on whether gradients are carried over."""
    options = {"learning_rate": 5e-3, "power": 1.0, "consistency": 0.05}
    _, _, log = law(net(), stream(6), **options)
    assert sum(0.02 < rate < 0.98 for rate in log[0].values()) > 2
    assert max(abs(log[0][k] - log[-1][k]) for k in log[0]) > 0.02
    _, _, carried = law(net(), stream(6), **options, carry_gradients=True)
    assert carried[0] == log[0] and max(abs(carried[1][k] - log[1][k]) for k in log[1]) > 0.01


def test_first_answers_are_those_of_batch_statistics():
    x = stream(1)[0]
    assert torch.equal(acclimate.adapt(net(), "law")(x), acclimate.adapt(net(), "bn")(x))


def test_the_tensor_of_least_information_stays_and_that_of_most_moves_at_the_full_rate():
    adapted = acclimate.adapt(net(), LAW(learning_rate=1e-3, views=view))
    adapted(stream(1)[0])
    rates = adapted.last.detail("rate")
    least, most = min(rates, key=rates.get), max(rates, key=rates.get)
    moved = {
        name: (weight - source).abs().max().item()
        for (name, weight), source in zip(adapted.state.weights.items(), adapted.state.sources(), strict=True)
    }
    assert rates[least] == 0 and moved[least] == 0
    assert moved[most] == pytest.approx(1e-3, rel=1e-4)
    assert all(moved[name] == pytest.approx(1e-3 * rates[name], rel=0.01) for name in rates if rates[name] > 1e-3)


def test_the_classifier_never_moves():
    model = net()
    adapted = acclimate.adapt(model, LAW(views=view))
    for x in stream(3):
        adapted(x)
    assert torch.equal(adapted.merged()[8].weight, model[8].weight)
    assert adapted.merged()[4].weight.ne(model[4].weight).any()


def test_information_only_grows():
    adapted = acclimate.adapt(net(), LAW(views=view))
    before = None
    for x in stream(4):
        adapted(x)
        now = torch.cat([adapted.state[f"information.{name}"].flatten() for name in adapted.state.weights])
        assert before is None or bool((now >= before).all() and (now > before).any())
        before = now.clone()


def test_views_are_refused_outside_their_range():
    with pytest.raises(ValueError, match=r"LAW .* \[0, 1\], found values from -2"):
        acclimate.adapt(net(), "law")(stream(1)[0] * 4 - 2)
    acclimate.adapt(net(), LAW(consistency=0))(stream(1)[0] * 4 - 2)


@pytest.mark.parametrize("options", [{"learning_rate": 0}, {"power": -1}, {"consistency": float("nan")}])
def test_bad_settings(options):
    with pytest.raises(ValueError, match="must"):
        LAW(**options)


def test_published_presets():
    """Constants of the released configuration; 0.01 C is 0.1, 1 and 10."""
    rows = [LAW.preset(name) for name in ("cifar10-c", "cifar100-c", "imagenet-c")]
    assert [p.learning_rate for p in rows] == [1e-3, 5e-5, 2e-4]
    assert [p.power for p in rows] == [1.0, 0.6, 1.0]
    assert {p.consistency for p in rows} == {0.01} and not any(p.carry_gradients for p in rows)
