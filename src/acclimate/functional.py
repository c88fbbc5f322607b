"""Entropies, divergences and similarities: pure functions of logits.

Every function takes logits of shape `[N, C]` (classes in axis 1, natural logarithms) and computes in at
least float32, because the tails that matter here vanish in half precision.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.overrides import handle_torch_function, has_torch_function_unary

__all__ = ["consistency", "entropy", "filtered_mean", "pseudo_label_loss", "uniform_divergence"]


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def entropy(logits: Tensor) -> Tensor:
    """Shannon entropy of each row, `-sum_c p_c log p_c`, in nats: `[N, C] -> [N]`.

    Fused: of the logits' size backward keeps one tensor. Its gradient is `dz = -p (log p + H)`. Classes masked by -inf
    count nothing. Not for torch.func transforms or second derivatives.

    >>> entropy(torch.zeros(1, 4)).item() == torch.tensor(4.0).log().item()
    True
    """
    if has_torch_function_unary(logits):  # so that what it keeps is known to be of this function
        return handle_torch_function(entropy, (logits,), logits)
    return _Entropy.apply(_wide(logits))  # pyright: ignore[reportReturnType]


class _Entropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        log_p = logits.log_softmax(1).clamp_min(torch.finfo(logits.dtype).min)  # 0 log 0 is 0
        ctx.save_for_backward(log_p)
        return -(log_p.exp() * log_p).sum(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        (log_p,) = ctx.saved_tensors
        p = log_p.exp()
        negative = (p * log_p).sum(1, keepdim=True)
        return (negative - log_p) * p * gradient.unsqueeze(1)


def consistency(logits: Tensor, view_logits: Tensor) -> Tensor:
    """Cross-entropy from one prediction to another, `-sum_c p(a)_c log p(b)_c`: `[N]`.

    Neither side is detached. Its minimum over the second argument is the entropy of the first, so it
    contains an entropy term.
    """
    return -(_wide(logits).softmax(1) * _wide(view_logits).log_softmax(1)).sum(1)


def uniform_divergence(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """`C` times the cross-entropy from the uniform distribution to `softmax(z / T)`: `[N]`.

    Up to a constant this is `C * KL(u || p)`. Its gradient is `dz = (C p(z/T) - 1) / T`.
    """
    return -(_wide(logits) / temperature).log_softmax(1).sum(1)


def pseudo_label_loss(logits: Tensor) -> Tensor:
    """Negative log-likelihood of each row's own most likely class: `[N]`."""
    return -_wide(logits).log_softmax(1).amax(1)


def filtered_mean(values: Tensor, keep: Tensor) -> Tensor:
    """Mean of `values` over the rows where `keep` is true; exactly 0, with zero gradient, where none is.

    Without a host sync: the rows left out are multiplied by zero and not counted.
    """
    weight = keep.to(values.dtype)
    return (values * weight).sum() / weight.sum().clamp_min(1.0)
