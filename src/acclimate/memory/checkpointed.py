"""Gradient checkpointing: of each block only its input is kept, and backward runs the block once more."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

from torch import Tensor, nn

from acclimate.anatomy import blocks, longest_sequential
from acclimate.core.memory import Chooser, MemoryPolicy, policies
from acclimate.memory.rerun import Unit

if TYPE_CHECKING:
    from acclimate.core.state import State
    from acclimate.memory.keeper import Keeper

__all__ = ["Checkpointed"]


@policies.register("checkpointed")
@dataclass(frozen=True, kw_only=True)
class Checkpointed(MemoryPolicy):
    """Keep the inputs of the model's blocks, and compute the rest again when backward comes to a block.

    Blocks are residual or transformer blocks (`acclimate.anatomy.blocks`); in a model without, about sqrt(n) pieces of
    the `nn.Sequential` with the most children, n. With blocks 1..K of inputs `x_k` that save `s_k` besides, and `r`
    saved before, between and behind them, the peak is at most

        |x_1| + ... + |x_K| + |r| + max_k |s_k|

    where PyTorch has the sum of all `s_k`. Gradients are PyTorch's up to rounding, and state is as without: statistics
    and buffers move once, random numbers are drawn again, weights that changed in between are noticed. `last.forwards`
    counts forwards of the model; the second run of a block is none, though it takes as long.

    Argument: `within`, the policy that keeps what is outside of blocks and what a second run brings: "stock", or
    "exact" (preset "exact"), "quantized:8-bit", an instance, ... The inputs of blocks are always kept as they are.

    Cost: one more forward through the blocks for each backward, less what follows the last tensor that a block saves.
    Raises ValueError for a model with neither blocks nor a container of several modules, and RuntimeError for a block
    that writes into its input, or saves tensors of other shapes or number types the second time.
    Source: Chen et al., Training Deep Nets with Sublinear Memory Cost, 2016.
    Fails where blocks are few or save little besides their input, and where their forward has effects on Python
    objects, which happen twice. The global generators of torch, Python's `random` and NumPy draw the same numbers
    again; a generator of a block's own does not, and since values are not compared, gradients are then wrong without
    a word. Backwards through one graph run its blocks again each time.

    Example: `acclimate.adapt(net, "tent", memory="checkpointed")`.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"exact": {"within": "exact"}}
    within: str | MemoryPolicy = "stock"

    def __post_init__(self) -> None:
        object.__setattr__(self, "within", policies.build(self.within))
        if isinstance(self.within, Checkpointed):
            raise ValueError("within is 'checkpointed' itself. Expected another policy, such as 'exact'.")

    @property
    def inner(self) -> MemoryPolicy:
        return policies.build(self.within)

    @property
    def by_depth(self) -> bool:
        return self.inner.by_depth

    def setup(self, state: State) -> None:
        if state.weights:
            _replacements(state.model)
        self.inner.setup(state)

    def begin(self, state: State, x: Tensor, keeper: Keeper) -> Chooser:
        choose = self.inner.begin(state, x, keeper)
        for module, units in _replacements(state.model):
            keeper.closing.enter_context(_replaced(module, functools.partial(_in_turn, units, keeper)))
        return choose

    def held_to(self, limit: float) -> Self:
        return replace(self, within=self.inner.held_to(limit))

    def most(self, samples: int) -> float:
        return self.inner.most(samples)

    def passes(self, samples: int, weights: Iterable[Tensor] | None = None) -> tuple[float, int]:
        return self.inner.passes(samples, weights)


def _replacements(model: nn.Module) -> list[tuple[nn.Module, list[Unit]]]:
    """Modules, and the units that make up their forward."""
    found = blocks(model)
    if found:
        return [(block, [Unit(name, (block,), block.forward)]) for name, block in found.items()]
    longest = longest_sequential(model)
    if longest is None:
        raise ValueError(
            f"{type(model).__name__} has no blocks that repeat and no nn.Sequential of several modules, so there is "
            "nothing to run again. Choose memory='exact', or put its parts into nn.Sequential."
        )
    name, container = longest
    return [(container, [_piece(name, modules) for modules in _cut(list(container))])]


def _cut(modules: Sequence[nn.Module]) -> list[list[nn.Module]]:
    """About sqrt(n) pieces, at least two; none begins with an operation in place, which would change its input."""
    size = len(modules) / max(2, round(math.sqrt(len(modules))))
    pieces: list[list[nn.Module]] = []
    for number, module in enumerate(modules):
        due = number >= round(len(pieces) * size) and not getattr(module, "inplace", False)
        if due or not pieces:
            pieces.append([])
        pieces[-1].append(module)
    return pieces


def _piece(name: str, modules: Sequence[nn.Module]) -> Unit:
    def compute(x: Any) -> Any:
        for module in modules:
            x = module(x)
        return x

    return Unit(f"{name}[{type(modules[0]).__name__}, ...]".lstrip("."), modules, compute)


def _in_turn(units: Sequence[Unit], keeper: Keeper, *args: Any, **kwargs: Any) -> Any:
    answer = units[0].run(keeper, *args, **kwargs)
    for unit in units[1:]:
        answer = unit.run(keeper, answer)
    return answer


@contextlib.contextmanager
def _replaced(module: nn.Module, forward: Callable[..., Any]) -> Generator[None]:
    """Within this block this one module computes `forward`."""
    own = vars(module).get("forward")
    vars(module)["forward"] = forward
    try:
        yield
    finally:
        del vars(module)["forward"]
        if own is not None:
            vars(module)["forward"] = own
