"""Savings that change no gradient: what backward never reads is not kept, and what it reads one bit of takes one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from acclimate.compression import Bits, Codec, Exact, Offsets, Stub
from acclimate.core.config import between
from acclimate.core.memory import Chooser, MemoryPolicy, Saved, policies

if TYPE_CHECKING:
    from acclimate.core.state import State
    from acclimate.memory.keeper import Keeper

__all__ = ["ExactSavings"]

_MOST_OFFSETS = 1 << 15


@policies.register("exact")
@dataclass(frozen=True, kw_only=True)
class ExactSavings(MemoryPolicy):
    """Keep nothing that backward does not read; the gradients are those of PyTorch, up to rounding.

    The inputs of convolutions and linear layers whose weights do not learn, of pooling, and of batch norms with source
    statistics and frozen weights give only their shape: nothing is kept. Of ReLU, leaky ReLU, ReLU6, hardtanh and
    clamp backward reads one bit for each value, of max pooling a small offset for each maximum. All else stays.

    Argument: `depth` in (0, 1], the share of the adapted tensors that learn, the last that the forward uses; below them
    nothing is kept at all. With less than 1 the others stay as they are: no longer what the method does alone.

    Cost: about one pass over each activation to pack and one to unpack.
    Source: Chen et al., ActNN, 2021; Jiang et al., Back Razor, 2022 (bits); for frozen layers Bhatia et al., 2024.
    """

    depth: float = 1.0

    def __post_init__(self) -> None:
        between(0, 1, depth=self.depth)
        if not self.depth:
            raise ValueError("depth is 0, so nothing would learn. Expected a share above 0, or method='bn'.")

    @property
    def by_depth(self) -> bool:
        return self.depth < 1

    def setup(self, state: State) -> None:
        kept = max(1, round(self.depth * len(state.weights)))
        for name in _in_order(state)[: len(state.weights) - kept]:
            state.weights[name].requires_grad_(False)

    def begin(self, state: State, x: Tensor, keeper: Keeper) -> Chooser:
        return self.choose

    def choose(self, saved: Saved) -> Codec:
        """How one tensor is kept."""
        match saved.family, saved.role:
            case ("weighted", "input") if not saved.learns():
                return Stub()
            case ("batch_norm", "input") if not saved.arguments.get("training") and not saved.learns():
                return Stub()
            case ("max_pool" | "average_pool", "input"):
                return Stub()
            case ("max_pool", "output") if saved.tensor.dtype == torch.int64:
                return _offsets(saved)
            case ("relu" | "leaky_relu" | "hardtanh" | "relu6" | "clamp" | "clamp_min" | "clamp_max", _):
                return _gate(saved)
            case _:
                return Exact()


def _in_order(state: State) -> list[str]:
    """Adapted tensors as the forward uses them; what was not seen there stands before what follows it in the model."""
    places = {name: place for place, name in enumerate(state.order)}
    place, found = len(places), dict[str, int]()
    for name in reversed(state.weights):
        found[name] = place = places.get(name, place)
    return sorted(state.weights, key=found.__getitem__)


def _gate(saved: Saved) -> Codec:
    family, given = saved.family, saved.arguments
    if not saved.tensor.is_floating_point():
        return Exact()
    if family == "relu":
        return Bits()
    if family == "leaky_relu":
        return Bits(predicate="sign")
    limits = {"relu6": (0.0, 6.0), "hardtanh": (given.get("min_val", -1.0), given.get("max_val", 1.0))}
    low, high = limits.get(family, (given.get("min"), given.get("max")))
    if any(isinstance(limit, Tensor) for limit in (low, high)):
        return Exact()
    low, high = (None if limit is None or math.isinf(limit) else float(limit) for limit in (low, high))
    if family == "hardtanh":
        low, high = _strict(low, saved.tensor.dtype, -math.inf), _strict(high, saved.tensor.dtype, math.inf)
    resolution = 2 * torch.finfo(saved.tensor.dtype).eps * max(abs(low or 0.0), abs(high or 0.0), 1e-30)
    if (low is None and high is None) or (low is not None and high is not None and not high - low > resolution):
        return Exact()  # all or nothing is inside, or no value between the limits survives rounding
    return Bits(predicate="inside", low=low, high=high, inclusive=family.startswith("clamp"))


def _strict(limit: float | None, dtype: torch.dtype, outward: float) -> float | None:
    """The limit in a type that has it not, such that values of this type lie on its sides as of the true one's.

    Hardtanh compares half precision with a limit in float32; a comparison of tensors rounds the limit first.
    """
    if limit is None or dtype not in (torch.float16, torch.bfloat16):
        return limit
    rounded, true = torch.tensor(limit, dtype=dtype), torch.tensor(limit, dtype=torch.float32)
    within = rounded.float() < true if outward > 0 else rounded.float() > true
    return float(torch.nextafter(rounded, torch.tensor(outward, dtype=dtype)) if within else rounded)


def _offsets(saved: Saved) -> Codec:
    axes = int(saved.operation[len("max_pool")])
    given = saved.arguments
    kernel = _each(given["kernel_size"], axes)
    if math.prod(kernel) > _MOST_OFFSETS:
        return Exact()
    return Offsets(
        input_size=tuple(given["input"].shape[-axes:]),
        kernel=kernel,
        stride=_each(given.get("stride") or kernel, axes),
        padding=_each(given.get("padding", 0), axes),
        dilation=_each(given.get("dilation", 1), axes),
    )


def _each(value: Any, axes: int) -> tuple[int, ...]:
    numbers = (value,) if isinstance(value, int) else tuple(value)
    return tuple(int(number) for number in (numbers * axes if len(numbers) == 1 else numbers))
