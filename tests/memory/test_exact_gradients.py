"""T1, T7, T8: exact savings give the gradients of PyTorch, whatever the operations, formats and number types."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acclimate.memory import keeper

from .keeping import gradients, kept, seeded

QUIET = pytest.mark.filterwarnings("ignore:.*(deterministic|zero-padded copy)")


@pytest.fixture(autouse=True)
def everything_is_packed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Small tensors too, and memory that nobody may read is full of NaN."""
    monkeypatch.setattr(keeper, "SMALL", 0)
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(before[0], warn_only=before[1])


class Apply(nn.Module):
    """A function of torch as a layer."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Residual(nn.Module):
    """The same input for two layers, a sum, a module called twice, and two layers of one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Conv2d(6, 6, 3, padding=1) for _ in range(3))
        self.third.weight = self.first.weight
        self.norm = nn.BatchNorm2d(6)
        self.skip = nn.Conv2d(6, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.first(x)).relu_()
        y = self.norm(self.second(y)) + self.skip(x)
        return F.relu(self.third(y) + x, inplace=True)


class Attention(nn.Module):
    """Fused queries, keys and values: three views of one tensor."""

    def __init__(self, mask: Tensor | None = None, causal: bool = False) -> None:
        super().__init__()
        self.qkv, self.out, self.causal = nn.Linear(8, 24), nn.Linear(8, 8), causal
        self.norm = nn.LayerNorm(8)
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        n, length, width = x.shape
        q, k, v = self.qkv(self.norm(x)).view(n, length, 3, 2, width // 2).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask, is_causal=self.causal)
        return x + self.out(y.transpose(1, 2).reshape(n, length, width))


class Multihead(nn.Module):
    def __init__(self, need_weights: bool) -> None:
        super().__init__()
        self.inner, self.need = nn.MultiheadAttention(8, 2, batch_first=True), need_weights

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x, x, x, need_weights=self.need)[0]


def images(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 3


def between(layer: nn.Module) -> nn.Module:
    """A layer with convolutions before and behind, so that gradients flow through it."""
    return nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6), layer, nn.Conv2d(6, 4, 1))


MASK = torch.zeros(5, 5).masked_fill(torch.ones(5, 5).triu(1).bool(), -torch.inf)
FLAT = (3, 6, 9, 9)
NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "conv1d": (lambda: nn.Sequential(nn.Conv1d(4, 6, 3), nn.BatchNorm1d(6), nn.ReLU(), nn.Conv1d(6, 5, 2)), (3, 4, 11)),
    "conv3d": (
        lambda: nn.Sequential(nn.Conv3d(2, 4, 2), nn.BatchNorm3d(4), nn.ReLU(True), nn.Conv3d(4, 3, 2)),
        (2, 2, 5, 5, 5),
    ),
    "depthwise": (lambda: between(nn.Conv2d(6, 12, 3, groups=6, padding=1)).append(nn.Identity())[:3], FLAT),
    "strided": (lambda: between(nn.Conv2d(6, 6, 3, stride=2, dilation=2)), FLAT),
    "same_padding": (lambda: between(nn.Conv2d(6, 6, 4, padding="same")), FLAT),
    "circular": (lambda: between(nn.Conv2d(6, 6, 3, padding=1, padding_mode="circular")), FLAT),
    "transposed": (lambda: between(nn.ConvTranspose2d(6, 6, 3, stride=2, groups=2)), FLAT),
    "transposed1d": (lambda: nn.Sequential(nn.ConvTranspose1d(4, 6, 3), nn.ReLU(), nn.Conv1d(6, 2, 3)), (2, 4, 9)),
    "group_norm": (lambda: between(nn.GroupNorm(3, 6)), FLAT),
    "instance_norm": (lambda: between(nn.InstanceNorm2d(6, affine=True)), FLAT),
    "layer_norm": (lambda: nn.Sequential(nn.Linear(7, 9), nn.LayerNorm(9), nn.ReLU(), nn.Linear(9, 4)), (3, 5, 7)),
    "square_linear": (lambda: nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.GELU()), (8, 8)),
    "square_conv": (lambda: nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3)), (4, 4, 5, 5)),
    "frozen_statistics": (lambda: between(nn.BatchNorm2d(6).eval()), FLAT),
    "relu_in_place": (lambda: between(nn.ReLU(inplace=True)), FLAT),
    "leaky_relu": (lambda: between(nn.LeakyReLU(0.1)), FLAT),
    "leaky_relu_in_place": (lambda: between(nn.LeakyReLU(0.1, inplace=True)), FLAT),
    "relu6": (lambda: between(nn.ReLU6()), FLAT),
    "relu6_in_place": (lambda: between(nn.ReLU6(inplace=True)), FLAT),
    "hardtanh": (lambda: between(nn.Hardtanh(-0.3, 0.7)), FLAT),
    "hardtanh_in_place": (lambda: between(nn.Hardtanh(-0.3, 0.7, inplace=True)), FLAT),
    "narrow_hardtanh": (lambda: between(nn.Hardtanh(0.999, 1.0)), FLAT),
    "clamp": (lambda: between(Apply(lambda x: x.clamp(-0.5, 0.5))), FLAT),
    "clamp_uneven": (lambda: between(Apply(lambda x: x.clamp(-0.3, 0.7))), FLAT),
    "clamp_below": (lambda: between(Apply(lambda x: torch.clamp(x, min=-0.5))), FLAT),
    "clamp_above": (lambda: between(Apply(lambda x: x.clamp(max=0.2))), FLAT),
    "clamp_min": (lambda: between(Apply(lambda x: x.clamp_min(0.1))), FLAT),
    "clamp_max": (lambda: between(Apply(lambda x: torch.clamp_max(x, 0.1))), FLAT),
    "clamp_in_place": (lambda: between(Apply(lambda x: x.clamp_(-0.5, 0.5))), FLAT),
    "clamp_infinite": (lambda: between(Apply(lambda x: x.clamp(-torch.inf, 0.5))), FLAT),
    "clamp_crossed": (lambda: between(Apply(lambda x: x.clamp(0.5, -0.5))), FLAT),
    "clamp_equal": (lambda: between(Apply(lambda x: x.clamp(0.5, 0.5))), FLAT),
    "clamp_tensor": (lambda: between(Apply(lambda x: x.clamp(torch.tensor(-0.5), torch.tensor(0.2)))), FLAT),
    "threshold": (lambda: between(nn.Threshold(0.1, -1.0)), FLAT),
    "prelu": (lambda: between(nn.PReLU(6)), FLAT),
    "gelu": (lambda: between(nn.GELU()), FLAT),
    "silu_in_place": (lambda: between(nn.SiLU(inplace=True)), FLAT),
    "curves": (lambda: between(nn.Sequential(nn.Softplus(), nn.Mish(), nn.ELU(), nn.Sigmoid(), nn.Tanh())), FLAT),
    "max_pool": (lambda: between(nn.MaxPool2d(2)), FLAT),
    "max_pool_of_one_size": (lambda: between(nn.MaxPool2d(3, stride=1, padding=1)), FLAT),
    "max_pool_dilated": (lambda: between(nn.MaxPool2d((3, 2), stride=(2, 1), padding=1, dilation=2)), FLAT),
    "max_pool_ceil": (lambda: between(nn.MaxPool2d(2, stride=2, ceil_mode=True)), FLAT),
    "max_pool_indices": (lambda: between(Apply(lambda x: F.max_pool2d(x, 3, return_indices=True)[0])), FLAT),
    "max_pool_torch": (lambda: between(Apply(lambda x: torch.max_pool2d(x, [2], [2]))), FLAT),
    "max_pool_rest": (lambda: between(Apply(lambda x: F.max_pool2d(x.log(), 2).nan_to_num(0, 0, 0))), FLAT),
    "max_pool_huge": (lambda: nn.Sequential(nn.Conv1d(1, 2, 3, padding=1), nn.MaxPool1d(40_000)), (1, 1, 80_000)),
    "max_pool1d": (lambda: nn.Sequential(nn.Conv1d(4, 6, 3), nn.MaxPool1d(3, 2, 1), nn.Conv1d(6, 2, 1)), (2, 4, 13)),
    "max_pool3d": (lambda: nn.Sequential(nn.Conv3d(2, 4, 2), nn.MaxPool3d(2, 1), nn.Conv3d(4, 2, 1)), (2, 2, 5, 6, 5)),
    "adaptive_max_pool": (lambda: between(nn.AdaptiveMaxPool2d(3)), FLAT),
    "average_pool": (lambda: between(nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False)), FLAT),
    "average_pool1d": (lambda: nn.Sequential(nn.Conv1d(4, 6, 3), nn.AvgPool1d(3, 2), nn.Conv1d(6, 2, 1)), (2, 4, 13)),
    "average_pool3d": (lambda: nn.Sequential(nn.Conv3d(2, 4, 2), nn.AvgPool3d(2), nn.Conv3d(4, 2, 1)), (2, 2, 5, 6, 5)),
    "adaptive_average_pool": (lambda: between(nn.AdaptiveAvgPool2d((3, 2))), FLAT),
    "global_average_pool": (lambda: between(nn.AdaptiveAvgPool2d(1)), FLAT),
    "dropout": (lambda: between(nn.Dropout(0.3)), FLAT),
    "residual": (Residual, FLAT),
    "attention": (Attention, (3, 5, 8)),
    "attention_masked": (lambda: Attention(MASK), (3, 5, 8)),
    "attention_causal": (lambda: Attention(causal=True), (3, 5, 8)),
    "multihead": (lambda: Multihead(False), (3, 5, 8)),
    "multihead_weights": (lambda: Multihead(True), (3, 5, 8)),
    "weight_norm": (lambda: between(nn.utils.parametrizations.weight_norm(nn.Conv2d(6, 6, 3))), FLAT),
    "unbatched": (lambda: between(nn.MaxPool2d(2))[2:], (6, 9, 9)),
    "one_sample": (lambda: between(nn.ReLU()), (1, *FLAT[1:])),
    "no_samples": (lambda: nn.Sequential(nn.Conv2d(6, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 1)), (0, *FLAT[1:])),
}


def learning(model: nn.Module, which: str) -> nn.Module:
    for name, weight in model.named_parameters():
        of_norm = weight.ndim < 2 and "bias" not in name
        weight.requires_grad_({"all": True, "vectors": weight.ndim < 2, "norms": of_norm, "none": False}[which])
    return model


def compare(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = 1e-6) -> None:
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        scale = float(gradient.abs().max()) if gradient.numel() else 0.0
        close = torch.allclose(found[name], gradient, rtol=0, atol=tolerance * max(scale, 1e-6), equal_nan=True)
        assert close, f"{name}: off by {float((found[name] - gradient).abs().max()):.3g} of {scale:.3g}"


@pytest.mark.parametrize("name", NETS)
@QUIET
def test_gradients_are_those_of_pytorch(name: str) -> None:
    make, shape = NETS[name]
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        for which in ("all", "vectors", "norms", "none"):
            model = learning(seeded(make).to(dtype), which)
            x = images(*shape).to(dtype)
            formats = [x]
            if len(shape) == 4:
                formats.append(x.contiguous(memory_format=torch.channels_last))
            if len(shape) == 5:
                formats.append(x.contiguous(memory_format=torch.channels_last_3d))
            formats.append(torch.stack([x, x], -1)[..., 0])
            for given in formats:
                try:
                    expected = gradients(model, given, None)
                except NotImplementedError:
                    continue  # torch lacks this operation for this type
                compare(gradients(model, given, "exact"), expected)


@pytest.mark.parametrize(
    ("policy", "name"),
    [("exact", name) for name in ("conv1d", "square_linear", "square_conv", "layer_norm", "attention", "residual")]
    + [("quantized", name) for name in ("square_linear", "layer_norm", "attention")],
)
@QUIET
def test_under_autocast(policy: str, name: str) -> None:
    """Weights and inputs are saved as casts: which is which must not be mistaken, even where they are as large."""
    make, shape = NETS[name]
    for which in ("all", "norms", "none"):
        model, x = learning(seeded(make), which), images(*shape)
        with torch.autocast("cpu", torch.bfloat16):
            expected, found = gradients(model, x, None), gradients(model, x, policy)
        compare(found, expected, 1e-6 if policy == "exact" else 0.05)


def test_embedding_and_integer_inputs() -> None:
    model = seeded(lambda: nn.Sequential(nn.Embedding(9, 6), nn.LayerNorm(6), nn.ReLU(), nn.Linear(6, 3)))
    x = torch.randint(0, 9, (4, 7), generator=torch.Generator().manual_seed(0))
    compare(gradients(model, x, "exact"), gradients(model, x, None), 0.0)


@pytest.mark.parametrize("policy", ["exact", "quantized:4-bit"])
@QUIET
def test_a_graph_may_be_used_twice(policy: str) -> None:
    model, x = seeded(NETS["residual"][0]), images(*FLAT)
    weights = list(model.parameters())
    with kept(model, policy, x) as books:
        loss = model(x).square().mean()
        first = torch.autograd.grad(loss, weights, retain_graph=True)
        held = books.held.now
        second = torch.autograd.grad(loss, weights)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert held > 0 and books.held.now == books.dense.now == 0


def test_writing_on_what_is_kept_raises_as_without_hooks() -> None:
    weight = torch.ones(4, requires_grad=True)
    x = torch.ones(4) * 2
    for policy in (None, "exact"):
        with kept(nn.Identity(), policy or "stock", x):
            y = weight * x
            x.add_(1)
            with pytest.raises(RuntimeError, match=r"in.?place"):
                y.sum().backward()


def test_writing_on_what_was_copied_changes_nothing() -> None:
    """ReLU's bits and the quantised input of a linear layer are those from before the write."""
    layer = seeded(lambda: nn.Linear(6, 3, bias=False))
    x = images(5, 6)
    expected = torch.autograd.grad(layer(F.relu(x)).sum(), layer.weight)[0]
    with kept(layer, "quantized", x):
        y = F.relu(x)
        z = layer(y)
        y.zero_()
        found = torch.autograd.grad(z.sum(), layer.weight)[0]
    assert float((found - expected).abs().max()) <= 5 * float(x.abs().max()) / 127
    given = x.clone().requires_grad_()
    with kept(layer, "exact", x):
        y = F.relu(given * 1)
        total = y.sum()
        with torch.no_grad():
            y.fill_(-1)
        (found,) = torch.autograd.grad(total, given)
    assert torch.equal(found, (x > 0).float())
