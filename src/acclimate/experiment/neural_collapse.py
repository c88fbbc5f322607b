"""How far a trained classifier has collapsed: NC1 to NC4 on labelled images of its source."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from acclimate.parts.alignment import alignment_distance, directions

__all__ = ["NeuralCollapse", "neural_collapse"]


@dataclass(frozen=True, kw_only=True)
class NeuralCollapse:
    """Six numbers that go to 0 as training ends.

    `nc1`: scatter within classes over scatter between them, `tr(S_W S_B^+) / C`. `nc2_norms`: spread of the norms of
    centred class means over their mean. `nc2_angles`: mean distance of their cosines from `-1 / (C - 1)`. `nc3`:
    distance of the classifier from the centred means, both at Frobenius norm 1. `nc4`: share of samples that the
    nearest class mean answers otherwise. `nc3_plus`: mean distance of a sample's direction from its class's row.
    """

    nc1: float
    nc2_norms: float
    nc2_angles: float
    nc3: float
    nc4: float
    nc3_plus: float
    samples: int


def neural_collapse(features: Tensor, labels: Tensor, weight: Tensor, answers: Tensor) -> NeuralCollapse:
    """Measured on features `[N, D]`, labels and answers int `[N]`, and the weight `[C, D]` of the last linear layer.

    ValueError unless each class has a sample.
    """
    h, w = features.double(), weight.double()
    classes = len(w)
    counts = labels.bincount(minlength=classes)
    if len(counts) > classes or not bool((counts > 0).all()):
        raise ValueError(
            f"the collapse of {classes} classes needs a labelled image of each; the source images have "
            f"{int((counts > 0).sum())} classes. Take more of them."
        )
    sums = torch.zeros(classes, h.shape[1], dtype=h.dtype).index_add_(0, labels, h)
    means = sums / counts[:, None]
    centred = means - h.mean(0)
    away = h - means[labels]
    within, between = away.T @ away / len(h), centred.T @ centred / classes
    norms = centred.norm(dim=1)
    cosines = torch.nn.functional.normalize(centred, dim=1)
    pairs = (cosines @ cosines.T)[~torch.eye(classes, dtype=torch.bool)]
    nearest = torch.cdist(h, means).argmin(1)
    return NeuralCollapse(
        nc1=float((within @ torch.linalg.pinv(between, hermitian=True)).trace() / classes),
        nc2_norms=float(norms.std(correction=0) / norms.mean()),
        nc2_angles=float((pairs + 1 / (classes - 1)).abs().mean()),
        nc3=float((w / w.norm() - centred / centred.norm()).norm()),
        nc4=float((nearest != answers).double().mean()),
        nc3_plus=float(alignment_distance(directions(h, w), labels).mean()),
        samples=len(h),
    )
