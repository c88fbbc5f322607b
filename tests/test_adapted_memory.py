"""Layout of the input, and bytes counted by hand."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import acclimate
from conformance.models import MODELS
from conformance.tools import answers, assert_same, book, make
from memory.keeping import Ours

FACTORY, BATCH = MODELS["batch_norm"]


@pytest.mark.parametrize("model", ["batch_norm", "vit", "mlp"])
@pytest.mark.parametrize("method", ["tent", "bn:ema"])
def test_layout_of_the_input_does_not_matter(method: str, model: str) -> None:
    """Channels-last, strided and expanded inputs have the answers of plain ones, to rounding."""
    factory, batch = MODELS[model]
    if method == "bn:ema" and model == "vit":
        pytest.skip("no batch norm")
    plain = answers(make(method, factory), map(batch, range(2)))
    layouts: list[Callable[[Tensor], Tensor]] = [lambda x: torch.stack([x, x], -1)[..., 0]]
    if model != "mlp":
        layouts.append(lambda x: x.contiguous(memory_format=torch.channels_last))
    for layout in layouts:
        found = answers(make(method, factory), (layout(batch(number)) for number in range(2)))
        torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["tent", "rdumb", "palm"])
def test_group_norm_in_channels_last(method: str) -> None:
    """torch 2.13 crashes in the backward of a channels-last group norm whose input needs no gradient; we must not."""
    code = (
        "import torch; torch.set_num_threads(1); import acclimate\n"
        "from conformance.models import MODELS\n"
        "factory, batch = MODELS['group_norm']\n"
        f"adapted = acclimate.adapt(factory(), {method!r})\n"
        "for number in range(4):\n"
        "    x = batch(number)\n"
        "    adapted(x.contiguous(memory_format=torch.channels_last) if number % 2 else x)\n"
    )
    roots = [entry for entry in sys.path if entry]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {roots!r}\n{code}"], capture_output=True, check=False
    )
    assert done.returncode == 0, f"the process ended with {done.returncode}: {done.stderr[-500:].decode()}"


def _counted(adapted: acclimate.Adapted, x: Tensor) -> int:
    with Ours(adapted.module) as meter, torch.enable_grad():
        log_p = adapted.module(x).log_softmax(1)
        loss = -(log_p.exp() * log_p).sum(1).mean()
    del loss
    return meter.bytes


@pytest.mark.parametrize("model", ["batch_norm", "group_norm", "vit", "mlp"])
def test_saved_bytes_are_those_of_a_forward_by_hand(model: str) -> None:
    """What autograd keeps for Tent's loss, counted with hooks of our own, is what `memory(x)` says and predicts.

    A layout of the library's own choosing may cost copies of the input; hence a tolerance of the input's bytes.
    """
    factory, batch = MODELS[model]
    adapted = acclimate.adapt(factory(), "tent")
    for x in (batch(0), torch.cat([batch(number) for number in range(4)])):
        measured, expected = adapted.memory(x), _counted(adapted, x)
        spare = x.numel() * x.element_size()
        assert abs(measured.saved - expected) <= max(spare, 0.05 * expected), f"{measured.saved}, by hand {expected}"
        assert abs(measured.predicted - measured.saved) <= 0.05 * measured.saved


def test_state_bytes_are_exact() -> None:
    """Tent on two norms: weights, two moments each, and one step count of four bytes for each tensor."""
    adapted = acclimate.adapt(FACTORY(), "tent")
    fresh = adapted.memory()
    weights = 4 * (8 + 8 + 12 + 12)
    assert fresh.state == {"weights": weights} and fresh.saved is None and fresh.predicted is None
    adapted(BATCH(0))
    assert adapted.memory().state == {"weights": weights, "optimizer": 2 * weights, "counters": 4 * 4}
    adapted.reset()
    assert adapted.memory().state == fresh.state


def test_memory_of_a_step_that_cannot_be_made_leaves_no_trace() -> None:
    adapted, twin = make("tent", FACTORY), make("tent", FACTORY)
    for each in (adapted, twin):
        each(BATCH(0))
    with pytest.raises(ValueError, match="expected"):
        adapted.memory(BATCH(0)[:, :2])
    adapted.memory(torch.full_like(BATCH(0), float("nan")))
    assert_same(book(adapted), book(twin), "state")
    assert adapted.last.updated


def test_repeated_rows_do_not_spoil_the_prediction() -> None:
    """The two smaller batches are not taken from rows that are unfit or identical."""
    adapted = make("tent", FACTORY)
    x = torch.cat([BATCH(0)[:1].repeat(3, 1, 1, 1), BATCH(0)[1:6]])
    measured = adapted.memory(x)
    assert abs(measured.predicted - measured.saved) <= 0.05 * measured.saved
