"""Fisher information and its pull against loops."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import acclimate
from acclimate.methods.eata import EATA
from acclimate.parts.fisher import pull
from methods.selected import NETS, oracle_net
from methods.test_eata import fisher, source_images


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize("size", [1, 7, 64])
def test_fisher_is_the_mean_square_of_batch_gradients(kind, size):
    images = source_images(20)
    if size == 1 and kind == "batch_norm":
        images = images[:6]
    expected = fisher(oracle_net(kind), images, size)
    state = acclimate.adapt(NETS[kind](), EATA(source=images, batch_size=size)).state
    found = [state[f"fisher.{name}"] for name in state.weights]
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-9, atol=0)
        assert ours.gt(0).any()


def test_only_as_many_images_as_asked_for():
    images = source_images(20)
    few = acclimate.adapt(NETS["group_norm"](), EATA(source=images, batch_size=4, samples=8)).state
    same = acclimate.adapt(NETS["group_norm"](), EATA(source=images[:8], batch_size=4)).state
    for name in few.weights:
        assert torch.equal(few[f"fisher.{name}"], same[f"fisher.{name}"])


def test_pull_is_the_gradient_of_the_penalty():
    state = acclimate.adapt(NETS["batch_norm"](), EATA(source=source_images())).state
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in state.weights.values():
            weight.add_(torch.randn(weight.shape, generator=generator, dtype=weight.dtype))
    sources = state.sources()
    pairs = zip(state.weights.items(), sources, strict=True)
    penalty = 3.0 * sum((state[f"fisher.{n}"] * (w - s) ** 2).sum() for (n, w), s in pairs)
    expected = torch.autograd.grad(penalty, list(state.weights.values()))
    own = {name: torch.full_like(weight, 0.5) for name, weight in state.weights.items()}
    found = pull(state, dict(own), 3.0)
    for (name, gradient), theirs in zip(found.items(), expected, strict=True):
        assert torch.allclose(gradient, own[name] + theirs, rtol=1e-12, atol=1e-15)
    assert float(state.notes["penalty"]) == pytest.approx(float(penalty.detach()), rel=1e-5)


def test_fisher_stays_through_resets_and_moves():
    adapted = acclimate.adapt(NETS["group_norm"](), EATA(source=source_images()))
    before = {name: adapted.state[f"fisher.{name}"].clone() for name in adapted.state.weights}
    adapted(source_images(6))
    adapted.reset()
    adapted.to("cpu")
    adapted.reset()
    for name, fisher_before in before.items():
        assert torch.equal(adapted.state[f"fisher.{name}"], fisher_before)


def test_a_model_that_views_its_activations_is_measured():
    """`.view` refuses the channels-last layout that float32 convolutions run in."""

    class Viewing(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = NETS["batch_norm"]().float()

        def forward(self, x):
            x = self.net[6](self.net[:6](x))
            return self.net[8](x.view(len(x), -1))

    adapted = acclimate.adapt(Viewing(), EATA(source=source_images().float()))
    assert adapted(source_images(5).float()).isfinite().all()
