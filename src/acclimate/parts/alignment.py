"""How features align with the rows of a linear classifier: distances, targets and losses, all pure."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from acclimate.parts.features import unit

__all__ = [
    "ALIGNMENTS",
    "CANDIDATES",
    "METRICS",
    "VARIANTS",
    "Directions",
    "alignment_distance",
    "alignment_loss",
    "directions",
    "hybrid_target",
]

ALIGNMENTS = ("infonce", "cosine_l2", "margin_triplet", "hinge_cos")
METRICS = ("cos", "euclid")
CANDIDATES = ("prob", "hybrid")
VARIANTS = ("code", "paper")

_EPSILON = 1e-8
_MARGIN = 0.2


class Directions(NamedTuple):
    """Features `[N, D]` and rows of the classifier `[C, D]` at length 1, and their cosines `[N, C]`."""

    features: Tensor
    rows: Tensor
    cosines: Tensor


def directions(features: Tensor, weight: Tensor) -> Directions:
    """Where features `[N, D]` and the rows of a weight `[C, D]` point, in at least float32."""
    found, rows = unit(features), unit(weight)
    return Directions(found, rows, F.linear(found, rows))


def alignment_distance(towards: Directions, classes: Tensor) -> Tensor:
    """`d_i = | h_i/|h_i| - w_c/|w_c| |` of each feature to the row of its class c: `[N]`, from 0 to 2.

    With true classes it is the G-FCA distance, with predicted ones the P-FCA distance.

    >>> alignment_distance(directions(torch.tensor([[3.0, 0.0]]), torch.eye(2)), torch.tensor([0])).item()
    0.0
    """
    return (towards.features - towards.rows[classes]).norm(dim=1)


def hybrid_target(
    cosines: Tensor,
    probabilities: Tensor,
    *,
    top_k: int,
    alpha: float,
    metric: str = "cos",
    candidates: str = "prob",
    variant: str = "code",
) -> tuple[Tensor, Tensor]:
    """Which k classes a feature is drawn to, and how much to each: indices and shares, two of `[N, k]`.

    `q = (1 - alpha) g + alpha c` with a geometric score g and a confidence c. "code": `g = softmax(-t)` where t is the
    distance to the k rows, standardised among them, and c the probabilities of the k classes, renormalised. "paper":
    `g = softmax(-distance)` and c the probabilities, both over all classes; q is cut to the k and renormalised. The k
    are those most probable ("prob") or highest in the paper's score ("hybrid"). Distances are `1 - cos` or
    `sqrt(2 - 2 cos)` ("euclid"). Ranks carry no gradient, shares do.
    """
    bounded = cosines.clamp(-1, 1)
    distance = 1 - bounded if metric == "cos" else (2 - 2 * bounded).clamp_min(_EPSILON).sqrt()
    score = probabilities
    if candidates == "hybrid" or variant == "paper":
        score = (1 - alpha) * (-distance).softmax(1) + alpha * probabilities
    ranked = score if candidates == "hybrid" else probabilities
    index = ranked.detach().topk(min(top_k, ranked.shape[1]), 1).indices
    if variant == "paper":
        target = score.gather(1, index)
    else:
        near = distance.gather(1, index)
        spread = near.std(1, correction=0, keepdim=True)  # torch gives it gradient 0 where it is 0
        geometric = ((near.mean(1, keepdim=True) - near) / (spread + _EPSILON)).softmax(1)
        confident = probabilities.gather(1, index) + _EPSILON
        target = (1 - alpha) * geometric + alpha * (confident / confident.sum(1, keepdim=True))
    target = target + _EPSILON
    return index, target / target.sum(1, keepdim=True)


def alignment_loss(
    towards: Directions, index: Tensor, target: Tensor, *, kind: str = "infonce", temperature: float = 1.0
) -> Tensor:
    """What it costs each feature u not to point where its target does: `[N]`.

    With cosines s, shares q on the k classes T, and `m` the direction of `sum_T q_j v_j` for unit rows v:
    "infonce" `log sum_j exp(s_j / tau) - log sum_T q_j exp(s_j / tau)`, all classes j in the first sum;
    "cosine_l2" `|u - m|^2`; "margin_triplet" `relu(0.2 - u.m + max_{j not in T} s_j)`;
    "hinge_cos" `relu(0.2 - sum_T q_j s_j + max_{j not in T} s_j)`. The last two need k < C.
    """
    cosines = towards.cosines
    near = cosines.gather(1, index)
    if kind == "infonce":
        return (cosines / temperature).logsumexp(1) - (near / temperature + target.log()).logsumexp(1)
    if kind == "hinge_cos":
        pull = (target * near).sum(1)
    else:
        middle = unit((target[:, None] @ towards.rows[index])[:, 0])
        if kind == "cosine_l2":
            return (towards.features - middle).square().sum(1)
        pull = (towards.features * middle).sum(1)
    rival = cosines.scatter(1, index, -torch.inf).amax(1)
    return (_MARGIN - pull + rival).relu()
