r"""A small vision transformer.

Patches become tokens, $z_0 = [c; E x_1; \dots; E x_P] + p$; each block adds $\mathrm{MSA}(\mathrm{LN}(z))$
and then $\mathrm{MLP}(\mathrm{LN}(z))$; the class token, normalised, feeds a linear head.

A. Dosovitskiy et al.: An Image is Worth 16x16 Words, ICLR 2021, equations 1 to 4.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from acclimate.models.initial import private_init
from acclimate.models.weights import filled

__all__ = ["Block", "VisionTransformer", "cifar10_vit", "digits_vit", "small_vit"]


class _Attention(nn.Module):
    # Not nn.MultiheadAttention: its fast path computes other bits in evaluation than with gradients.
    def __init__(self, width: int, heads: int, bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=bias)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        count, length, width = tokens.shape
        split = self.qkv(tokens).view(count, length, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)  # each [B, heads, T, width / heads]
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.proj(mixed.transpose(1, 2).reshape(count, length, width))


class Block(nn.Module):
    """A pre-norm transformer block over tokens `[B, T, width]`."""

    def __init__(self, width: int, heads: int, hidden: int, *, bias: bool = True) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = _Attention(width, heads, bias)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attention(self.norm1(tokens))
        return tokens + self.mlp(self.norm2(tokens))


def _convolutions(patch: int, width: int) -> nn.Sequential:
    """As many 3x3 convolutions of stride 2 as halve the image to one pixel for each patch; the last is linear."""
    halvings = patch.bit_length() - 1
    widths = [3, *(width >> (halvings - 1 - step) for step in range(halvings))]
    layers: list[nn.Module] = []
    for inward, outward in pairwise(widths):
        layers += [nn.Conv2d(inward, outward, 3, 2, 1), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class VisionTransformer(nn.Module):
    """`[B, 3, S, S]` in [0, 1] -> logits `[B, classes]`; input is normalised inside by 0.5 and 0.5.

    Arguments:
        classes: number of outputs.
        image_size: side of the images in pixels, a multiple of `patch`.
        patch: side of a patch in pixels.
        stem: how patches become tokens: `linear`, each by itself, or `convolutions` of stride 2, which learn from
            few images (Xiao et al., NeurIPS 2021); `patch` is then a power of two.
        width: channels of a token, a multiple of `heads`.
        depth: number of blocks.
        heads: of attention.
        seed: of the initial weights; the global generator is not used.

    Raises:
        ValueError: sizes that do not divide, or an unknown stem.
    """

    def __init__(
        self,
        classes: int,
        image_size: int,
        *,
        patch: int = 4,
        stem: Literal["linear", "convolutions"] = "linear",
        width: int = 64,
        depth: int = 3,
        heads: int = 4,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if image_size % patch or width % heads:
            raise ValueError(
                f"image_size={image_size} with patch={patch}, width={width} with heads={heads}; expected the "
                "first of each to be a multiple of the second."
            )
        if stem not in ("linear", "convolutions") or (stem == "convolutions" and patch not in (2, 4, 8, 16)):
            raise ValueError(
                f"stem={stem!r} with patch={patch}; expected 'linear', or 'convolutions' with a patch of 2, 4, 8 or 16."
            )
        with private_init(seed):
            self.embed = nn.Conv2d(3, width, patch, patch) if stem == "linear" else _convolutions(patch, width)
            self.token = nn.Parameter(torch.zeros(1, 1, width))
            self.place = nn.Parameter(torch.empty(1, (image_size // patch) ** 2 + 1, width))
            nn.init.trunc_normal_(self.place, std=0.02)
            self.blocks = nn.Sequential(*(Block(width, heads, 2 * width) for _ in range(depth)))
            self.norm = nn.LayerNorm(width)
            self.head = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.embed(images * 2 - 1).flatten(2).transpose(1, 2)  # [B, P, width]
        tokens = torch.cat([self.token.expand(len(images), -1, -1), patches], 1) + self.place
        return self.head(self.norm(self.blocks(tokens))[:, 0])


def small_vit(classes: int = 10, image_size: int = 32, *, seed: int = 0) -> VisionTransformer:
    """A transformer of about 110,000 parameters with random weights, in evaluation mode.

    >>> small_vit()(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """
    return VisionTransformer(classes, image_size, seed=seed).eval()


def cifar10_vit(weights: str | Path | None = None, *, seed: int = 0) -> VisionTransformer:
    """A transformer with a stem of convolutions for CIFAR-10: five blocks of width 64, in evaluation mode.

    Arguments:
        weights: a safetensors file; without one the weights are random.
        seed: of the random weights.
    """
    return filled(VisionTransformer(10, 32, stem="convolutions", depth=5, seed=seed), weights)


def digits_vit(weights: str | Path | None = None, *, seed: int = 0) -> VisionTransformer:
    """A transformer with a stem of convolutions for the digits: three blocks of width 32, in evaluation mode.

    Arguments:
        weights: a safetensors file; without one the weights are random.
        seed: of the random weights.
    """
    return filled(VisionTransformer(10, 32, stem="convolutions", width=32, seed=seed), weights)
