"""BC-SAM's autoencoder: a small convolutional network with a code of fifty numbers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from acclimate.core.config import one_of
from acclimate.fields.cells.embedding.autoencoder import Autoencoder
from acclimate.models.initial import private_init

__all__ = ["BCSAM"]

_DRAWING = ((5, 1, 150), (4, 2, 200), (3, 1, 256), (5, 2, 200), (3, 2, 180), (3, 2, 150), (2, 1, 128))
"""Kernel, stride and channels of the transposed convolutions that draw 128 x 128 pixels from one; 64 x 64 without the
last but one."""

PICTURES = (64, 128)


class BCSAM(Autoencoder):
    """Feature maps `[N, D, g, g]`, g of at least 3, to codes `[N, code]`, none below nought.

    Encoder: `D -> 256` (1x1), `256 -> 256` (3x3, stride 2), `256 -> code` (1x1), each with batch normalisation and
    ReLU, then the mean over places. Decoder: seven transposed convolutions, likewise, to 128 x 128 pixels, and one with
    a sigmoid. `L = 1 - SSIM + domain_weight sum_i ||m_0 - m_i||^2 / code` over the laboratories' mean codes m.

    Arguments:
        channels: D of the feature map.
        code: 50 as published.
        inner: channels of the encoder's first two layers, 256 as published.
        share: of the published channels that the drawing layers have, for small machines; 1 as published.
        picture: pixels of a side of what is drawn, 128 as published, or 64.
        domain_weight: 5 as published.
        pairs: see `mean_discrepancy`.
        seed: of the initial weights.

    Source: BC-SAM, ISBI 2024 (arXiv 2408.06716). Fails where laboratories hold other shares of classes: their means
    are drawn together all the same.
    """

    def __init__(
        self,
        channels: int,
        *,
        code: int = 50,
        inner: int = 256,
        share: float = 1.0,
        picture: int = 128,
        domain_weight: float = 5.0,
        pairs: str = "anchor",
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.code, self.domain_weight, self.pairs = code, domain_weight, pairs
        one_of(*PICTURES, picture=picture)
        with private_init(seed):
            self.encoder = nn.Sequential(
                *_step(nn.Conv2d(channels, inner, 1)),
                *_step(nn.Conv2d(inner, inner, 3, 2)),
                *_step(nn.Conv2d(inner, code, 1)),
            )
            layers: list[nn.Module] = []
            width = code
            for kernel, stride, published in _DRAWING if picture == 128 else (*_DRAWING[:-2], _DRAWING[-1]):
                out = max(8, round(published * share))
                layers += _step(nn.ConvTranspose2d(width, out, kernel, stride))
                width = out
            self.decoder = nn.Sequential(*layers, nn.ConvTranspose2d(width, 3, 1), nn.Sigmoid())

    def forward(self, features: Tensor) -> Tensor:
        return self.encoder(features).mean((2, 3))

    def parts(self, features: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor, Tensor | None]:
        codes = self(features)
        return self.decoder(codes[:, :, None, None]), codes, None


def _step(layer: nn.Conv2d | nn.ConvTranspose2d) -> list[nn.Module]:
    return [layer, nn.BatchNorm2d(layer.out_channels), nn.ReLU()]
