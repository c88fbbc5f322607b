"""DoRL's autoencoder: a transformer that sees a quarter of the tokens and makes the rest, and the cell, of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from acclimate.core.config import between, one_of
from acclimate.fields.cells.embedding.autoencoder import Autoencoder
from acclimate.models.initial import private_init
from acclimate.models.transformer import Block

__all__ = ["DoRL"]

_PUBLISHED = ((4, 2, 1, 512), (4, 2, 1, 256), (4, 1, 1, 128), (8, 1, 1, 64), (8, 2, 1, 3))
"""Kernel, stride, padding and channels of the transposed convolutions from 14 x 14 tokens to 128 x 128 pixels."""


class DoRL(Autoencoder):
    """Feature maps `[N, D, g, g]` to codes `[N, D]`: the class token behind the encoder's last norm.

    Tokens get positions; with a generator `masked` of them, drawn for each sample, are hidden from the encoder (`depth`
    pre-norm blocks, class token first). The decoder (`decoder_depth` blocks) gets a learned token in their places and
    other positions, and makes the feature map m anew; transposed convolutions draw the cell from m, and the mean of m
    goes through a linear layer to q, 50 numbers. `L = 1 - SSIM + 2 sum_i ||q_0 - q_i||^2 / 50 + ||m - F||^2 / size`,
    with mean q of each laboratory, over all tokens of F.

    Arguments:
        channels: D of the feature map, a multiple of `heads`.
        grid: g; 14, or what doubles to `picture`.
        picture: pixels of a side of what is drawn, 128 as published.
        depth, decoder_depth, heads: 12, 4 and 12 as published.
        masked: share of tokens, 0.75 as published.
        share: of the published channels that the drawing layers have.
        domain_weight, feature_weight: 2 and 1 as published.
        aligned: what is brought together: "map", q as published, or "code", the class token.
        pairs: see `mean_discrepancy`.
        seed: of the initial weights.

    Source: DoRL (arXiv 2408.07467). Fails as BC-SAM does. Cost: `depth` blocks over `g^2 + 1` tokens.
    """

    def __init__(
        self,
        channels: int,
        grid: int,
        *,
        depth: int = 12,
        decoder_depth: int = 4,
        heads: int = 12,
        masked: float = 0.75,
        share: float = 1.0,
        picture: int = 128,
        domain_weight: float = 2.0,
        feature_weight: float = 1.0,
        aligned: str = "map",
        pairs: str = "anchor",
        seed: int = 0,
    ) -> None:
        super().__init__()
        between(0, 1, masked=masked)
        one_of("map", "code", aligned=aligned)
        self.aligned = aligned
        self.code, self.grid, self.masked, self.pairs = channels, grid, masked, pairs
        self.domain_weight, self.feature_weight = domain_weight, feature_weight
        with private_init(seed):
            self.blocks = nn.Sequential(*(_block(channels, heads) for _ in range(depth)))
            self.norm = nn.LayerNorm(channels)
            self.decoder = nn.Sequential(*(_block(channels, heads) for _ in range(decoder_depth)))
            self.drawing = _drawing(channels, grid, picture, share)
            self.projector = nn.Linear(channels, 50)
            self.first = _token(1, channels)
            self.hidden = _token(1, channels)
            self.places = _token(grid * grid, channels)
            self.decoder_places = _token(grid * grid + 1, channels)

    def forward(self, features: Tensor) -> Tensor:
        return self._encoded(self._tokens(features))[:, 0]

    def parts(self, features: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor, Tensor | None]:
        tokens = self._tokens(features)
        count, length, width = tokens.shape
        if generator is None:
            kept = torch.arange(length, device=tokens.device).expand(count, length)
        else:
            order = torch.rand(count, length, generator=generator).to(tokens.device).argsort(1)
            kept = order[:, : max(1, int(length * (1 - self.masked)))]
        seen = self._encoded(tokens.gather(1, kept[..., None].expand(-1, -1, width)))
        whole = self.hidden.expand(count, length, -1).scatter(1, kept[..., None].expand(-1, -1, width), seen[:, 1:])
        made = self.decoder(torch.cat([seen[:, :1], whole], 1) + self.decoder_places)[:, 1:]
        again = made.transpose(1, 2).reshape(count, width, self.grid, self.grid)
        # A layer that is learned along could make any means equal by itself, and does.
        aligned = self.projector(again.mean((2, 3))) if self.aligned == "map" else seen[:, 0]
        return self.drawing(again), aligned, again

    def _tokens(self, features: Tensor) -> Tensor:
        if features.ndim != 4 or features.shape[1:] != (self.code, self.grid, self.grid):
            raise ValueError(
                f"found features {list(features.shape)}, expected [N, {self.code}, {self.grid}, {self.grid}]."
            )
        return features.flatten(2).transpose(1, 2) + self.places

    def _encoded(self, tokens: Tensor) -> Tensor:
        """The class token and those that are seen, `[N, 1 + T, D]`."""
        return self.norm(self.blocks(torch.cat([self.first.expand(len(tokens), 1, -1), tokens], 1)))


def _block(width: int, heads: int) -> Block:
    return Block(width, heads, 4 * width, bias=False)


def _token(count: int, width: int) -> nn.Parameter:
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(count, width), std=0.02))


def _drawing(channels: int, grid: int, picture: int, share: float) -> nn.Sequential:
    """As published from 14 tokens to 128 pixels a side; else each layer doubles."""
    steps = _PUBLISHED if (grid, picture) == (14, 128) else _doubling(grid, picture)
    layers: list[nn.Module] = []
    width = channels
    for kernel, stride, padding, published in steps:
        out = 3 if published == 3 else max(8, round(published * share))
        layers += [nn.ConvTranspose2d(width, out, kernel, stride, padding), nn.ReLU()]
        width = out
    return nn.Sequential(*layers[:-1])


def _doubling(grid: int, picture: int) -> list[tuple[int, int, int, int]]:
    doublings = (picture // grid).bit_length() - 1
    if doublings < 1 or grid << doublings != picture:
        raise ValueError(
            f"found {grid} tokens a side and pictures of {picture} pixels, expected 14 and 128, or tokens that double "
            "to the pixels, such as 16 and 128."
        )
    return [(4, 2, 1, 512 >> step) for step in range(doublings - 1)] + [(4, 2, 1, 3)]
