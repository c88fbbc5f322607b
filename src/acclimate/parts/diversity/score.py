"""The diversity of a batch: how its samples scatter around the source (DATTA)."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["APEXES", "SCORES", "diversity_angles", "diversity_score", "energy_score"]

APEXES = ("source", "sample")
SCORES = ("std", "var", "energy")
_LEAST = 1e-10


def diversity_angles(features: Tensor, source_mean: Tensor, apex: str = "source") -> Tensor:
    """The angle of each sample `[N]`, in radians, from features `[N, C, ...]` and the source's mean `[C]`.

    With the batch's mean m_T and the source's m_S, at each position the cosine between `F - m_S` and `m_T - m_S`
    (`apex="source"`: at the source's mean, between the sample and the batch) or between `m_S - F` and `m_T - F`
    (`apex="sample"`: at the sample, as in the released code); then one arccos of the mean cosine of each sample.
    """
    wide = features.detach().to(torch.promote_types(features.dtype, torch.float32))
    shape = (1, -1, *(1,) * (wide.ndim - 2))
    source = source_mean.detach().to(wide.dtype).view(shape)
    batch = wide.mean((0, *range(2, wide.ndim)), keepdim=True)
    one, other = (wide - source, batch - source) if apex == "source" else (source - wide, batch - wide)
    product = (one * other).sum(1)
    lengths = torch.linalg.vector_norm(one, dim=1) * torch.linalg.vector_norm(other, dim=1)
    cosine = (product / lengths.clamp_min(_LEAST)).reshape(len(wide), -1).mean(1)
    return torch.arccos(cosine.clamp(-1, 1))


def energy_score(features: Tensor, source_mean: Tensor) -> Tensor:
    """How much the samples' distances from the source scatter, one number, from features `[N, C, ...]`.

    `S = sqrt(mean_c var_b ln e_bc)`, where `e_bc` is the mean of `(F - m_S)^2` over the positions of sample b and
    channel c: a domain scales a channel alike in all its samples. 0 for one sample. Ours, not DATTA's.

    >>> round(energy_score(torch.tensor([[1.0], [torch.e]]), torch.zeros(1)).item(), 3)
    1.0
    """
    wide = features.detach().to(torch.promote_types(features.dtype, torch.float32))
    shape = (1, -1, *(1,) * (wide.ndim - 2))
    apart = (wide - source_mean.detach().to(wide.dtype).view(shape)).square_().reshape(*wide.shape[:2], -1)
    return apart.mean(2).clamp_min(_LEAST).log().var(0, correction=0).mean().sqrt()


def diversity_score(features: Tensor, source_mean: Tensor, apex: str = "source", score: str = "std") -> Tensor:
    """The diversity of a batch, one number, from features `[N, C, ...]` and the source's mean `[C]`.

    How much the angles of its samples scatter, `S = std_b theta_b` over N, or its square with `score="var"`: small
    where all samples leave the source in the same direction; or `energy_score`. 0 for one sample.
    Source: DATTA, ICME 2025 (arXiv 2408.08056): the apex from its figure, the standard deviation from its code.

    >>> features = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> [round(angle, 3) for angle in diversity_angles(features, torch.zeros(2)).tolist()]
    [0.785, 0.785, 0.0]
    >>> round(diversity_score(features, torch.zeros(2)).item(), 3)
    0.37
    """
    if score == "energy":
        return energy_score(features, source_mean)
    spread = diversity_angles(features, source_mean, apex).var(correction=0)
    return spread.sqrt() if score == "std" else spread
