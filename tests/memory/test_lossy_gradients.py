"""T2: what inputs of convolutions and linear layers lose reaches the gradient of that layer's weight and no other."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acclimate.compression import Codec, Normalized, Quantized, Sparse
from acclimate.core.memory import MemoryPolicy, Saved
from acclimate.memory import keeper
from acclimate.memory.quantized import QuantizedSavings
from acclimate.memory.surgeon import SurgeonSavings

from .keeping import gradients, seeded


@pytest.fixture(autouse=True)
def everything_is_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "SMALL", 0)


POLICIES = {
    "sparse": (SurgeonSavings(share=0.1, norms=32, curves=32, values="float32"), Sparse(keep=0.1, values="float32")),
    "sparse, 8 bits": (SurgeonSavings(share=0.3, norms=32, curves=32, values="int8"), Sparse(keep=0.3, values="int8")),
    "nothing": (SurgeonSavings(share=0.0, norms=32, curves=32), Sparse(keep=0.0)),
    "4 bits": (QuantizedSavings(norms=32, curves=32, inputs=4), Quantized(bits=4, per="channel")),
}


class Net(nn.Module):
    """A residual pair of convolutions with a norm, and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(4, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.norm, self.head = nn.BatchNorm2d(8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm(self.first(x)))
        return self.head((y + torch.tanh(self.second(y))).mean((2, 3)))


@pytest.mark.parametrize("which", POLICIES)
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_only_weights_of_layers_feel_it(which: str, order: torch.memory_format) -> None:
    policy, _ = POLICIES[which]
    net = seeded(Net)
    x = torch.randn(6, 4, 7, 7, generator=torch.Generator().manual_seed(2)).contiguous(memory_format=order)
    found, expected = gradients(net, x, policy), gradients(net, x, None)
    touched = {"first.weight", "second.weight", "head.weight"}
    for name, gradient in expected.items():
        if name in touched:
            assert not torch.equal(found[name], gradient)
        else:
            assert torch.equal(found[name], gradient), name


@pytest.mark.parametrize("which", POLICIES)
@pytest.mark.parametrize("operation", ["conv", "linear"])
def test_the_weight_sees_the_decoded_input(which: str, operation: str) -> None:
    """dW of a convolution and of a linear layer, by the formula, of what the codec gives back."""
    policy, codec = POLICIES[which]
    generator = torch.Generator().manual_seed(3)
    if operation == "conv":
        layer: nn.Module = seeded(lambda: nn.Conv2d(3, 5, 3, bias=False)).double()
        x = torch.randn(4, 3, 6, 6, generator=generator, dtype=torch.float64)
    else:
        layer = seeded(lambda: nn.Linear(9, 4, bias=False)).double()
        x = torch.randn(20, 9, generator=generator, dtype=torch.float64)
        codec = Quantized(bits=4, per="row") if isinstance(codec, Quantized) else codec
    found = gradients(layer, x, policy)["weight"]
    decoded = codec.encode(x).decode()
    with torch.no_grad():
        shape = layer(x).shape
    g = torch.linspace(-1, 2, shape.numel()).view(shape).double()
    if operation == "linear":
        expected = g.T @ decoded
    else:
        windows = decoded.unfold(2, 3, 1).unfold(3, 3, 1)  # [N, C, 4, 4, 3, 3]
        expected = torch.einsum("nohw,nchwij->ocij", g, windows)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_what_a_norm_loses_stays_small_in_8_bits() -> None:
    net = seeded(Net)
    x = torch.randn(8, 4, 9, 9, generator=torch.Generator().manual_seed(2))
    for bits, least in ((8, 0.9995), (4, 0.97)):
        found = gradients(net, x, QuantizedSavings(norms=bits, curves=32, inputs=32))
        expected = gradients(net, x, None)
        for name in ("first.weight", "norm.weight", "input"):
            cosine = F.cosine_similarity(found[name].flatten(), expected[name].flatten(), dim=0)
            assert cosine > least, f"{bits} bits, {name}: {float(cosine):.5f}"


CURVES: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "silu": F.silu, "softplus": F.softplus}
OUTPUTS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]] = {
    "sigmoid": (torch.sigmoid, lambda g, y: g * y * (1 - y)),
    "tanh": (torch.tanh, lambda g, y: g * (1 - y * y)),
    "softmax": (lambda x: F.softmax(x, -1), lambda g, y: y * (g - (g * y).sum(-1, keepdim=True))),
}
ROWS = torch.randn(6, 8, 10, generator=torch.Generator().manual_seed(4))
SLOPE = torch.linspace(-1, 2, ROWS.numel()).view(ROWS.shape)


@pytest.mark.parametrize("name", CURVES)
def test_curves_are_differentiated_at_8_bits(name: str) -> None:
    found = gradients(nn.Identity(), ROWS, "quantized", CURVES[name])["input"]
    at = Quantized(per="row").encode(ROWS).decode().requires_grad_()
    (expected,) = torch.autograd.grad((CURVES[name](at) * SLOPE).sum(), at)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", OUTPUTS)
def test_outputs_are_taken_from_8_bits(name: str) -> None:
    function, formula = OUTPUTS[name]
    found = gradients(nn.Identity(), ROWS, "quantized", function)["input"]
    expected = formula(SLOPE, Quantized(per="row").encode(function(ROWS)).decode())
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["layer", "group", "batch"])
def test_norms_see_their_input_in_8_bits_and_their_own_statistics(name: str) -> None:
    """`da = (g - mean g - x mean(g x)) / sigma`, x the normalised codes, mean and sigma those of the forward."""
    codec, view, functions = {
        "layer": (Normalized(per="row"), (48, 1, 10), lambda x: F.layer_norm(x, (10,))),
        "group": (Normalized(per="group", parameter=4), (24, 1, 20), lambda x: F.group_norm(x, 4)),
        "batch": (Normalized(), (6, 8, 10), lambda x: F.batch_norm(x, None, None, training=True)),
    }[name]
    axes = (0, 2) if name == "batch" else (2,)
    found = gradients(nn.Identity(), ROWS, "quantized", functions)["input"]
    x, decoded, g = (t.double().reshape(view) for t in (ROWS, codec.encode(ROWS).decode(), SLOPE))
    mean, sigma = x.mean(axes, keepdim=True), (x.var(axes, correction=0, keepdim=True) + 1e-5).sqrt()
    normal = (decoded - mean) / sigma
    expected = (g - g.mean(axes, keepdim=True) - normal * (g * normal).mean(axes, keepdim=True)) / sigma
    torch.testing.assert_close(found, expected.float().reshape(ROWS.shape), rtol=1e-4, atol=1e-5)


def test_masks_of_attention_are_never_rounded() -> None:
    """Masks hold infinities, of which a scale would make NaN: also one of the shape of the values."""
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(2, 2, 6, 6, generator=generator)
    mask = torch.zeros(2, 2, 6, 6).masked_fill(torch.ones(6, 6).triu(1).bool(), -torch.inf)

    def run(q: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, q * 2, q + 1, attn_mask=mask)

    found, expected = gradients(nn.Identity(), x, "quantized", run), gradients(nn.Identity(), x, None, run)
    assert found["input"].isfinite().all()
    assert F.cosine_similarity(found["input"].flatten(), expected["input"].flatten(), dim=0) > 0.99


def test_a_policy_of_ones_own_sees_operation_role_and_layer() -> None:
    seen: list[tuple[str, str, str, str]] = []

    class Spy(MemoryPolicy):
        def begin(self, state: object, x: Tensor, keeper: object) -> Callable[[Saved], Codec]:
            def choose(saved: Saved) -> Codec:
                seen.append((saved.operation, saved.family, saved.role, saved.layer))
                return Sparse(keep=1.0, values="float32")

            return choose

    net = seeded(Net)
    x = torch.randn(2, 4, 5, 5, generator=torch.Generator().manual_seed(2))
    gradients(net, x, Spy())
    inputs = [(operation, layer) for operation, _, role, layer in seen if role == "input"]
    assert ("conv2d", "first.weight") in inputs and ("batch_norm", "norm.weight") in inputs
    assert ("conv2d", "second.weight") in inputs and ("linear", "head.weight") in inputs
    assert not [each for each in seen if each[2] == "weight"], "weights are the model's own"
