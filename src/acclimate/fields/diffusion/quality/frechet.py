"""How far two sets of features are apart, as Gaussians."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["frechet_distance"]


def frechet_distance(features: Tensor, reference: Tensor) -> Tensor:
    """`|m - n|^2 + tr (A + B - 2 (A B)^(1/2))`, with means m, n and covariances A, B of the two sets; float64.

    The distance that FID takes of the features of an Inception network; of other features the numbers are others.

    Arguments: `[N, D]` and `[M, D]`, of two rows or more.

    Biased upwards by few rows: compare only sets of equal sizes. Raises ValueError for shapes that do not go together.

    Source: Heusel et al.: GANs Trained by a Two Time-Scale Update Rule, NeurIPS 2017 (arXiv 1706.08500).

    >>> x = torch.tensor([[-1.0], [1.0]])
    >>> round(float(frechet_distance(x, 2 * x + 3)), 6)  # 9 + 2 + 8 - 2 * 4
    11.0
    """
    if features.ndim != 2 or reference.ndim != 2 or features.shape[1] != reference.shape[1]:
        raise ValueError(
            f"found features {list(features.shape)} and {list(reference.shape)}; expected [N, D] and [M, D]."
        )
    if min(len(features), len(reference)) < 2:
        raise ValueError(f"found {len(features)} and {len(reference)} rows; expected 2 or more, for a covariance.")
    (m, a), (n, b) = _fitted(features), _fitted(reference)
    root = _root(a)
    # (A B)^(1/2) has the eigenvalues of the symmetric (A^(1/2) B A^(1/2))^(1/2).
    shared = torch.linalg.eigvalsh(root @ b @ root).clamp_min(0).sqrt().sum()
    return (m - n).square().sum() + a.trace() + b.trace() - 2 * shared


def _fitted(features: Tensor) -> tuple[Tensor, Tensor]:
    x = features.double()
    mean = x.mean(0)
    return mean, (x - mean).T @ (x - mean) / (len(x) - 1)


def _root(symmetric: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(symmetric)
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.T
