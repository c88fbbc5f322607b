"""Statistics that mix the source's in are kept like those of batch norms: `tests/memory`."""

import pytest
import torch
from torch import Tensor, nn

import acclimate
from acclimate.core.memory import MemoryPolicy
from acclimate.memory import ExactSavings, QuantizedSavings, SurgeonSavings
from acclimate.methods.tent import Tent

SHAPE = (4, 16, 24, 24)


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1),
        nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5),
    ).eval()  # fmt: skip


def learned(memory: str | MemoryPolicy) -> dict[str, Tensor]:
    x = torch.rand(4, 3, 24, 24, generator=torch.Generator().manual_seed(1))
    adapted = acclimate.adapt(net(), Tent(normalization="alpha", optimizer="sgd", learning_rate=1.0, memory=memory))
    adapted(x)
    before = dict(net().named_parameters())
    return {name: weight.detach() - before[name].detach() for name, weight in adapted.merged().named_parameters()}


@pytest.mark.parametrize(("bits", "least"), [(8, 0.9999), (4, 0.99)])
def test_quantised_inputs_of_mixed_statistics_give_nearly_the_gradients(bits: int, least: float):
    exact, rounded = learned("stock"), learned(QuantizedSavings(norms=bits))  # pyright: ignore[reportArgumentType]
    for name in ("1.weight", "1.bias", "4.weight", "4.bias"):
        assert torch.cosine_similarity(exact[name], rounded[name], dim=0) > least
        assert exact[name].abs().max() > 0


@pytest.mark.parametrize("memory", [ExactSavings(), QuantizedSavings(norms=32)])
def test_exact_savings_change_no_gradient_of_mixed_statistics(memory: MemoryPolicy):
    exact, kept = learned("stock"), learned(memory)
    assert all(torch.allclose(exact[name], kept[name], rtol=1e-5, atol=1e-9) for name in exact)


@pytest.mark.parametrize("memory", [QuantizedSavings(), SurgeonSavings()])
def test_an_input_of_mixed_statistics_is_kept_once_and_in_bytes(memory: MemoryPolicy):
    """Moments and scaling both read it: one byte a value and eight a channel, for each of the two norms."""
    adapted = acclimate.adapt(net(), Tent(normalization="alpha", memory=memory))
    report = adapted.memory_report(torch.rand(4, 3, 24, 24))
    values = torch.Size(SHAPE).numel()
    inputs = [line for line in report.lines if line.codec == "Normalized"]
    assert [line.held for line in inputs] == [values + 8 * 16] * 2
    assert not any(line.codec == "Exact" and line.dense == 4 * values for line in report.lines)
