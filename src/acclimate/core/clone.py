"""Structural clones: the modules of a model again, over the same storage."""

from __future__ import annotations

import copy

import torch
from torch import nn

__all__ = ["structural_clone"]


def structural_clone(model: nn.Module) -> nn.Module:
    """New modules in eval mode whose frozen parameters alias the storage of `model`'s; buffers are copied.

    The clone can be rewired and its parameters replaced without touching `model`: neither its tensors,
    nor its flags, nor its training mode. Costs the buffers' bytes.

    ValueError if the model cannot be copied (scripted modules, uninitialised parameters, tensors in
    attributes that carry a graph, tensors made under inference mode).
    """
    if isinstance(model, torch.jit.ScriptModule):
        raise ValueError("a scripted model cannot be adapted. Pass the nn.Module it was scripted from.")
    lazy = [p for p in model.parameters() if isinstance(p, nn.UninitializedParameter)]
    if not lazy and any(tensor.is_inference() for tensor in (*model.parameters(), *model.buffers())):
        raise ValueError(
            "the model was built under torch.inference_mode, where tensors cannot learn. Build or load it outside, "
            "or pass copy.deepcopy(model) made outside."
        )
    broken = [name for name, p in model.named_parameters() if not lazy and not bool(p.isfinite().all())]
    if broken:
        raise ValueError(f"the weights of {', '.join(broken[:3])} are not finite. Load weights that are.")
    memo: dict[int, object] = {}
    for name, parameter in model.named_parameters():
        if isinstance(parameter, nn.UninitializedParameter):
            raise ValueError(f"parameter {name} is not initialised. Call the model once before adapting it.")
        memo[id(parameter)] = nn.Parameter(parameter.data, requires_grad=False)
    try:
        clone = copy.deepcopy(model, memo)
    except (RuntimeError, TypeError, NotImplementedError) as error:
        raise ValueError(
            f"{type(model).__name__} cannot be cloned: {error}. Attributes that are no parameters, buffers or "
            "plain values (locks, open files, tensors with a graph) must be removed before adapting it."
        ) from error
    return clone.eval()
