"""Moments of channels and of samples: values, gradients, number types and what they keep."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from acclimate.core.normalization import NormalizationLayer

LAYER = NormalizationLayer(nn.BatchNorm2d(3))
SHAPES = {"flat": (5, 3), "images": (4, 3, 2, 5), "volumes": (2, 3, 2, 2, 3)}


def images(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


def by_definition(x: torch.Tensor, axes: tuple[int, ...], correction: int) -> tuple[torch.Tensor, torch.Tensor]:
    mean = x.mean(axes, keepdim=True)
    count = x.numel() // mean.numel()
    return mean.squeeze(axes), (x - mean).square().sum(axes) / (count - correction)


CASES = [(name, each, correction) for name in SHAPES for each in (False, True) for correction in (0, 1)]
CASES = [case for case in CASES if case[:2] != ("flat", True)]  # a row without positions has nothing to average


@pytest.mark.parametrize(("name", "each", "correction"), CASES)
def test_values_and_gradients(name, each, correction):
    x = images(*SHAPES[name]).requires_grad_()
    axes = tuple(range(2, x.ndim)) if each else (0, *range(2, x.ndim))
    found, expected = LAYER.moments(x, each=each, correction=correction), by_definition(x, axes, correction)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == (x.shape[:2] if each else x.shape[1:2])
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-13)
    assert torch.autograd.gradcheck(lambda x: LAYER.moments(x, each=each, correction=correction), x)


@pytest.mark.parametrize("each", [False, True])
def test_channels_last_changes_nothing(each):
    x = images(4, 3, 6, 5)
    last = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    for ours, theirs in zip(LAYER.moments(last, each=each), LAYER.moments(x, each=each), strict=True):
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-14)
    (gradient,) = torch.autograd.grad(LAYER.moments(last, each=each)[1].sum(), last)
    assert gradient.is_contiguous(memory_format=torch.channels_last), "or every layer before would have to reorder it"


def test_a_far_mean_costs_no_digits():
    """Squares about the mean, not about zero: in single precision the latter would leave nothing of this variance."""
    x = images(64, 3, 8, 8, dtype=torch.float32) * 0.1 + 1000
    exact = x.double().var((0, 2, 3), correction=0)
    assert torch.allclose(LAYER.moments(x)[1].double(), exact, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_measured_in_single(dtype):
    x = (images(8, 3, 16, 16) + 5).to(dtype).requires_grad_()
    mean, variance = LAYER.moments(x, each=True)
    assert mean.dtype == variance.dtype == torch.float32
    expected = by_definition(x.detach().double(), (2, 3), 0)
    assert torch.allclose(mean.double(), expected[0], rtol=1e-6)
    assert torch.allclose(variance.double(), expected[1], rtol=1e-5)
    (gradient,) = torch.autograd.grad(variance.sum(), x)
    assert gradient.dtype == dtype
    wide = x.detach().double()
    assert torch.allclose(gradient.double(), (wide - wide.mean((2, 3), keepdim=True)) / 128, rtol=1e-2, atol=1e-4)


def test_only_the_input_is_kept():
    x = images(4, 3, 8, 8).requires_grad_()
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        LAYER.moments(x)
    assert [t.numel() for t in kept if t.data_ptr() != x.data_ptr()] == [3]
