"""Prompts: tokens of one's own, put in among those of a transformer's input, and what the layers make of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from typing import Any

import torch
from torch import Tensor, nn

from acclimate.anatomy import token_blocks
from acclimate.core.state import State
from acclimate.parts.features import features, require_head

__all__ = ["layer_features", "measured_blocks", "prompt_place", "prompted"]


def prompt_place(state: State, place: str | None) -> tuple[nn.Module, int]:
    """The module before which prompts go in, and the width of its tokens; None for the model's first block.

    ValueError if there is no such module, or no block of a transformer.
    """
    found = token_blocks(state.model)
    if place is None:
        state.require(bool(found), "prompts among the tokens of transformer blocks (place= names another module)")
        module = next(iter(found.values()))
    else:
        module = dict(state.model.named_modules()).get(place)
        if module is None or not place:
            known = ", ".join(found) or "none"
            raise ValueError(
                f"place={place!r} is no part of this {type(state.model).__name__}. Name the module that is called with "
                f"the tokens [N, T, D], as in named_modules(); its blocks of tokens: {known}."
            )
    return module, next(_widths(module), require_head(state).in_features)


def _widths(module: nn.Module) -> Generator[int]:
    for part in module.modules():
        if isinstance(part, (nn.LayerNorm, nn.RMSNorm)):
            yield part.normalized_shape[-1]
        elif isinstance(part, nn.MultiheadAttention):
            yield part.embed_dim
        elif isinstance(part, nn.Linear):
            yield part.in_features


@contextlib.contextmanager
def prompted(module: nn.Module, prompts: Tensor, leading: int) -> Generator[None]:
    """Within this block `module` finds `prompts[n]` `[P, D]` after the first `leading` tokens of row n.

    Rows that come in several forwards, one after another, get theirs in turn. ValueError if the module is called with
    anything but tokens `[N, T, D]`.
    """
    taken = 0

    def insert(part: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        nonlocal taken
        tokens = inputs[0] if inputs and isinstance(inputs[0], Tensor) else torch.empty(0)
        fits = tokens.ndim == 3 and tokens.shape[2] == prompts.shape[2]
        if not fits or len(prompts) % len(tokens) or tokens.shape[1] < leading:
            found = ", ".join(str(list(each.shape)) if isinstance(each, Tensor) else str(type(each)) for each in inputs)
            raise ValueError(
                f"prompts go in before {type(module).__name__}, which is called with {found or 'nothing'}, expected "
                f"tokens [N, T, {prompts.shape[2]}] with T of at least {leading}. Name with place= a module that is "
                "called with the tokens, batch first, or choose a method that needs no tokens, such as t3a."
            )
        start, taken = taken % len(prompts), taken + len(tokens)
        mine = prompts[start : start + len(tokens)].to(tokens.dtype)
        return (torch.cat([tokens[:, :leading], mine, tokens[:, leading:]], 1), *inputs[1:])

    handle = module.register_forward_pre_hook(insert)
    try:
        yield
    finally:
        handle.remove()


def measured_blocks(state: State) -> list[nn.Module]:
    """Whose outputs are measured beside what the head is fed: the model's blocks but for the last."""
    return list(token_blocks(state.model).values())[:-1]


@contextlib.contextmanager
def layer_features(state: State, leading: int) -> Generator[Callable[[int], Tensor]]:
    """Gives a function: what the last so many rows were in each layer, `[N, L, D]` in at least float32.

    A layer's feature is its first token, the class token; the mean of its tokens where none is `leading`. The last
    layer is what the head is fed.
    """
    with features(state) as fed, contextlib.ExitStack() as hooks:
        seen: list[list[Tensor]] = []
        for block in measured_blocks(state):
            seen.append([])

            def keep(module: nn.Module, inputs: Any, output: Any, found: list[Tensor] = seen[-1]) -> None:
                tokens = output[0] if isinstance(output, tuple) else output
                found.append(tokens[:, 0] if leading else tokens.mean(1))

            hooks.callback(block.register_forward_hook(keep).remove)

        def collect(count: int) -> Tensor:
            layers = [torch.cat(found)[-count:] for found in (*seen, fed)]
            shapes = {tuple(layer.shape) for layer in layers}
            if len(shapes) > 1:
                raise ValueError(
                    f"the layers of this {type(state.model).__name__} have features {sorted(shapes)}, expected "
                    f"[{count}, D] with one width D throughout, of tokens batch first. Choose another method, such as "
                    "t3a."
                )
            return torch.stack([layer.to(torch.promote_types(layer.dtype, torch.float32)) for layer in layers], 1)

        yield collect
