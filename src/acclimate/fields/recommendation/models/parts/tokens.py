"""Tokens of a row: mixed without weights, and changed each by a network of its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["PerToken", "WholeNorm", "mix"]


def mix(tokens: Tensor) -> Tensor:
    """Exchange pieces: tokens `[B, T, d]` of T pieces each; piece h of token t becomes piece t of token h.

    A permutation of the numbers, undone by itself. d is a multiple of T.

    >>> mix(torch.tensor([[[1, 2, 3, 4], [5, 6, 7, 8]]])).tolist()
    [[[1, 2, 5, 6], [3, 4, 7, 8]]]
    """
    return tokens.unflatten(2, (tokens.shape[1], -1)).transpose(1, 2).flatten(2)


class PerToken(nn.Module):
    """Linear, GELU, linear, with weights of its own for each token: `[B, T, d] -> [B, T, d]`.

    Drawn as torch draws a linear layer: uniform within one over the root of the inputs.
    """

    def __init__(self, tokens: int, width: int, hidden: int) -> None:
        super().__init__()
        self.inward = _uniform(width, tokens, width, hidden)
        self.inward_bias = _uniform(width, tokens, 1, hidden)
        self.outward = _uniform(hidden, tokens, hidden, width)
        self.outward_bias = _uniform(hidden, tokens, 1, width)

    def forward(self, tokens: Tensor) -> Tensor:
        by_token = tokens.transpose(0, 1)
        hidden = F.gelu(torch.baddbmm(self.inward_bias, by_token, self.inward))
        return torch.baddbmm(self.outward_bias, hidden, self.outward).transpose(0, 1)


def _uniform(inputs: int, *shape: int) -> nn.Parameter:
    return nn.Parameter(torch.empty(shape).uniform_(-(inputs**-0.5), inputs**-0.5))


class WholeNorm(nn.Module):
    """Mean 0 and variance 1 over the whole tensor, batch included, without weights.

    For parity with RankMixer's reference alone: what a row gets depends on the rows beside it.
    """

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape)
