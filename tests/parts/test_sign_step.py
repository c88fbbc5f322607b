"""The closed form of a fresh Adam's first step, against torch's Adam built for that step."""

from __future__ import annotations

import pytest
import torch

from acclimate.parts.sign_step import sign_step


def tensors(seed: int, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    found = [torch.randn(shape, generator=generator) for shape in ((4, 3), (5,), (2, 2, 3))]
    found[1][:3] = torch.tensor([0.0, 1e-8, -3e-9])
    return [tensor.to(dtype) for tensor in found]


@pytest.mark.parametrize("weight_decay", [0.0, 0.05])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_a_fresh_adam_with_a_rate_for_each_tensor(dtype, weight_decay):
    weights, expected = tensors(0, dtype), tensors(0, dtype)
    rates = [0.3, 1.0, 0.01]
    groups = [{"params": [torch.nn.Parameter(w)], "lr": 1e-2 * r} for w, r in zip(expected, rates, strict=True)]
    optimizer = torch.optim.Adam(groups, weight_decay=weight_decay)
    for group, gradient in zip(groups, tensors(1, dtype), strict=True):
        group["params"][0].grad = gradient
    optimizer.step()
    sign_step(weights, tensors(1, dtype), 1e-2, [torch.tensor(r, dtype=dtype) for r in rates], weight_decay)
    for found, group in zip(weights, groups, strict=True):
        torch.testing.assert_close(found, group["params"][0].detach(), rtol=1e-6, atol=1e-7)


def test_a_rate_of_zero_leaves_the_tensor_and_gradients_stay_as_they_are():
    weights, gradients = tensors(0), tensors(1)
    rates = [torch.tensor(0.0), torch.tensor(0.0), torch.tensor(1.0)]
    sign_step(weights, gradients, 1e-2, rates, weight_decay=0.5)
    for number, (found, before) in enumerate(zip(weights, tensors(0), strict=True)):
        assert torch.equal(found, before) == (number < 2)
    assert all(torch.equal(found, before) for found, before in zip(gradients, tensors(1), strict=True))


def test_a_rate_for_each_element():
    weights, rates = tensors(0), [torch.rand_like(t) for t in tensors(2)]
    sign_step(weights, tensors(1), 1e-2, rates)
    for found, before, gradient, rate in zip(weights, tensors(0), tensors(1), rates, strict=True):
        torch.testing.assert_close(found, before - 1e-2 * rate * gradient / (gradient.abs() + 1e-8))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_gradient_of_zero_in_half_precision_moves_nothing(dtype):
    """1e-8 is zero there: 0 / 0 must not come of it."""
    weights = tensors(0, dtype)
    sign_step(weights, [torch.zeros_like(w) for w in weights], 0.1, [torch.tensor(1.0)] * 3)
    assert all(torch.equal(found, before) for found, before in zip(weights, tensors(0, dtype), strict=True))
    sign_step(weights, tensors(1, dtype), 0.5, [torch.tensor(1.0)] * 3)
    assert all(bool(found.isfinite().all()) and found.dtype == dtype for found in weights)
    torch.testing.assert_close(
        weights[0], (tensors(0, dtype)[0] - 0.5 * tensors(1)[0].sign()).to(dtype), rtol=0.02, atol=0.02
    )
