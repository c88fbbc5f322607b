"""Memory layout of the adapting passes: channels last, where convolutions and their backward are fastest."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from acclimate.anatomy import CONVOLUTIONS

__all__ = ["channels_last_pays", "keep_channels_last", "to_channels_last"]

_RESHUFFLERS = frozenset({"MeanBackward1", "SliceBackward0", "ConstantPadNdBackward0"})
"""Operations whose gradient torch lays out in the default order whatever the order of their input."""


def channels_last_pays(model: nn.Module) -> bool:
    """Whether a model runs in float32 on the CPU and convolves: there, oneDNN otherwise reorders every tensor."""
    convolutions = [module for module in model.modules() if isinstance(module, CONVOLUTIONS)]
    weights = [module.weight for module in convolutions if module.weight.ndim == 4]
    return bool(weights) and all(w.device.type == "cpu" and w.dtype == torch.float32 for w in weights)


def to_channels_last(x: Tensor) -> Tensor:
    """The same values; images `[N, C, H, W]` stored channels last."""
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


def keep_channels_last(logits: Tensor) -> None:
    """Keep the backward of these logits in channels last too.

    The gradient of a global mean or of a strided shortcut comes out in the default layout, and every layer
    before it would have to reorder it; it is put right once, where it arises.
    """
    queue = [logits.grad_fn]
    seen = set(queue)
    while queue:
        node = queue.pop()
        if node is None:
            continue
        if node.name() in _RESHUFFLERS:
            node.register_hook(_reorder)
        following = [after for after, _ in node.next_functions if after not in seen]
        seen.update(following)
        queue += following


def _reorder(inputs: tuple[Tensor | None, ...], outputs: tuple[Tensor, ...]) -> tuple[Tensor | None, ...]:
    return tuple(grad if grad is None else to_channels_last(grad) for grad in inputs)
