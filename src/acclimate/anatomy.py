"""What a model is made of: normalisation layers, convolutions, head. Structure decides, never names.

A *selector* takes a model and gives its chosen parameters as `{dotted name: parameter}` in definition
order; a tensor shared by two modules appears once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]
from torch.nn.modules.conv import _ConvNd  # pyright: ignore[reportPrivateUsage]
from torch.nn.modules.instancenorm import _InstanceNorm  # pyright: ignore[reportPrivateUsage]

__all__ = [
    "CONVOLUTIONS",
    "NORMS",
    "Selector",
    "affine_norms",
    "batch_norms",
    "class_count",
    "convolutions_and_norms",
    "explain_input",
    "head",
    "norm_layers",
    "takes_indices",
]

Selector = Callable[[nn.Module], dict[str, nn.Parameter]]

NORMS = (_BatchNorm, _InstanceNorm, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
CONVOLUTIONS = (_ConvNd,)


def _of_type(model: nn.Module, kinds: tuple[type, ...]) -> Iterator[tuple[str, nn.Module]]:
    return ((name, module) for name, module in model.named_modules() if isinstance(module, kinds))


def norm_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Normalisation layers of any kind, by dotted name."""
    return dict(_of_type(model, NORMS))


def batch_norms(model: nn.Module) -> dict[str, _BatchNorm]:
    """Batch normalisation layers of any rank (SyncBatchNorm among them), by dotted name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, _BatchNorm)}


def _parameters(model: nn.Module, kinds: tuple[type, ...]) -> dict[str, nn.Parameter]:
    chosen: dict[str, nn.Parameter] = {}
    seen: set[int] = set()
    for prefix, module in _of_type(model, kinds):
        for name, parameter in module.named_parameters(prefix, recurse=False):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                chosen[name] = parameter
    return chosen


def affine_norms(model: nn.Module) -> dict[str, nn.Parameter]:
    """Weight and bias of every normalisation layer: what Tent and its descendants adapt."""
    return _parameters(model, NORMS)


def convolutions_and_norms(model: nn.Module) -> dict[str, nn.Parameter]:
    """All convolution and normalisation tensors; linear layers, so the classifier, stay frozen."""
    return _parameters(model, (*CONVOLUTIONS, *NORMS))


def head(model: nn.Module) -> tuple[str, nn.Linear] | None:
    """The last linear layer in definition order, taken to be the classifier; None without one."""
    linear = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    return linear[-1] if linear else None


def class_count(model: nn.Module) -> int:
    """How many classes the model tells apart: outputs of its last linear or convolution layer."""
    for module in reversed(list(model.modules())):
        if isinstance(module, nn.Linear):
            return module.out_features
        if isinstance(module, _ConvNd):
            return module.out_channels
    raise ValueError(f"{type(model).__name__} has no linear or convolution layer to count its classes from.")


def takes_indices(model: nn.Module) -> bool:
    """Whether integer inputs can be meant: the model has an embedding table."""
    return any(isinstance(module, (nn.Embedding, nn.EmbeddingBag)) for module in model.modules())


def explain_input(model: nn.Module) -> str:
    """What the first weighted layer seems to expect, in words, for error messages."""
    for name, module in model.named_modules():
        if isinstance(module, _ConvNd):
            rank = len(module.kernel_size)
            shape = ", ".join(["N", str(module.in_channels), *"DHW"[3 - rank :]])
            return f"[{shape}] {module.weight.dtype} (from the first layer, {name})"
        if isinstance(module, nn.Linear):
            return f"[N, ..., {module.in_features}] {module.weight.dtype} (from the first layer, {name})"
    return "an input that its forward accepts"
