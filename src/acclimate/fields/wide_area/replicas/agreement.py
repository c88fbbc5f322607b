"""What all ranks must have in common, as values that are equal wherever it is the same."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

__all__ = ["described", "fingerprint", "hyperparameters", "sampled", "sealed"]

_DEPTH = 8


def described(value: Any, depth: int = 0) -> Any:
    """Settings as JSON values, without addresses and without what tensors hold.

    Numbers and texts are themselves; tensors of one number that number; dataclasses and this library's objects their
    type and fields. Of functions and anything else only the name is known.

    >>> from acclimate.fields.wide_area.policy.conditions import Setting
    >>> described([Setting(1, 0.5), torch.tensor(2.0), described])
    [{'type': 'Setting', 'staleness': 1, 'ratio': 0.5}, 2.0, 'described']
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Tensor):
        return value.reshape(-1).tolist()[0] if value.numel() == 1 else [str(value.dtype), *value.shape]
    if isinstance(value, torch.dtype):
        return str(value)
    if depth < _DEPTH:
        if isinstance(value, Mapping):
            return sorted([str(key), described(each, depth + 1)] for key, each in value.items())
        if isinstance(value, (list, tuple, deque)):
            return [described(each, depth + 1) for each in value]
        fields = _fields(value)
        if fields is not None:
            return {"type": type(value).__qualname__, **{key: described(of, depth + 1) for key, of in fields.items()}}
    return getattr(value, "__qualname__", type(value).__qualname__)


def _fields(value: Any) -> dict[str, Any] | None:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kept = [each.name for each in dataclasses.fields(value) if each.metadata.get("recorded", True)]
        return {name: getattr(value, name) for name in kept}
    ours = any(each.__module__.startswith("acclimate.") for each in type(value).__mro__)
    return dict(sorted(vars(value).items())) if ours and hasattr(value, "__dict__") else None


def hyperparameters(base: Optimizer, parameters: Sequence[Tensor]) -> dict[str, Any]:
    """Kind of an optimiser, and of each of its groups all but the tensors: step sizes, and which parameters it has.

    >>> x = torch.zeros(1, requires_grad=True)
    >>> found = hyperparameters(torch.optim.SGD([x], lr=0.5), [x])
    >>> found["base"], found["groups"][0]["lr"], found["groups"][0]["params"]
    ('SGD', 0.5, [0])
    """
    places = {id(each): place for place, each in enumerate(parameters)}
    groups = [
        {
            **{name: described(value) for name, value in group.items() if name != "params"},
            "params": [places.get(id(each)) for each in group["params"]],
        }
        for group in base.param_groups
    ]
    return {"base": type(base).__qualname__, "groups": groups}


def sampled(function: Callable[[Any], Any] | None, arguments: Iterable[Any]) -> list[Any]:
    """What a function gives for these arguments; the error's name where it raises one, as a table does past its end.

    >>> sampled([1.0, 0.5].__getitem__, range(3)), sampled(None, range(3))
    ([1.0, 0.5, 'IndexError'], [])
    """
    return [] if function is None else [_sample(function, each) for each in arguments]


def _sample(function: Callable[[Any], Any], argument: Any) -> Any:
    try:
        return described(function(argument))
    except Exception as error:
        return type(error).__name__


def sealed(told: Any) -> bytes:
    """SHA-256 of JSON values.

    >>> sealed({"a": 1, "b": 2}) == sealed({"b": 2, "a": 1}) != sealed({"a": 1})
    True
    """
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).digest()


def fingerprint(weights: int, told: Any) -> int:
    """64 bits of a digest of weights and of JSON values, for the parity check."""
    return int.from_bytes(sealed([weights, told])[:8], "little")
