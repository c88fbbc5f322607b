"""What a model is made of: normalisation layers, convolutions, head. Structure decides, never names.

A *selector* takes a model and gives its chosen parameters as `{dotted name: parameter}` in definition
order; a tensor shared by two modules appears once.
"""

from __future__ import annotations

import itertools
from collections import Counter
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
    "all_but_head",
    "batch_norms",
    "blocks",
    "class_count",
    "convolutions_and_norms",
    "everything",
    "explain_input",
    "first_stage",
    "head",
    "longest_sequential",
    "norm_layers",
    "shallow_norms",
    "stages",
    "takes_indices",
    "token_blocks",
]

Selector = Callable[[nn.Module], dict[str, nn.Parameter]]

NORMS = (_BatchNorm, _InstanceNorm, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
CONVOLUTIONS = (_ConvNd,)
_NO_BLOCKS = (
    nn.Sequential,
    nn.ModuleList,
    nn.ModuleDict,
    nn.MultiheadAttention,
    nn.TransformerEncoder,
    nn.TransformerDecoder,
)


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


def everything(model: nn.Module) -> dict[str, nn.Parameter]:
    """Every parameter that is a floating point number."""
    return {name: p for name, p in model.named_parameters() if p.is_floating_point()}


def all_but_head(model: nn.Module) -> dict[str, nn.Parameter]:
    """Every parameter but those of the last linear layer: a feature extractor whose classifier stays."""
    found = head(model)
    classifier = {id(p) for p in found[1].parameters()} if found else set[int]()
    return {name: p for name, p in everything(model).items() if id(p) not in classifier}


def blocks(model: nn.Module) -> dict[str, nn.Module]:
    """Residual or transformer blocks, by dotted name in definition order; none if no part of the model repeats.

    A block is a module made of others, with parameters, whose class occurs most often among those that do not
    lie within each other; torch's containers and attention do not count, its transformer layers do.
    """
    composite = {
        name: module
        for name, module in model.named_modules()
        if name and type(module) not in _NO_BLOCKS and len(list(module.children())) > 1
    }
    counts = Counter(type(module) for module in composite.values() if next(module.parameters(), None) is not None)
    if not counts or max(counts.values()) < 2:
        return {}
    most = max(counts.values())
    kind = next(type(module) for module in composite.values() if counts[type(module)] == most)
    chosen = {name: module for name, module in composite.items() if type(module) is kind}
    return {n: m for n, m in chosen.items() if not any(n.startswith(f"{other}.") for other in chosen)}


def longest_sequential(model: nn.Module) -> tuple[str, nn.Sequential] | None:
    """The container that runs the most modules one after another, and its dotted name; None for less than two."""
    found = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward and len(module) > 1
    }
    return max(found.items(), key=lambda item: len(item[1]), default=None)


def token_blocks(model: nn.Module) -> dict[str, nn.Module]:
    """Blocks of a transformer, by dotted name: those that hold linear layers and no convolution; none elsewhere."""
    found = blocks(model)
    inside = [part for block in found.values() for part in block.modules()]
    tokens = any(isinstance(part, nn.Linear) for part in inside)
    return found if tokens and not any(isinstance(part, CONVOLUTIONS) for part in inside) else {}


def stages(model: nn.Module) -> list[dict[str, nn.Module]]:
    """Blocks by stage: those in one container belong together; a single container is cut into quarters."""
    found = blocks(model)
    groups: dict[str, dict[str, nn.Module]] = {}
    for name, block in found.items():
        groups.setdefault(name.rpartition(".")[0], {})[name] = block
    if len(groups) > 1:
        return list(groups.values())
    items = list(found.items())
    cuts = [round(len(items) * quarter / 4) for quarter in range(5)]
    return [dict(items[low:high]) for low, high in itertools.pairwise(cuts) if high > low]


def first_stage(model: nn.Module) -> dict[str, nn.Parameter]:
    """Convolution and normalisation tensors of the first stage of blocks; none in a model without blocks."""
    inside = tuple(f"{name}." for name in next(iter(stages(model)), {}))
    return {name: p for name, p in convolutions_and_norms(model).items() if name.startswith(inside)} if inside else {}


def shallow_norms(model: nn.Module) -> dict[str, nn.Parameter]:
    """Weight and bias of the norms before the last stage of blocks; of all norms in a model without blocks."""
    names = list(dict(model.named_modules()))
    deepest = next(iter(stages(model)[-1]), None) if len(stages(model)) > 1 else None
    if deepest is None:
        return affine_norms(model)
    deep = set(names[names.index(deepest) :])
    return {name: p for name, p in affine_norms(model).items() if name.rpartition(".")[0] not in deep}


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
