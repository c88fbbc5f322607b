"""What the two autoencoders have in common."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from acclimate.fields.cells.embedding.domains import mean_discrepancy
from acclimate.fields.cells.embedding.similarity import structural_similarity

__all__ = ["Autoencoder", "Losses"]


class Losses(NamedTuple):
    """Of a batch, each one number: `picture`, 1 - SSIM; `domains`, of means; `features`, of the feature map."""

    picture: Tensor
    domains: Tensor
    features: Tensor


class Autoencoder(nn.Module):
    """Feature maps `[N, D, g, g]` of a segmenter to codes `[N, code]`.

    `loss = picture + domain_weight domains + feature_weight features`. A kind of autoencoder says in `parts` what it
    draws, which codes it aligns and what it makes of the feature map; `forward` gives codes.
    """

    code: int
    """Numbers of a code."""
    domain_weight: float
    feature_weight: float = 0.0
    pairs: str = "anchor"

    def parts(self, features: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Pictures `[N, 3, P, P]`, codes to align `[N, A]`, and the feature map as made anew, if it is.

        What is drawn is drawn by `generator`; without one nothing is.
        """
        raise NotImplementedError

    def losses(
        self, features: Tensor, pictures: Tensor, domains: Tensor, generator: torch.Generator | None = None
    ) -> Losses:
        """The losses of a batch: pictures `[N, 3, P, P]` in [0, 1], domains int64 `[N]`; for `generator` see
        `parts`."""
        drawn, codes, again = self.parts(features, generator)
        return Losses(
            1 - structural_similarity(drawn, pictures),
            mean_discrepancy(codes, domains, self.pairs),
            features.new_zeros(()) if again is None else (again - features).square().mean(),
        )

    def loss(self, losses: Losses) -> Tensor:
        """The one number that is made small."""
        return losses.picture + self.domain_weight * losses.domains + self.feature_weight * losses.features
