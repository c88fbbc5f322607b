"""Every registered method with every kind of savings, and adapted models in channels last."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from typing import Any

import pytest
import torch

import acclimate
from acclimate.anatomy import everything
from acclimate.core.memory import MemoryPolicy
from acclimate.core.method import methods
from acclimate.memory import keeper
from acclimate.memory.exact import ExactSavings
from acclimate.methods.tent import Tent
from acclimate.models.residual import cifar10_resnet20
from conformance.declarations import DECLARATIONS, DEFAULT
from conformance.models import MODELS
from conformance.tools import answers


@pytest.fixture(autouse=True)
def everything_is_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "SMALL", 0)


def adapted(name: str, model: str, policy: str | MemoryPolicy, **options: Any) -> acclimate.Adapted:
    declared = DECLARATIONS.get(name, DEFAULT)
    method = dataclasses.replace(methods.build(name), memory="stock", **declared.settings)
    return acclimate.adapt(MODELS[model][0](), method, memory=policy, **options)


@pytest.mark.parametrize("name", list(methods.classes()))
def test_exact_savings_change_no_answer(name: str) -> None:
    """Bit for bit the gradients of stock, so the same weights: three batches, to rounding."""
    model = DECLARATIONS.get(name, DEFAULT).model
    plain, exact = (adapted(name, model, policy) for policy in ("stock", "exact"))
    batches = [MODELS[model][1](number) for number in range(3)]
    expected = answers(plain, batches)
    torch.testing.assert_close(answers(exact, batches), expected, rtol=1e-5, atol=1e-6)
    for key, weight in plain.state.weights.items():
        torch.testing.assert_close(exact.state.weights[key], weight, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("policy", ["quantized:4-bit", "surgeon"])
@pytest.mark.parametrize("name", list(methods.classes()))
def test_lossy_savings_work_with_every_method(name: str, policy: str) -> None:
    model = DECLARATIONS.get(name, DEFAULT).model
    lossy = adapted(name, model, policy)
    for number in range(3):
        answer = lossy(MODELS[model][1](number))
        assert answer.isfinite().all() and len(answer) == 8
        assert lossy.last.skipped is None and not lossy.last.verdict.refused
    assert all(weight.isfinite().all() for weight in lossy.state.weights.values())


@pytest.mark.parametrize("policy", ["exact", "quantized:4-bit", "surgeon"])
@pytest.mark.parametrize("model", sorted(MODELS))
def test_every_kind_of_model(model: str, policy: str) -> None:
    """All weights learn."""
    method = Tent(select=everything, learning_rate=1e-3, optimizer="sgd")
    plain, kept = (acclimate.adapt(MODELS[model][0](), method, memory=each) for each in ("stock", policy))
    for number in range(3):
        x = MODELS[model][1](number)
        expected, found = plain(x), kept(x)
        if policy == "exact":
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
        assert found.isfinite().all()


def test_channels_last_is_kept() -> None:
    """A float32 network of convolutions runs in channels last; frozen convolutions stay in it, bit for bit."""
    net = cifar10_resnet20()
    plain, exact = (acclimate.adapt(net, "tent", memory=policy) for policy in ("stock", "exact"))
    assert exact.state.channels_last
    for number in range(3):
        x = torch.rand(16, 3, 32, 32, generator=torch.Generator().manual_seed(number))
        assert torch.equal(exact(x), plain(x))
    for name, weight in plain.state.weights.items():
        assert torch.equal(exact.state.weights[name], weight), name
    measured = exact.memory(x)
    assert measured.saved < 0.55 * measured.stock


def test_import_reaches_neither_memory_nor_compression() -> None:
    code = (
        "import sys, acclimate; print([n for n in sys.modules if n.startswith(('acclimate.memory', 'acclimate.comp'))])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("name", ["tent", "sar", "palm", "law", "cotta", "rotta", "eata"])
def test_depth_holds_with_every_kind_of_update(name: str) -> None:
    """Optimisers, sharpness-aware and sign steps, teachers: below the depth nothing moves, above it something does."""
    model = DECLARATIONS.get(name, DEFAULT).model
    half = adapted(name, model, ExactSavings(depth=0.5))
    before = {key: weight.clone() for key, weight in half.state.weights.items()}
    for number in range(4):
        half(MODELS[model][1](number))
    for key, weight in half.state.weights.items():
        if not weight.requires_grad:
            assert torch.equal(weight, before[key]), key
    assert sum(not weight.requires_grad for weight in half.state.weights.values()) == len(before) - round(
        len(before) / 2
    )
