"""Pure functions against closed forms and autograd."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from acclimate import functional


def logits(seed: int, rows: int = 5, classes: int = 7) -> torch.Tensor:
    return torch.randn(rows, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 4


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_entropy_is_bounded_and_shift_invariant(seed):
    z = logits(seed)
    h = functional.entropy(z)
    assert bool((h >= 0).all())
    assert bool((h <= math.log(7) + 1e-12).all())
    assert torch.allclose(h, functional.entropy(z + 3.0))


def test_entropy_of_certain_and_uniform():
    z = torch.tensor([[1000.0, 0, 0], [0, 0, 0]])
    assert functional.entropy(z).tolist() == pytest.approx([0.0, math.log(3)])


def test_uniform_divergence_gradient_has_its_closed_form():
    """dL/dz = (C p(z/T) - 1) / T for each row."""
    z = logits(0).requires_grad_()
    functional.uniform_divergence(z, 50.0).sum().backward()
    assert torch.allclose(z.grad, (7 * (z.detach() / 50).softmax(1) - 1) / 50)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_consistency_is_least_at_equality(seed):
    a, b = logits(seed), logits(seed + 1)
    assert torch.allclose(functional.consistency(a, a), functional.entropy(a))
    assert bool((functional.consistency(a, b) >= functional.entropy(a) - 1e-9).all())


def test_pseudo_label_loss_is_cross_entropy_with_the_own_label():
    z = logits(3)
    expected = torch.nn.functional.cross_entropy(z, z.argmax(1), reduction="none")
    assert torch.allclose(functional.pseudo_label_loss(z), expected)


def test_filtered_mean_of_some_and_of_none():
    z = logits(4).requires_grad_()
    h = functional.entropy(z)
    keep = torch.tensor([True, False, True, False, False])
    assert torch.allclose(functional.filtered_mean(h, keep), h[keep].mean())
    nothing = functional.filtered_mean(h, torch.zeros(5, dtype=torch.bool))
    nothing.backward()
    assert nothing.item() == 0
    assert float(z.grad.abs().sum()) == 0


def test_half_precision_is_widened():
    assert functional.entropy(torch.zeros(2, 1000, dtype=torch.bfloat16)).tolist() == pytest.approx(
        [math.log(1000)] * 2
    )


def test_entropy_has_the_gradient_of_its_formula() -> None:
    z = torch.randn(4, 6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2), requires_grad=True)
    assert torch.autograd.gradcheck(functional.entropy, (z,))


def test_masked_classes_count_nothing() -> None:
    """-inf is probability 0, and 0 log 0 is 0: entropy and gradient are those of the other classes."""
    masked = torch.tensor([[1.0, 2.0, -torch.inf]], dtype=torch.float64, requires_grad=True)
    plain = torch.tensor([[1.0, 2.0]], dtype=torch.float64, requires_grad=True)
    p = plain.detach().softmax(1)
    assert functional.entropy(masked).item() == pytest.approx(-(p * p.log()).sum().item())
    (found,) = torch.autograd.grad(functional.entropy(masked).sum(), masked)
    (expected,) = torch.autograd.grad(-(plain.softmax(1) * plain.log_softmax(1)).sum(), plain)
    torch.testing.assert_close(found, torch.cat([expected, torch.zeros(1, 1, dtype=torch.float64)], 1))
