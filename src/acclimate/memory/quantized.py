"""Lossy savings by choice: what backward needs as numbers is kept in 8 or 4 bits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from acclimate.compression import Codec, Exact, Normalized, Quantized
from acclimate.core.config import one_of
from acclimate.core.memory import Saved, policies
from acclimate.memory.exact import ExactSavings

__all__ = ["QuantizedSavings"]

Width = Literal[4, 8, 32]
"""Bits for each value; 32 keeps it as it is."""


@policies.register("quantized")
@dataclass(frozen=True, kw_only=True)
class QuantizedSavings(ExactSavings):
    """Everything that `exact` saves, and fewer bits for what backward needs as numbers.

    Inputs of normalisations are kept as normalised values, one mean and deviation for each channel or row; inputs of
    GELU and other curves, operands of matrix products, queries, keys, values and outputs of attention, and outputs of
    sigmoid, tanh and softmax in 8 bits, one scale for each row; inputs of convolutions and linear layers that learn in
    `inputs` bits, one scale for each channel or row. What a norm's input loses reaches the gradients of all layers
    below it, what an input of a convolution loses only the gradient of that convolution's weight.

    Arguments: `norms`, `curves` and `inputs`, each 4, 8 or 32 (as they are) bits; `depth` as in `exact`.
    Source: Chen et al., ActNN, 2021; Liu et al., GACT, 2022. Presets "8-bit" and "4-bit".
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"8-bit": {}, "4-bit": {"norms": 4, "inputs": 4}}
    norms: Width = 8
    curves: Width = 8
    inputs: Width = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("norms", "curves", "inputs"):
            one_of(4, 8, 32, **{name: getattr(self, name)})

    def choose(self, saved: Saved) -> Codec:
        codec = super().choose(saved)
        if not isinstance(codec, Exact) or not saved.tensor.is_floating_point():
            return codec
        match saved.family, saved.role:
            case ("batch_norm" | "moments" | "scaled", "input") if self.norms != 32:
                return Normalized(bits=self.norms, per="channel")
            case ("layer_norm", "input") if self.norms != 32:
                return Normalized(bits=self.norms, per="row", parameter=len(saved.arguments["normalized_shape"]))
            case ("group_norm", "input") if self.norms != 32:
                return Normalized(bits=self.norms, per="group", parameter=saved.arguments["num_groups"])
            case ("weighted", "input") if self.inputs != 32:
                return Quantized(bits=self.inputs, per="row" if saved.operation == "linear" else "channel")
            case ("curve", _) | ("output", "output") if self.curves != 32:
                return Quantized(bits=self.curves, per="row")
            case ("product", _) if self.curves != 32:
                return Quantized(bits=self.curves, per="row")
            case ("attention", _) if self.curves != 32 and _is_sequence(saved):
                return Quantized(bits=self.curves, per="row")
            case _:
                return codec


def _is_sequence(saved: Saved) -> bool:
    """Whether this is a query, key, value or output of attention, and no mask, which may hold infinities."""
    given = [saved.arguments.get(name) for name in ("query", "key", "value", "attn_mask")]
    query, key, value, mask = (tensor if isinstance(tensor, Tensor) else None for tensor in given)
    if query is None or key is None or value is None or saved.role in ("query", "key", "value"):
        return bool(saved.role) and saved.role != "output"
    shape = saved.tensor.shape
    if saved.role == "attn_mask" or (mask is not None and mask.shape[-2:] == shape[-2:]):
        return False
    return shape in (query.shape, key.shape, value.shape, (*query.shape[:-1], value.shape[-1]))
