"""Small source models of every kind that users bring, and batches for them.

Each factory builds the same weights again and again, without touching torch's global generator.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acclimate.models.transformer import VisionTransformer

__all__ = [
    "MODELS",
    "ModelOutput",
    "cells",
    "images",
    "tokens",
]

CLASSES = 5


def images(number: int, count: int = 8, size: int = 8) -> Tensor:
    """Batch `number` of a stream of images in [0, 1]: coloured noise of uneven contrast, `[N, 3, H, W]`."""
    generator = torch.Generator().manual_seed(1000 + number)
    colour = torch.rand(count, 3, 1, 1, generator=generator)
    contrast = 0.1 + 0.9 * torch.rand(count, 1, 1, 1, generator=generator)
    noise = torch.rand(count, 3, size, size, generator=generator)
    return (colour * (1 - contrast) + noise * contrast).clamp(0, 1)


def cells(number: int, count: int = 8) -> Tensor:
    """Batch `number` of a table of features, `[N, 6]` in [0, 1]."""
    return torch.rand(count, 6, generator=torch.Generator().manual_seed(2000 + number))


def tokens(number: int, count: int = 8) -> Tensor:
    """Batch `number` of token ids, `[N, 7]`, int64."""
    return torch.randint(0, 11, (count, 7), generator=torch.Generator().manual_seed(3000 + number))


def built(make: Callable[[], nn.Module], train: bool = False) -> nn.Module:
    """Build from a fixed seed, give batch norms statistics and weights of their own, and sharpen the answers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model = make()
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.3, 0.8)
            if isinstance(module, nn.modules.batchnorm._BatchNorm | nn.GroupNorm | nn.LayerNorm):
                for parameter in module.parameters():
                    parameter.data.add_(torch.randn(parameter.shape), alpha=0.1)
        heads = [module for module in model.modules() if isinstance(module, nn.Linear)]
        with torch.no_grad():
            heads[-1].weight.mul_(8)
    return model.train(train)


class ConvNet(nn.Module):
    """Two convolutions, each with a norm, and a linear head."""

    def __init__(self, norm: Callable[[int], nn.Module], dropout: float = 0.0) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm1 = norm(8)
        self.conv = nn.Conv2d(8, 12, 3, stride=2, padding=1, bias=False)
        self.norm2 = norm(12)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.stem(x)))
        x = F.relu(self.norm2(self.conv(x)))
        return self.head(self.dropout(x.mean((2, 3))))


class Block(nn.Module):
    """A basic residual block: two convolutions, each with batch norm, and a projection where the shape changes."""

    def __init__(self, inward: int, outward: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inward, outward, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outward)
        self.conv2 = nn.Conv2d(outward, outward, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outward)
        same = inward == outward and stride == 1
        self.skip = nn.Identity() if same else nn.Conv2d(inward, outward, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.skip(x) + self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x))))))


class Residual(nn.Module):
    """A stem, two stages of residual blocks, and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.stage1 = nn.Sequential(Block(6, 6, 1), Block(6, 6, 1))
        self.stage2 = nn.Sequential(Block(6, 10, 2), Block(10, 10, 1))
        self.head = nn.Linear(10, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stage2(self.stage1(F.relu(self.norm(self.stem(x)))))
        return self.head(x.mean((2, 3)))


class TinyViT(nn.Module):
    """Patches of four pixels, one attention block, layer norms."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 16, 4, stride=4)
        self.position = nn.Parameter(torch.randn(1, 4, 16) * 0.1)
        self.norm1 = nn.LayerNorm(16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.norm2 = nn.LayerNorm(16)
        self.mlp = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
        self.norm3 = nn.LayerNorm(16)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2) + self.position
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        x = x + self.mlp(self.norm2(x))
        return self.head(self.norm3(x).mean(1))


class Plain(nn.Module):
    """No normalisation at all."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.conv(x)).mean((2, 3)))


class NoConvolution(nn.Module):
    """Neither norm nor convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.ReLU(), nn.Linear(16, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Mlp(nn.Module):
    """Batch norm over rows of a table."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, CLASSES)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Tied(nn.Module):
    """One norm's weight shared by another, and one whole norm module standing in two places."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(8)
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(8)
        self.norm2.weight = self.norm1.weight
        self.again = self.norm2
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.stem(x)))
        x = F.relu(self.norm2(self.conv(x)))
        return self.head(self.again(x).mean((2, 3)))


class Buffered(nn.Module):
    """Counts its rows and centres its features by a mean that its own forward updates, in place."""

    def __init__(self) -> None:
        super().__init__()
        self.net = ConvNet(nn.BatchNorm2d)
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))
        self.register_buffer("centre", torch.zeros(CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        self.seen.add_(len(x))
        logits = self.net(x)
        with torch.no_grad():
            self.centre.lerp_(logits.detach().mean(0), 0.2)
        return logits - self.centre


class Rebuffered(Buffered):
    """The same, but each update puts a new tensor in the buffer's place."""

    def forward(self, x: Tensor) -> Tensor:
        self.seen = self.seen + len(x)
        logits = self.net(x)
        self.centre = torch.lerp(self.centre, logits.detach().mean(0), 0.2)
        return logits - self.centre


class Text(nn.Module):
    """Token ids in, layer norm, logits out."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 16)
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.embedding(x)).mean(1))


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[int], Tensor]]] = {
    "batch_norm": (lambda: built(lambda: ConvNet(nn.BatchNorm2d)), images),
    "batch_norm_train_mode": (lambda: built(lambda: ConvNet(nn.BatchNorm2d, 0.5), train=True), images),
    "batch_norm_without_affine": (lambda: built(lambda: ConvNet(lambda c: nn.BatchNorm2d(c, affine=False))), images),
    "batch_norm_without_statistics": (
        lambda: built(lambda: ConvNet(lambda c: nn.BatchNorm2d(c, track_running_stats=False))),
        images,
    ),
    "sync_batch_norm": (lambda: built(lambda: ConvNet(nn.SyncBatchNorm)), images),
    "group_norm": (lambda: built(lambda: ConvNet(lambda c: nn.GroupNorm(4, c))), images),
    "residual": (lambda: built(Residual), images),
    "vit": (lambda: built(TinyViT), images),
    "class_token_vit": (
        lambda: built(lambda: VisionTransformer(CLASSES, 8, width=16, depth=2, heads=2)),
        images,
    ),
    "no_norm": (lambda: built(Plain), images),
    "no_norm_no_convolution": (lambda: built(NoConvolution), images),
    "mlp": (lambda: built(Mlp, train=True), cells),
    "tied": (lambda: built(Tied), images),
    "buffered": (lambda: built(Buffered), images),
    "rebuffered": (lambda: built(Rebuffered), images),
    "text": (lambda: built(Text), tokens),
}
"""Source models by kind: a factory and its stream. Structured outputs are made by `wrapped`."""


@dataclasses.dataclass
class ModelOutput(OrderedDict):
    """What transformers' models return: a dataclass that is also an ordered dictionary of its set fields."""

    logits: Any = None
    hidden_states: Any = None
    loss: Any = None

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is not None:
                super().__setitem__(field.name, value)

    def __getitem__(self, key: str | int | slice) -> Any:
        if isinstance(key, str):
            return dict(self.items())[key]
        return tuple(self.values())[key]

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        super().__setattr__(key, value)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.keys() and value is not None:
            super().__setitem__(name, value)
        super().__setattr__(name, value)

    def __delitem__(self, *args: Any, **kwargs: Any) -> None:
        raise RuntimeError("a ModelOutput keeps its fields")

    def pop(self, *args: Any, **kwargs: Any) -> None:
        raise RuntimeError("a ModelOutput keeps its fields")

    def update(self, *args: Any, **kwargs: Any) -> None:
        raise RuntimeError("a ModelOutput keeps its fields")


@dataclasses.dataclass(frozen=True)
class Answer:
    logits: Tensor
    features: tuple[Tensor, ...]
    note: str = "plain"


class Pair(NamedTuple):
    features: Tensor
    logits: Tensor


SHAPES: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "tensor": lambda logits, features: logits,
    "dict": lambda logits, features: {"features": features, "logits": logits, "scale": torch.tensor(2.0), "n": 3},
    "ordered_dict": lambda logits, features: OrderedDict(logits=logits, features=features),
    "dataclass": lambda logits, features: Answer(logits, (features, features * 2)),
    "namedtuple": lambda logits, features: Pair(features, logits),
    "tuple": lambda logits, features: (logits, [features], None),
    "list": lambda logits, features: [logits, features],
    "model_output": lambda logits, features: ModelOutput(logits=logits, hidden_states=(features, features + 1)),
}
"""Ways to hand out logits and other rows."""


class Wrapped(nn.Module):
    """Takes `pixel_values` (and a weight for each row), returns logits and features in one of `SHAPES`."""

    def __init__(self, shape: str) -> None:
        super().__init__()
        self.net = ConvNet(nn.BatchNorm2d)
        self.shape = shape

    def forward(self, pixel_values: Tensor, weights: Tensor | None = None) -> Any:
        logits = self.net(pixel_values)
        if weights is not None:
            logits = logits * weights[:, None]
        return SHAPES[self.shape](logits, pixel_values.mean((2, 3)) + logits[:, :3])


def wrapped(shape: str) -> nn.Module:
    return built(lambda: Wrapped(shape))
