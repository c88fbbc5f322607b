"""Perturbed weights: where they stand, and that they come back bit for bit."""

from __future__ import annotations

import pytest
import torch

import acclimate
from acclimate.core.state import State
from acclimate.methods.sar import SAR
from acclimate.parts.sharpness import perturbed
from methods.reference import small_net


@pytest.fixture
def state() -> State:
    return acclimate.adapt(small_net(), SAR()).state


def gradients(state: State, scale: float = 1.0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {n: scale * torch.randn(w.shape, generator=generator, dtype=w.dtype) for n, w in state.weights.items()}


def test_one_norm_over_all_weights(state):
    found = gradients(state)
    before = {name: weight.detach().clone() for name, weight in state.weights.items()}
    norm = sum(float((g**2).sum()) for g in found.values()) ** 0.5
    with perturbed(state, found, 0.3):
        for name, weight in state.weights.items():
            assert torch.allclose(weight, before[name] + 0.3 * found[name] / norm, rtol=0, atol=1e-7)
        length = sum(float(((w.detach() - before[n]) ** 2).sum()) for n, w in state.weights.items()) ** 0.5
        assert length == pytest.approx(0.3, rel=1e-6)


@pytest.mark.parametrize("scale", [1.0, 0.0, 1e-30, float("nan")])
def test_weights_return_bit_for_bit(state, scale):
    before = {name: (weight.detach().clone(), weight.data_ptr()) for name, weight in state.weights.items()}
    with pytest.raises(KeyError), perturbed(state, gradients(state, scale), 0.05):
        if scale in (1.0, 0.0):
            assert all(weight.isfinite().all() for weight in state.weights.values())
        raise KeyError
    for name, weight in state.weights.items():
        assert torch.equal(weight, before[name][0])
        assert weight.data_ptr() == before[name][1]


def test_no_gradient_is_no_perturbation(state):
    before = {name: weight.detach().clone() for name, weight in state.weights.items()}
    with perturbed(state, gradients(state, 0.0), 0.05):
        assert all(torch.equal(weight, before[name]) for name, weight in state.weights.items())
