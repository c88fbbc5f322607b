"""Which of torch's functions is running, what kind it is, and which of its arguments a tensor is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from acclimate.core.memory import Saved
from acclimate.core.normalization import moments, scaled

__all__ = ["FAMILIES", "Operation", "Operations"]

_CONVOLUTION = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_BATCH_NORM = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
_NATIVE_BATCH_NORM = ("input", "weight", "bias", "running_mean", "running_var", "training", "momentum", "eps")
_POOL = ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
_AVERAGE = ("input", "kernel_size", "stride", "padding")
_ATTENTION = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")

FAMILIES: Mapping[str, tuple[tuple[str, ...], tuple[Any, ...]]] = {
    "weighted": (
        _CONVOLUTION,
        (F.conv1d, F.conv2d, F.conv3d, F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d, F.linear),
    ),
    "batch_norm": (_BATCH_NORM, (F.batch_norm,)),
    "moments": (("input", "axes", "correction"), (moments,)),
    "scaled": (("input", "scale", "shift"), (scaled,)),
    "native_batch_norm": (_NATIVE_BATCH_NORM, (torch.batch_norm,)),
    "layer_norm": (("input", "normalized_shape", "weight", "bias", "eps"), (F.layer_norm, torch.layer_norm)),
    "group_norm": (("input", "num_groups", "weight", "bias", "eps"), (F.group_norm, torch.group_norm)),
    "relu": (("input", "inplace"), (F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_)),
    "leaky_relu": (("input", "negative_slope", "inplace"), (F.leaky_relu, F.leaky_relu_)),
    "hardtanh": (("input", "min_val", "max_val", "inplace"), (F.hardtanh, F.hardtanh_)),
    "relu6": (("input", "inplace"), (F.relu6,)),
    "clamp": (("input", "min", "max"), (torch.clamp, Tensor.clamp, torch.clip, Tensor.clip)),
    "clamp_min": (("input", "min"), (torch.clamp_min, Tensor.clamp_min)),
    "clamp_max": (("input", "max"), (torch.clamp_max, Tensor.clamp_max)),
    "curve": (
        ("input",),
        (F.gelu, F.silu, F.mish, F.hardswish, F.softplus, F.elu, F.selu, F.celu, F.logsigmoid, F.softsign),
    ),
    "output": (
        ("input",),
        (torch.sigmoid, torch.tanh, F.sigmoid, F.tanh, Tensor.sigmoid, Tensor.tanh, F.softmax, torch.softmax),
    ),
    "max_pool": (
        _POOL,
        (
            F.max_pool1d,
            F.max_pool2d,
            F.max_pool3d,
            F.max_pool1d_with_indices,
            F.max_pool2d_with_indices,
            F.max_pool3d_with_indices,
        ),
    ),
    "average_pool": (
        _AVERAGE,
        (
            F.avg_pool1d,
            F.avg_pool2d,
            F.avg_pool3d,
            F.adaptive_avg_pool1d,
            F.adaptive_avg_pool2d,
            F.adaptive_avg_pool3d,
        ),
    ),
    "product": (("input", "other"), (torch.matmul, Tensor.matmul, torch.bmm, Tensor.bmm, torch.mm, Tensor.mm)),
    "attention": (_ATTENTION, (F.scaled_dot_product_attention,)),
}
"""By family: the names of the arguments by position, and torch's functions."""

_KNOWN: dict[Any, tuple[str, tuple[str, ...]]] = {
    function: (family, names) for family, (names, functions) in FAMILIES.items() for function in functions
}


@dataclass(frozen=True, slots=True)
class Operation:
    """One call of one of torch's functions, while it runs."""

    function: Callable[..., Any]
    positional: tuple[Any, ...]
    keywords: Mapping[str, Any]

    def compute(self) -> Any:
        """What torch's function gives."""
        return self.function(*self.positional, **self.keywords)

    def bound(self) -> tuple[str, dict[str, Any]]:
        """Its family, empty for one that is not known, and its arguments by name."""
        family, names = _KNOWN.get(self.function, ("", ()))
        arguments = dict(zip(names, self.positional, strict=False)) | dict(self.keywords)
        return family.removeprefix("native_"), arguments

    def saves(self, tensor: Tensor, layers: Mapping[int, str]) -> Saved:
        """How `tensor`, which this operation saves, is to be seen; `layers` has weights' names by identity."""
        family, arguments = self.bound()
        name, layer = getattr(self.function, "__name__", ""), layers.get(id(arguments.get("weight")), "")
        return Saved(tensor, name, family, _role(tensor, family, arguments), layer, arguments)


_COPYING = frozenset({"weighted", "layer_norm", "group_norm"})
"""Families that save no output of their input's size, so that what is as large as the input is a copy of it."""


def _role(tensor: Tensor, family: str, arguments: Mapping[str, Any]) -> str:
    """The argument with the tensor's memory, or else the one that it is a copy of; empty where several may be.

    A copy has as many values, and the number type that autocast gave it or another order in memory.
    """
    size, place = tensor.numel(), tensor.data_ptr()
    alike: list[tuple[str, Tensor]] = []
    for name, value in arguments.items():
        if isinstance(value, Tensor) and value.numel() == size and size:
            if value.data_ptr() == place and value.dtype == tensor.dtype:
                return name
            if value.is_floating_point() == tensor.is_floating_point():
                alike.append((name, value))
    if family not in _COPYING:
        alike = [(name, value) for name, value in alike if value.dtype != tensor.dtype and family != "output"]
    if len(alike) > 1 and family == "weighted" and len(tensor.shape) > 2:
        alike = [(name, value) for name, value in alike if value.shape == tensor.shape]
    return "output" if not alike else alike[0][0] if len(alike) == 1 else ""


def _opened(function: FunctionType) -> FunctionType:
    """The same function of torch, which does not ask whether somebody watches it, so that its parts are seen."""
    names = {**function.__globals__, "has_torch_function": lambda _: False}
    copy = FunctionType(function.__code__, names, function.__name__, function.__defaults__, function.__closure__)
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


_ATTENTION_OPENED = _opened(F.multi_head_attention_forward)


class Operations(TorchFunctionMode):
    """Within this context `current` is torch's function that runs; inner functions of torch are part of the outer.

    `instead` computes what is asked for: torch's function itself, unless a policy puts another one in its place.
    """

    def __init__(self) -> None:
        super().__init__()
        self._running: list[Operation] = []
        self.instead: Callable[[Operation], Any] = Operation.compute

    @property
    def current(self) -> Operation | None:
        return self._running[-1] if self._running else None

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        keywords = kwargs or {}
        if func is F.multi_head_attention_forward:
            with self:  # made of functions that are known
                return _ATTENTION_OPENED(*args, **keywords)
        self._running.append(Operation(func, args, keywords))
        try:
            return self.instead(self._running[-1])
        finally:
            self._running.pop()
