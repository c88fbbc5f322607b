"""Source, BN, Tent and RDumb against float64 oracles written from their formulas."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import acclimate
from acclimate.methods.rdumb import RDumb
from acclimate.methods.tent import Tent
from methods.reference import by_batch, entropy, small_net, stream


def affine(net: nn.Module) -> list[nn.Parameter]:
    return [p for m in net.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()]


def test_source_is_the_model():
    net, x = small_net(), stream(1)[0]
    assert torch.equal(acclimate.adapt(net, "source")(x), net(x))


def test_bn_uses_the_batch():
    net = small_net()
    adapted, twin = acclimate.adapt(net, "bn"), by_batch(net)
    for x in stream(3):
        assert torch.allclose(adapted(x), twin(x), rtol=0, atol=1e-10)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_tent_equals_the_oracle(optimizer):
    twin = by_batch(small_net())
    if optimizer == "adam":
        opt = torch.optim.Adam(affine(twin), lr=1e-2)
    else:
        opt = torch.optim.SGD(affine(twin), lr=1e-2, momentum=0.9, nesterov=True)
    adapted = acclimate.adapt(small_net(), Tent(learning_rate=1e-2, optimizer=optimizer))
    for x in stream(6):
        z = twin(x)
        assert torch.allclose(adapted(x), z, rtol=0, atol=1e-9)
        opt.zero_grad()
        entropy(z).mean().backward()
        opt.step()
        assert adapted.last.loss == pytest.approx(entropy(z).mean().item())


def test_episodic_tent_with_one_step_is_bn():
    """Its answers precede the only update, which the next batch forgets."""
    tent, bn = acclimate.adapt(small_net(), Tent(episodic=True)), acclimate.adapt(small_net(), "bn")
    for x in stream(4):
        assert torch.equal(tent(x), bn(x))


def test_episodic_tent_answers_after_its_steps():
    net = small_net()
    adapted = acclimate.adapt(net, Tent(episodic=True, steps=3, learning_rate=1e-2))
    for x in stream(3):
        twin = by_batch(net)
        opt = torch.optim.Adam(affine(twin), lr=1e-2)
        for _ in range(3):
            z = twin(x)
            opt.zero_grad()
            entropy(z).mean().backward()
            opt.step()
        assert torch.allclose(adapted(x), z, rtol=0, atol=1e-9)


def test_answer_after_is_the_forward_of_the_updated_model():
    net = small_net()
    adapted = acclimate.adapt(net, Tent(learning_rate=1e-2), answer="after")
    twin = by_batch(net)
    opt = torch.optim.Adam(affine(twin), lr=1e-2)
    for x in stream(3):
        entropy(twin(x)).mean().backward()
        opt.step()
        opt.zero_grad()
        assert torch.allclose(adapted(x), twin(x), rtol=0, atol=1e-9)


@pytest.mark.parametrize("reset_every", [1000, 2])
def test_rdumb_equals_the_oracle(reset_every):
    """ETA's loss, its moving mean, and the reset: before batch N, 2N, ... everything is forgotten."""
    margin, diversity, classes = 0.75, 0.9, 4
    limit = margin * math.log(classes)
    twin, mean = by_batch(small_net()), None
    opt = torch.optim.Adam(affine(twin), lr=1e-2)
    adapted = acclimate.adapt(
        small_net(), RDumb(learning_rate=1e-2, margin=margin, diversity=diversity, reset_every=reset_every)
    )
    chosen_counts = []
    for taken, x in enumerate(stream(6)):
        if taken and taken % reset_every == 0:
            twin, mean = by_batch(small_net()), None
            opt = torch.optim.Adam(affine(twin), lr=1e-2)
        z = twin(x)
        assert torch.allclose(adapted(x), z, rtol=0, atol=1e-6)
        doubt, p = entropy(z), z.softmax(1)
        chosen = doubt < limit
        if mean is not None:
            chosen &= nn.functional.cosine_similarity(mean[None], p.float(), dim=1) < diversity
        chosen_counts.append(int(chosen.sum()))
        assert adapted.last.selected == chosen_counts[-1]
        if chosen.any():
            batch = p[chosen].mean(0).detach().float()
            mean = batch if mean is None else 0.9 * mean + 0.1 * batch
            loss = (torch.exp(limit - doubt.detach()) * doubt)[chosen].mean()
            opt.zero_grad()
            loss.backward()
            opt.step()
    assert len(set(chosen_counts)) > 2


def test_presets_of_rdumb():
    """Published: reset every 1000; 50 is ours, for streams of some hundred batches."""
    assert RDumb().reset_every == 1000
    assert RDumb.preset("short").reset_every == 50
    assert (RDumb.preset("imagenet").diversity, RDumb.preset("imagenet").learning_rate) == (0.05, 2.5e-4)


def test_rdumb_learns_nothing_when_nothing_is_sure():
    adapted = acclimate.adapt(small_net(), RDumb(margin=0.0))
    for x in stream(3):
        adapted(x)
        assert not adapted.last.updated
        assert "sure" in adapted.last.reason
    assert adapted.state.batches == 3
    assert all(torch.equal(w, s) for w, s in zip(adapted.state.weights.values(), adapted.state.sources(), strict=True))


def test_rdumb_resets_even_when_nothing_is_sure():
    """The blind reset must fire on a batch that teaches nothing."""
    adapted = acclimate.adapt(small_net(), RDumb(reset_every=2, learning_rate=1e-2, margin=1.0, diversity=1.0))
    x = stream(3)
    adapted(x[0])
    adapted(x[1])
    assert adapted.last.distance > 0
    object.__setattr__(adapted.method, "margin", 0.0)
    adapted(x[2])
    assert all(torch.equal(w, s) for w, s in zip(adapted.state.weights.values(), adapted.state.sources(), strict=True))
