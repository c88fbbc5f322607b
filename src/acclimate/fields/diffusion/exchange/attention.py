"""Attention in one piece, and in pieces that are merged."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["attention", "merge", "partial_attention"]

_ROOM = 1 << 24


def attention(query: Tensor, key: Tensor, value: Tensor, scale: float | None = None) -> Tensor:
    """`softmax(scale Q K^T) V` for `[B, n, H, D]` and `[B, m, H, D]`: `[B, n, H, D]`."""
    q, k, v = (each.transpose(1, 2) for each in (query, key, value))
    return F.scaled_dot_product_attention(q, k, v, scale=scale).transpose(1, 2)


def partial_attention(query: Tensor, key: Tensor, value: Tensor, scale: float | None = None) -> tuple[Tensor, Tensor]:
    """Attention to some of the tokens, and the weight that it has among all.

    Arguments:
        query, key, value: `[B, n, H, D]` and `[B, m, H, D]`.
        scale: `1 / sqrt(D)` by default.

    Returns:
        The output `[B, n, H, D]` and the log-sum-exp of the scores `[B, n, H]`, both in float32, from chunks of
        queries so that no more than 2^24 scores exist at a time.
    """
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    q, k, v = (each.transpose(1, 2).float() for each in (query, key, value))
    each = max(1, _ROOM // max(1, math.prod(q.shape[:2]) * k.shape[2]))
    pieces = [_piece(part, k, v, factor) for part in q.split(each, 2)]
    out, weight = (torch.cat(parts, 2) for parts in zip(*pieces, strict=True))
    return out.transpose(1, 2), weight.transpose(1, 2)


def _piece(query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    scores = query @ key.transpose(-1, -2) * scale
    weight = scores.logsumexp(-1)
    return (scores - weight[..., None]).exp() @ value, weight


def merge(out: Tensor, weight: Tensor, other: Tensor, other_weight: Tensor) -> tuple[Tensor, Tensor]:
    """One output and weight from those of two disjoint sets of tokens.

    `m = max(l1, l2)`, `out = (e^(l1-m) o1 + e^(l2-m) o2) / (e^(l1-m) + e^(l2-m))`, `l = m + log(...)`.

    Source: online softmax, as in Dao et al., NeurIPS 2022.

    >>> q, k, v = torch.ones(1, 1, 1, 1), torch.tensor([0.0, 1.0]).view(1, 2, 1, 1), torch.eye(2).view(1, 2, 1, 2)
    >>> whole, _ = partial_attention(q, k, v)
    >>> first, second = (partial_attention(q, k[:, i : i + 1], v[:, i : i + 1]) for i in (0, 1))
    >>> torch.allclose(merge(*first, *second)[0], whole)
    True
    """
    peak = torch.maximum(weight, other_weight)
    mine, theirs = (weight - peak).exp(), (other_weight - peak).exp()
    total = mine + theirs
    share = (mine / total)[..., None]
    return share * out + (theirs / total)[..., None] * other, peak + total.log()
