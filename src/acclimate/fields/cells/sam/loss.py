"""How far predicted masks are from true ones."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["dice", "mask_loss", "nearest", "parted_loss"]

_SMOOTH = 1e-5


def mask_loss(logits: Tensor, masks: Tensor, *, share: float = 0.8) -> Tensor:
    """`(1 - share) CE + share Dice` of maps: mean cross-entropy over pixels, and the mean over parts c of
    `1 - (2 sum p_c t_c + 1e-5) / (sum p_c^2 + sum t_c^2 + 1e-5)`, sums over batch and pixels, p the softmax.

    Arguments:
        logits: `[N, P, h, w]`.
        masks: int64 `[N, H, W]`, each below P; the nearest pixel counts where there are more of them than of logits.
        share: of Dice, 0.8 as published.

    Source: BC-SAM (arXiv 2408.06716).
    """
    near = nearest(masks, logits.shape[2])
    entropy = F.cross_entropy(logits, near)
    predicted = logits.softmax(1)
    true = F.one_hot(near, logits.shape[1]).permute(0, 3, 1, 2).to(predicted)
    over = (0, 2, 3)
    common = (2 * (predicted * true).sum(over) + _SMOOTH) / (
        predicted.square().sum(over) + true.square().sum(over) + _SMOOTH
    )
    return (1 - share) * entropy + share * (1 - common).mean()


def parted_loss(logits: Tensor, masks: Tensor, told: Tensor, *, share: float = 0.8) -> Tensor:
    """`mask_loss` where some masks do not tell the nucleus: of these, "cell" is all that is asked for.

    The loss of those that tell it and the loss of the others, weighted by their numbers; for the others parts 1 and up
    are one, whose logit is `log sum_c exp(logit_c)`, so that its probability is the sum of theirs.

    Arguments: `logits`, `masks`, `share` as for `mask_loss`; `told`, bool `[N]`, whose mask tells the nucleus.
    """
    if logits.shape[1] == 2 or bool(told.all()):
        return mask_loss(logits, masks.clamp_max(logits.shape[1] - 1), share=share)
    cell = torch.cat([logits[:, :1], logits[:, 1:].logsumexp(1, keepdim=True)], 1)[~told]
    untold = mask_loss(cell, masks[~told].clamp_max(1), share=share)
    if not bool(told.any()):
        return untold
    weight = told.float().mean()
    return weight * mask_loss(logits[told], masks[told], share=share) + (1 - weight) * untold


def nearest(masks: Tensor, size: int) -> Tensor:
    """Masks `[N, H, W]` at `[N, size, size]`, the nearest pixel of each."""
    return F.interpolate(masks[:, None].float(), (size, size))[:, 0].to(torch.int64)


def dice(predicted: Tensor, true: Tensor) -> Tensor:
    """`2 |A B| / (|A| + |B|)` of bool masks `[N, H, W]`, one number for each; 1 where both are empty.

    >>> dice(torch.tensor([[[True, False]]]), torch.tensor([[[True, True]]]))
    tensor([0.6667])
    """
    both = (predicted & true).flatten(1).sum(1)
    either = predicted.flatten(1).sum(1) + true.flatten(1).sum(1)
    return torch.where(either == 0, 1.0, 2 * both / either.clamp_min(1))
