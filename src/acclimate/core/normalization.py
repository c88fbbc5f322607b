"""How batch statistics are estimated at test time: the contract of the normalisation family."""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]
from torch.overrides import handle_torch_function, has_torch_function_unary

from acclimate.anatomy import batch_norms
from acclimate.core.config import Configured
from acclimate.core.registry import Registry
from acclimate.core.table import Table

if TYPE_CHECKING:
    from acclimate.core.state import State

__all__ = [
    "HOOKS",
    "Normalization",
    "NormalizationLayer",
    "Phase",
    "convert",
    "is_stock",
    "moments",
    "normalizations",
    "owned",
    "phase",
    "replace_module",
    "scaled",
    "wide",
]

Phase = Literal["answer", "view", "observe", "learn"]
"""What a forward is for: the answer; a view, teacher or probe; a pass that only updates statistics before the
answer; or learning from samples kept earlier, in methods whose statistics follow what they learn from."""


@dataclass(frozen=True, kw_only=True)
class Normalization(Configured, abc.ABC):
    """How each batch normalisation layer of a model gets its mean and variance.

    `observes`: whether a pass over the batch that only updates statistics precedes the answering forward;
    `by_batch`: whether the answer to a row depends on the other rows of its forward.
    """

    observes: ClassVar[bool] = False
    by_batch: ClassVar[bool] = False

    @abc.abstractmethod
    def layer(self, source: _BatchNorm, name: str, table: Table) -> nn.Module:
        """The layer that takes the place of `source`; what it carries over batches is declared in `table`."""

    def connect(self, layers: list[NormalizationLayer], table: Table) -> None:
        """Declare what the layers share; called once, when all of them are in place."""

    def ready(self, state: State) -> None:
        """Called once on a new adaptation (not on a resumed one): measure the source, as `Method.ready` does.

        What is found goes into declared state, together with what a reset returns to.
        """

    def observe(self, state: State, x: Tensor) -> None:
        """What precedes the answer to a batch, if `observes`: by default a pass that only updates statistics."""
        state.run(x, "observe")

    def passes(self) -> float:
        """How many forwards of the batch `observe` adds to one answer, at most."""
        return float(self.observes)


normalizations: Registry[Normalization] = Registry("normalization", "acclimate.normalization", Normalization)


class NormalizationLayer(nn.Module):
    """Takes the place of one batch norm: the same weight and bias, other statistics.

    `y = weight * (x - mean) / sqrt(var + eps) + bias`, statistics in at least float32. `phase` says what the
    running forward is for: only an answering forward may change stored statistics; `observe` comes
    before it where a normalisation asks for that; `learn` is for methods that learn from samples kept earlier;
    teacher, view and probe forwards change nothing. `owner` says whose weights run: "" for those that answer, or
    the name of a twin; `depth` how many of the model's batch norms come before it, as a share of all, in [0, 1).
    With `groups` > 1 the rows are that many batches one after another, each normalised by itself.
    Subclasses say what happens to one batch in `respond`.
    """

    def __init__(self, source: _BatchNorm) -> None:
        if not is_stock(source):
            raise ValueError(
                f"{type(source).__name__} is a batch norm with a forward of its own, which only "
                "normalization='batch' and 'source' leave in place. Choose one of these."
            )
        super().__init__()
        for hooks in HOOKS:
            setattr(self, hooks, getattr(source, hooks))
        self._kind = next((kind for kind in _STOCK if isinstance(source, kind)), nn.BatchNorm2d)
        self.weight = source.weight
        self.bias = source.bias
        self.num_features, self.affine, self.momentum = source.num_features, source.affine, source.momentum
        self.eps = source.eps
        self.phase: Phase = "answer"
        self.owner = ""
        self.depth = 0.0
        self.groups = 1
        self.decisions: Any = ()
        self.register_buffer("running_mean", source.running_mean)
        self.register_buffer("running_var", source.running_var)
        self.running_mean: Tensor | None
        self.running_var: Tensor | None

    def forward(self, x: Tensor) -> Tensor:
        if self.groups == 1:
            return self.respond(x)
        return torch.cat([self.respond(part) for part in x.chunk(self.groups)])

    def respond(self, x: Tensor) -> Tensor:
        """One batch `[N, C, ...]`, normalised."""
        raise NotImplementedError(f"{type(self).__name__} does not say how it normalises. Define respond(x).")

    def moments(self, x: Tensor, *, each: bool = False, correction: int = 0) -> tuple[Tensor, Tensor]:
        """Mean and variance of each channel over the batch, `[C]`, or of `each` sample by itself, `[N, C]`.

        Variances divide by the number of values less `correction`. In float32 or wider, differentiable.
        """
        return moments(x, tuple(range(2, x.ndim)) if each else (0, *range(2, x.ndim)), correction)

    def normalise(self, x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        """Apply statistics of channels, `[C]`, or of samples and channels, `[N, C]`, in one pass."""
        scale = torch.rsqrt(variance + self.eps)
        if self.weight is not None:  # pyright: ignore[reportUnnecessaryComparison]
            scale = scale * self.weight
        shift = -mean * scale if self.bias is None else torch.addcmul(self.bias, mean, scale, value=-1)  # pyright: ignore[reportUnnecessaryComparison]
        shape = (*scale.shape, *(1,) * (x.ndim - 2))
        return scaled(x, scale.to(x.dtype).view(shape), shift.to(x.dtype).view(shape))

    def normalise_by_batch(self, x: Tensor) -> Tensor:
        """By the batch's own statistics; by the source's where one value a channel leaves none."""
        if x.numel() == x.shape[1]:
            return self.normalise_by_source(x)
        return F.batch_norm(x, None, None, self.weight, self.bias, training=True, momentum=0.0, eps=self.eps)

    def normalise_by_source(self, x: Tensor) -> Tensor:
        """As the source model does."""
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)

    def source_statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and variance that the source model brought. ValueError if it keeps none."""
        if self.running_mean is None or self.running_var is None:
            raise ValueError(
                "a batch norm of this model keeps no running statistics, which this normalisation mixes with "
                "the batch's. Choose normalization='batch'."
            )
        return self.running_mean, self.running_var

    def plain(self) -> nn.Module:
        """The nearest stock module of torch, for models that leave this library; itself if there is none."""
        return self

    def stock(self, *, track: bool) -> nn.Module:
        """A batch norm of torch with this layer's parameters, with or without its running statistics."""
        affine = self.weight is not None  # pyright: ignore[reportUnnecessaryComparison]
        layer = self._kind(self.num_features, self.eps, affine=affine, track_running_stats=track)
        layer.weight, layer.bias = self.weight, self.bias
        if track:
            layer.running_mean, layer.running_var = self.source_statistics()
        return layer.eval()


def wide(dtype: torch.dtype) -> torch.dtype:
    """In what statistics are computed: float32, or the input's own type where that is wider."""
    return torch.promote_types(dtype, torch.float32)


def moments(x: Tensor, axes: tuple[int, ...], correction: int) -> tuple[Tensor, Tensor]:
    """Mean and variance of `x` over `axes`, one operation for whatever watches torch's functions."""
    if has_torch_function_unary(x):
        return handle_torch_function(moments, (x,), x, axes, correction)
    return _Moments.apply(x, axes, correction)


def scaled(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """`x * scale + shift`, one operation for whatever watches torch's functions."""
    if has_torch_function_unary(x):
        return handle_torch_function(scaled, (x,), x, scale, shift)
    return torch.addcmul(shift, x, scale)


class _Moments(torch.autograd.Function):
    """Two passes forward, one backward.

    Autograd would keep and pass over a copy of `x`; `torch.var_mean` takes ten times as long on the CPU.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, axes: tuple[int, ...], correction: int) -> tuple[Tensor, Tensor]:
        mean = x.mean(axes, keepdim=True, dtype=wide(x.dtype))
        ctx.count = x.numel() // mean.numel()
        ctx.divisor = ctx.count - correction
        ctx.save_for_backward(x, mean)
        return mean.squeeze(axes), (x - mean).square_().sum(axes).div_(ctx.divisor)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """`g_mean / count + (2 / divisor) g_variance (x - mean)`."""
        x, mean = ctx.saved_tensors
        to_mean, to_variance = (gradient.view(mean.shape) for gradient in gradients)
        slope = to_variance * (2 / ctx.divisor)
        level = torch.addcmul(to_mean / ctx.count, slope, mean, value=-1)
        return torch.addcmul(level, x, slope).to(x.dtype), None, None


_STOCK = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
HOOKS = tuple(name for name in vars(nn.Identity()) if name.endswith(("_hooks", "_with_kwargs", "_always_called")))
"""Where a module keeps the hooks of its users."""


def is_stock(layer: _BatchNorm) -> bool:
    """Whether a batch norm computes what torch's own does, so that another layer can take its place."""
    return isinstance(layer, nn.SyncBatchNorm) or type(layer).forward is _BatchNorm.forward


def convert(model: nn.Module, normalization: Normalization, table: Table) -> list[NormalizationLayer]:
    """Replace every batch norm of `model`, in place; returns the layers that need to know their phase."""
    layers: list[NormalizationLayer] = []
    norms = batch_norms(model)
    for place, (name, source) in enumerate(norms.items()):
        if not name:
            raise ValueError("the model is a bare batch norm. Wrap it in nn.Sequential before adapting it.")
        layer = normalization.layer(source, name, table).eval()
        if layer is not source:
            replace_module(model, source, layer)
        if isinstance(layer, NormalizationLayer):
            layer.depth = place / len(norms)
            layers.append(layer)
    return layers


def replace_module(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put `new` wherever `old` stands in `model`, under every name it has."""
    for parent in list(model.modules()):
        for child, module in list(parent._modules.items()):  # pyright: ignore[reportPrivateUsage]  # named_children gives a shared module once
            if module is old:
                setattr(parent, child, new)


@contextlib.contextmanager
def phase(layers: list[NormalizationLayer], value: Phase, groups: int = 1) -> Iterator[None]:
    """Tell the layers what the forward in this block is for, and how many batches its rows are."""
    for layer in layers:
        vars(layer).update(phase=value, groups=groups)  # setattr of a module costs ten times as much, for every forward
    try:
        yield
    finally:
        for layer in layers:
            vars(layer).update(phase="answer", groups=1)


@contextlib.contextmanager
def owned(layers: list[NormalizationLayer], owner: str) -> Iterator[None]:
    """Tell the layers whose weights run in this block."""
    for layer in layers:
        layer.owner = owner
    try:
        yield
    finally:
        for layer in layers:
            layer.owner = ""
