"""A plain model from an adapted one, and an adapted one on another device."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from acclimate.anatomy import batch_norms
from acclimate.core.normalization import NormalizationLayer, replace_module
from acclimate.core.table import Table

__all__ = ["merged", "move"]


@torch.no_grad()
def merged(base: nn.Module, adapted: nn.Module, layers: Iterable[NormalizationLayer]) -> nn.Module:
    """A copy of `base` with the parameters, buffers and statistics of `adapted`, in eval mode.

    Normalisations without a counterpart in torch stay layers of this library.
    """
    plain = copy.deepcopy(base).eval()
    places = batch_norms(plain)
    ours = {id(layer): layer for layer in layers}
    learned = dict(adapted.named_parameters(remove_duplicate=False))
    for name, parameter in plain.named_parameters(remove_duplicate=False):
        parameter.copy_(learned[name])
    buffers = dict(adapted.named_buffers(remove_duplicate=False))
    for name, buffer in plain.named_buffers(remove_duplicate=False):
        if name in buffers:
            buffer.copy_(buffers[name])
    memo: dict[int, Any] = {}  # what layers share, their copies share too
    for name, module in adapted.named_modules():
        if name in places and getattr(module, "running_mean", 0) is None and id(module) not in ours:
            places[name].running_mean = places[name].running_var = None
            places[name].track_running_stats = False
        elif id(module) in ours and name in places:
            layer = copy.deepcopy(ours[id(module)].plain(), memo)
            old = places[name]
            layer.weight, layer.bias = old.weight, old.bias
            replace_module(plain, old, layer)
    return plain


@torch.no_grad()
def move(base: nn.Module, clones: tuple[nn.Module, ...], table: Table, fn: Callable[[Tensor], Tensor]) -> None:
    """Move the model, its clones and the declared state together; what aliased still aliases.

    ValueError for a change of number type: the source would no longer be what was passed in.
    """
    floating = next((p for p in base.parameters() if p.is_floating_point()), torch.empty(0))
    found = fn(floating.detach()[:0] if floating.ndim else floating.detach()).dtype
    if found != floating.dtype:
        raise ValueError(
            f"an adapted model keeps its number type: found a change from {floating.dtype} to {found}. "
            "Convert the model first, then adapt it."
        )
    base._apply(fn)  # pyright: ignore[reportPrivateUsage]
    table.apply(fn)
    own = {id(slot.tensor) for slot in table.slots.values()}
    homes = dict(base.named_parameters(remove_duplicate=False))
    for clone in clones:
        for name, parameter in clone.named_parameters(remove_duplicate=False):
            if id(parameter) not in own:
                parameter.data = homes[name].data
            elif name in homes and (slot := table.slots.get(f"weights.{name}")) is not None:
                slot.initial = homes[name].data
        for buffer in clone.buffers():
            if id(buffer) not in own:
                buffer.data = fn(buffer.data)
