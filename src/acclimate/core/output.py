"""Where the logits are in what a model returns, and how to put others in their place."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Container, Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["Selector", "find_logits", "merge_rows", "release", "replace_tensors", "with_logits"]

Selector = str | int | Callable[[Any], Tensor] | None


def find_logits(output: Any, selector: Selector = None) -> Tensor:
    """The logits in a model's output: a tensor itself, `.logits`, `["logits"]` or the first of a tuple.

    `selector` names another attribute, key or position, or is a function of the output. ValueError if
    there is no tensor of two or more axes there.
    """
    found: Any = None
    if isinstance(output, Tensor) and selector is None:
        found = output
    elif callable(selector):
        found = selector(output)
    elif isinstance(output, Mapping):
        found = output.get("logits" if selector is None else selector)
    elif isinstance(output, (tuple, list)) and not isinstance(selector, str):
        place = selector or 0
        if selector is None and hasattr(output, "logits"):
            found = getattr(output, "logits")  # noqa: B009 (a named tuple)
        elif -len(output) <= place < len(output):
            found = output[place]
    else:
        found = getattr(output, "logits" if selector is None else str(selector), None)
    if not isinstance(found, Tensor) or found.ndim < 2:
        what = f"a tensor of shape {list(found.shape)}" if isinstance(found, Tensor) else f"{type(found).__name__}"
        raise ValueError(
            f"the model returned {type(output).__name__} in which {'logits' if selector is None else selector!r} "
            f"is {what}, "
            "expected logits of shape [N, C, ...]. Pass output= to adapt: a key, a position or a function."
        )
    return found


def with_logits(output: Any, logits: Tensor, selector: Selector = None) -> Any:
    """The same structure with `logits` in place of its own."""
    own = find_logits(output, selector)
    return replace_tensors(output, lambda tensor: logits if tensor is own else tensor)


def replace_tensors(value: Any, replace: Callable[[Tensor], Any]) -> Any:
    """A copy of a nested output with every tensor replaced; other leaves stay as they are."""
    if isinstance(value, Tensor):
        return replace(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _replace_fields(value, replace)
    if isinstance(value, Mapping):
        twin = copy.copy(value)
        for key in value:
            twin[key] = replace_tensors(value[key], replace)  # pyright: ignore[reportIndexIssue]
        return twin
    if isinstance(value, tuple):
        items = [replace_tensors(item, replace) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if isinstance(value, list):
        return [replace_tensors(item, replace) for item in value]
    return value


def merge_rows(kept: Any, held: Any, rows: Tensor) -> Any:
    """One output from two: rows where `rows` is true come from `kept`, in order, the others from `held`.

    Tensors whose first axis counts the rows are merged; everything else is taken from `kept`.
    """
    count = int(rows.sum())
    others = len(rows) - count
    partners = iter(_tensors(held))

    def join(tensor: Tensor) -> Tensor:
        partner = next(partners, None)
        if tensor.ndim == 0 or tensor.shape[0] != count or partner is None or partner.shape[:1] != (others,):
            return tensor
        if count == others and tensor.is_floating_point() and torch.equal(tensor, partner.to(tensor)):
            return tensor  # one number per class, say, that happens to be as long as either half
        whole = tensor.new_empty((len(rows), *tensor.shape[1:]))
        whole[rows.to(tensor.device)] = tensor
        whole[~rows.to(tensor.device)] = partner.to(tensor.dtype)
        return whole

    return replace_tensors(kept, join)


def _tensors(value: Any) -> list[Tensor]:
    found: list[Tensor] = []
    replace_tensors(value, lambda tensor: found.append(tensor) or tensor)
    return found


def _replace_fields(value: Any, replace: Callable[[Tensor], Any]) -> Any:
    fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}
    changed = {name: replace_tensors(item, replace) for name, item in fields.items()}
    return type(value)(**changed) if isinstance(value, Mapping) else dataclasses.replace(value, **changed)


def release(output: Any, owned: Container[int]) -> Any:
    """The same output without its graph, and without a share in storages that are `owned` (by address)."""

    def free(tensor: Tensor) -> Tensor:
        plain = tensor.detach()
        return plain.clone() if plain.untyped_storage().data_ptr() in owned else plain

    return replace_tensors(output, free)
