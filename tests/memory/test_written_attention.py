"""Attention written out with matrix products keeps few bits of its operands, as the fused one does."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .keeping import gradients, kept, seeded


class Attention(nn.Module):
    def __init__(self, product: str) -> None:
        super().__init__()
        self.norm, self.mixed, self.out = nn.LayerNorm(128), nn.Linear(128, 384), nn.Linear(128, 128)
        self.product = product

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.mixed(self.norm(x)).chunk(3, -1)
        if self.product == "fused":
            return x + self.out(F.scaled_dot_product_attention(q, k, v))
        multiply = {"@": lambda a, b: a @ b, "bmm": torch.bmm, "matmul": torch.matmul}[self.product]
        return x + self.out(multiply((multiply(q, k.transpose(1, 2)) / 128**0.5).softmax(-1), v))


@pytest.mark.parametrize("product", ["@", "bmm", "matmul", "fused"])
def test_operands_take_a_byte_each(product: str) -> None:
    net = seeded(lambda: Attention(product))
    for layer in (net.mixed, net.out):
        layer.requires_grad_(False)
    x = torch.randn(4, 48, 128, generator=torch.Generator().manual_seed(1))
    with kept(net, "quantized", x) as books:
        net(x.clone().requires_grad_()).sum().backward()
    assert books.held.peak < 0.4 * books.dense.peak
    found, expected = gradients(net, x, "quantized"), gradients(net, x, None)
    for name in ("norm.weight", "norm.bias", "input"):
        assert F.cosine_similarity(found[name].flatten(), expected[name].flatten(), 0) > 0.999, name
