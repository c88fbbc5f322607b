"""Hooks that cut the tokens at the first block and gather them after the output layer."""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from acclimate.fields.diffusion.attach.plan import Plan
from acclimate.fields.diffusion.attach.route import Route
from acclimate.fields.diffusion.attach.sequence import own_part

__all__ = ["attach_hooks"]


def attach_hooks(transformer: nn.Module, plan: Plan, route: Route) -> list[RemovableHandle]:
    """Register what a plan asks for; without shards, the lengths of the sequence are noted and nothing is cut."""
    first, *others = plan.each_block(transformer)
    cutting = _Cutting(plan, route)
    handles = [first.register_forward_pre_hook(cutting.first, with_kwargs=True)]
    if route.gather is not None:
        gather = route.gather
        handles += [block.register_forward_pre_hook(cutting.later, with_kwargs=True) for block in others]
        output = transformer.get_submodule(plan.output)

        def gathered(module: nn.Module, given: tuple[Any, ...], found: Tensor) -> Tensor:
            return gather(found)

        handles.append(output.register_forward_hook(gathered))
    return handles


class _Cutting:
    """The hooks of the blocks."""

    def __init__(self, plan: Plan, route: Route) -> None:
        self._plan, self._route = plan, route

    def first(self, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        bound = inspect.signature(block.forward).bind(*args, **kwargs)
        names = ("encoder_hidden_states", "hidden_states") if self._plan.joint else ("hidden_states",)
        self._route.lengths = tuple(bound.arguments[name].shape[1] for name in names)
        if self._route.sharded:
            for name, length in zip(names, self._route.lengths, strict=True):
                bound.arguments[name] = self._own(bound.arguments[name], (length,), axis=1)
            self._cut_rotary(bound)
        return bound.args, bound.kwargs

    def later(self, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        bound = inspect.signature(block.forward).bind(*args, **kwargs)
        self._cut_rotary(bound)
        return bound.args, bound.kwargs

    def _cut_rotary(self, bound: inspect.BoundArguments) -> None:
        rotary = bound.arguments.get("image_rotary_emb")
        if rotary is not None:
            lengths = self._route.lengths if self._plan.rotary == "joint" else self._route.lengths[-1:]
            bound.arguments["image_rotary_emb"] = tuple(self._own(each, lengths, axis=0) for each in rotary)

    def _own(self, tensor: Tensor, lengths: tuple[int, ...], axis: int) -> Tensor:
        return own_part(tensor, lengths, self._route.exchange.rank, self._route.exchange.size, axis)
