"""Attention modules of torch run as one function; policies see into it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import acclimate
from acclimate.anatomy import everything
from acclimate.memory import SurgeonSavings
from acclimate.methods.tent import Tent


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, dropout=0.0)
        self.head = nn.Linear(32, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layer(x).mean(1))


def _encoder() -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    net = Encoder().eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return net


@pytest.mark.parametrize("memory", ["exact", SurgeonSavings(share=1.0, norms=32, curves=32, values="float32")])
def test_what_loses_nothing_changes_no_step(memory: str | SurgeonSavings) -> None:
    x = torch.randn(16, 12, 32, generator=torch.Generator().manual_seed(1))
    net = _encoder()
    stepped = [
        acclimate.adapt(net, Tent(select=everything, learning_rate=1e-2, optimizer="sgd"), memory=policy)
        for policy in ("stock", memory)
    ]
    for model in stepped:
        model(x)
    for name, weight in stepped[0].state.weights.items():
        torch.testing.assert_close(stepped[1].state.weights[name], weight, rtol=0, atol=1e-6)


def test_its_weights_have_names_and_its_parts_are_packed() -> None:
    x = torch.randn(16, 12, 32, generator=torch.Generator().manual_seed(1))
    model = acclimate.adapt(_encoder(), Tent(select=everything), memory="quantized:4-bit")
    memory = model.memory(x)
    assert memory.saved is not None and memory.stock is not None and memory.saved < 0.4 * memory.stock
    lines = model.memory_report(x).lines
    assert any(line.layer == "layer.self_attn.in_proj_weight" for line in lines)
