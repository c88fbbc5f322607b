"""Memory layout of the adapting passes: channels last, where convolutions and their backward are fastest."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from acclimate.anatomy import CONVOLUTIONS

if TYPE_CHECKING:
    from acclimate.core.state import State
    from acclimate.core.table import Snapshot

__all__ = ["channels_last_pays", "in_layout", "keep_channels_last", "shield_group_norms", "to_channels_last"]

T = TypeVar("T")

_RESHUFFLERS = frozenset({"MeanBackward1", "SliceBackward0", "ConstantPadNdBackward0"})
"""Operations whose gradient torch lays out in the default order whatever the order of their input."""


def channels_last_pays(model: nn.Module) -> bool:
    """Whether a model runs in float32 on the CPU and convolves: there, oneDNN otherwise reorders every tensor."""
    modules = list(model.modules())
    weights = [m.weight for m in modules if isinstance(m, CONVOLUTIONS) and m.weight.ndim == 4]
    grouped = any(isinstance(module, nn.GroupNorm) for module in modules)
    return bool(weights) and not grouped and all(w.device.type == "cpu" and w.dtype == torch.float32 for w in weights)


def to_channels_last(x: Tensor) -> Tensor:
    """The same values; images `[N, C, H, W]` stored channels last."""
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


def shield_group_norms(model: nn.Module) -> None:
    """Give group norms plain input where no gradient flows to it.

    Torch 2.13 crashes in their backward for a channels-last input that needs no gradient.
    """
    for module in model.modules():
        if isinstance(module, nn.GroupNorm):
            module.register_forward_pre_hook(_plain)


def _plain(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
    x = inputs[0]
    return None if x.requires_grad or x.is_contiguous() else (x.contiguous(), *inputs[1:])


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


def in_layout(state: State, run: Callable[[], T], before: Snapshot | None = None) -> T:
    """Run in channels last where that pays; for good in the layout that came if the model cannot view it."""
    try:
        return run()
    except RuntimeError as error:
        if not state.channels_last or "view size is not compatible" not in str(error):
            raise
    state.channels_last = False
    if before is not None:
        state.table.restore(before)
    return run()
