"""SURGEON as its released code has it: whole copies beside pruned inputs, and another gradient of batch norms."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Generator, Tensor, nn
from torch.autograd.function import once_differentiable

from acclimate.compression import Codec, Layout
from acclimate.core.memory import Saved
from acclimate.memory.operations import Operation

if TYPE_CHECKING:
    from acclimate.core.state import State

__all__ = ["Copy", "Indexed", "Released"]


class Released:
    """What the released code does in one step: it takes the place of torch's functions and notes which layers ran.

    Batch norms with an affine weight and the batch's statistics get the gradient of another function, see `_BatchNorm`.
    Layers are convolutions, linear layers and batch norms, in the order of their first call.
    """

    def __init__(self, model: nn.Module) -> None:
        found = ((module, getattr(module, "running_mean", None)) for module in model.modules())
        norms = [module for module, mean in found if isinstance(mean, Tensor)]
        self._source = {id(norm.weight): (norm.running_mean, norm.running_var) for norm in norms}
        self._sizes: dict[int, int] = {}
        self._biases: set[int] = set()

    def compute(self, operation: Operation) -> Any:
        """What one of torch's functions gives."""
        family, given = operation.bound()
        weight = given.get("weight")
        if family not in ("weighted", "batch_norm") or not isinstance(weight, nn.Parameter):
            return operation.compute()
        self._sizes[id(weight)] = given["input"].numel()
        self._biases.add(id(given.get("bias")))
        if family == "weighted" or not given.get("training") or not torch.is_grad_enabled():
            return operation.compute()
        own = given.get("running_mean"), given.get("running_var")
        before = [None if tensor is None else tensor.clone() for tensor in own]
        mean, variance = self._source.get(id(weight), (None, None)) if own[0] is None else before
        eps = given.get("eps", 1e-5)
        return _BatchNorm.apply(given["input"], weight, given.get("bias"), mean, variance, eps, operation)

    def keep(self, saved: Saved, shares: Mapping[str, float]) -> Codec:
        """Inputs of layers by their shares, none of those without; all else whole."""
        return Indexed(keep=shares.get(saved.layer, 0.0)) if _is_pruned(saved) else Copy()

    def keep_all(self, saved: Saved) -> Codec:
        """As `keep`, with the whole of each layer's input."""
        return Indexed(keep=1.0) if _is_pruned(saved) else Copy()

    def importance(self, state: State, probed: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, int], int]:
        """Gradients, sizes of inputs, and the sum of all sizes, from gradients of a probe by weight.

        Gradients have the last step's added, where a method declares it as `gradient.*`. Sizes are those of all layers
        by position: the i-th weight that has a gradient gets the i-th layer's, be it its own or not.
        """
        found = {
            name: gradient + state[f"gradient.{name}"] if f"gradient.{name}" in state else gradient
            for name, gradient in probed.items()
            if id(state.weights[name]) not in self._biases
        }
        return found, dict(zip(found, self._sizes.values(), strict=False)), sum(self._sizes.values())


def _is_pruned(saved: Saved) -> bool:
    """Whether this is a layer's input, and not the whole one that a batch norm keeps beside."""
    if saved.role != "input" or not saved.layer:
        return False
    beside = saved.tensor.ndim > saved.arguments["input"].ndim
    return saved.family == "weighted" or (saved.family == "batch_norm" and saved.arguments["training"] and not beside)


class _BatchNorm(torch.autograd.Function):
    """Forward by the batch's statistics; backward that of `y = weight (n r + d) + bias` with r and d held constant.

    `n = (x - mu) / sigma`, `r = sigma / sigma_run`, `d = (mu - mu_run) / sigma_run`, so that the gradient of x is r
    times the true one, and that of the weight is `r sum g n + d sum g`. The input is saved twice: whole, for the
    gradient of x, with an axis in front by which it is known, and pruned, for that of the weight, where it is
    normalised by its own mean and deviation.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        mean: Tensor | None,
        variance: Tensor | None,
        eps: float,
        operation: Operation,
    ) -> Tensor:
        ctx.save_for_backward(x, x.unsqueeze(0), weight, mean, variance)
        ctx.eps = eps
        return operation.compute()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        pruned, whole, weight, *running = ctx.saved_tensors
        needed, eps = ctx.needs_input_grad, ctx.eps
        axes, shape = (0, *range(2, pruned.ndim)), (1, -1, *(1,) * (pruned.ndim - 2))
        wide = torch.promote_types(pruned.dtype, torch.float32)
        g = gradients[0].to(wide)
        n, mean, sigma = _normalised(whole[0].to(wide), axes, eps)
        scale, shift = torch.ones_like(sigma), torch.zeros_like(sigma)
        if running[0] is not None:
            mean_run, variance_run = (tensor.to(wide).view(shape) for tensor in running)
            sigma_run = (variance_run + eps).sqrt()
            scale, shift = sigma / sigma_run, (mean - mean_run) / sigma_run
        to_x = to_weight = to_bias = None
        if needed[0]:
            centred = g - g.mean(axes, keepdim=True) - n * (g * n).mean(axes, keepdim=True)
            to_x = (centred * (weight.to(wide).view(shape) * scale / sigma)).to(pruned.dtype)
        if needed[1]:
            along = (g * _normalised(pruned.to(wide), axes, eps)[0]).sum(axes)
            to_weight = (scale.view(-1) * along + shift.view(-1) * g.sum(axes)).to(weight.dtype)
        if needed[2]:
            to_bias = g.sum(axes).to(weight.dtype)
        return to_x, to_weight, to_bias, None, None, None, None


def _normalised(x: Tensor, axes: tuple[int, ...], eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """`x` by its mean and deviation over these axes, and both."""
    mean = x.mean(axes, keepdim=True)
    centred = x - mean
    sigma = (centred.square().mean(axes, keepdim=True) + eps).sqrt()
    return centred / sigma, mean, sigma


@dataclass(frozen=True, kw_only=True)
class Indexed(Codec):
    """The `floor(keep N)` values of largest magnitude over the whole tensor, zeros among them, and int32 indices."""

    keep: float

    def pack(self, tensor: Tensor, layout: Layout, generator: Generator | None) -> tuple[Tensor, ...]:
        flat = layout.flat(tensor)
        where = flat.abs().topk(self._kept(layout.numel), sorted=False).indices
        return flat[where], where.int()

    def unpack(self, parts: tuple[Tensor, ...], layout: Layout) -> Tensor:
        values, where = parts
        flat = torch.zeros(layout.numel, dtype=layout.dtype, device=layout.device)
        return layout.shaped(flat.index_copy_(0, where.long(), values))

    def size(self, shape: Sequence[int], dtype: torch.dtype) -> int:
        return self._kept(math.prod(shape)) * (dtype.itemsize + 4)

    def _kept(self, count: int) -> int:
        return math.floor(self.keep * count + 1e-6)


@dataclass(frozen=True, kw_only=True)
class Copy(Codec):
    """The whole tensor, copied, so that another operation may keep less of the same memory beside it."""

    dtypes: ClassVar[frozenset[torch.dtype]] = frozenset()

    def pack(self, tensor: Tensor, layout: Layout, generator: Generator | None) -> tuple[Tensor, ...]:
        return (layout.flat(tensor).clone(),)

    def unpack(self, parts: tuple[Tensor, ...], layout: Layout) -> Tensor:
        return layout.shaped(parts[0])

    def size(self, shape: Sequence[int], dtype: torch.dtype) -> int:
        return math.prod(shape) * dtype.itemsize
