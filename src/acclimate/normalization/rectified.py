"""TEMA: running statistics, rectified by a share of the source's that depends on how far each layer has moved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]

from acclimate.core import foreach
from acclimate.core.config import between, one_of
from acclimate.core.normalization import Normalization, NormalizationLayer, normalizations, wide
from acclimate.core.table import Table
from acclimate.parts.layer_scores import divergences

if TYPE_CHECKING:
    from acclimate.core.state import State

__all__ = ["MOMENTA", "RectifiedStatistics", "divergence", "shares"]

MOMENTA: Mapping[str, Mapping[int, float]] = {
    "cifar": {64: 1.0, 4: 0.1, 1: 0.01},
    "imagenet": {200: 1.0, 16: 0.1, 1: 0.01},
}
"""The published weight of a new batch, by the size from which on it holds; sizes between those published are ours."""

_JITTER = 1e-5


@normalizations.register("tema")
@dataclass(frozen=True, kw_only=True)
class RectifiedStatistics(Normalization):
    """Running statistics of the stream, rectified by the source's, layer by layer (TEMA, also TTBN).

    A first pass moves each layer's `t <- (1 - momentum) t + momentum batch` (unbiased variance) and measures how far
    it is from the source's, `D = KL(S || T) / 2 + KL(T || S) / 2`, diagonal, summed over channels. Over the layers,
    `z = (D - mean D) / std D`, held to [-1, 1], gives each layer its share `pi = most (z + 1) / 2`, and the second
    pass answers by

        m = pi mu_s + (1 - pi) t_mean      v = pi var_s + (1 - pi) t_var + pi (1 - pi) (mu_s - t_mean)^2

    so that the layers that moved most lean on the source most. The first pass itself runs on a smoothed share,
    `P <- smoothing P + (1 - smoothing) pi`, from 0. Views and frozen answers use the last shares and `t`, unchanged.
    `BatchNorm1d` layers keep the source's statistics, as in the released code. Where all layers moved alike, or there
    is one only, `pi = most / 2` (ours).

    Arguments: `momentum` in [0, 1], or the name of a published table by batch size: "cifar" (1 from 64 samples on, 0.1
    from 4, 0.01 below) or "imagenet" (1 from 200, 0.1 from 16, 0.01 below; preset "imagenet"); `start`, what t begins
    and resets to: "source", or "fresh" as in the released code (mean 0, variance 1), which biases the first batches if
    the momentum is below 1 (preset "released"); `most` in [0, 1], the largest share (0.5); `smoothing` in [0, 1] (0.9).

    Cost: two forwards a batch; two vectors and two numbers for each layer, and as much to reset to.
    Source: "Unraveling batch normalization for realistic test-time adaptation", AAAI 2024; constants are those of the
    released code.
    Fails on streams of mixed domains, of which t is a blend.

    >>> from acclimate import adapt
    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2))
    >>> adapt(net, "bn", normalization="tema")(torch.rand(8, 3, 8, 8)).shape
    torch.Size([8, 2])
    """

    observes: ClassVar[bool] = True
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "imagenet": {"momentum": "imagenet"},
        "released": {"start": "fresh"},
        "imagenet_released": {"momentum": "imagenet", "start": "fresh"},
    }
    momentum: float | str = "cifar"
    start: str = "source"
    most: float = 0.5
    smoothing: float = 0.9

    def __post_init__(self) -> None:
        if isinstance(self.momentum, str):
            one_of(*MOMENTA, momentum=self.momentum)
        else:
            between(0, 1, momentum=self.momentum)
        one_of("source", "fresh", start=self.start)
        between(0, 1, most=self.most, smoothing=self.smoothing)

    def layer(self, source: _BatchNorm, name: str, table: Table) -> nn.Module:
        return source if isinstance(source, nn.BatchNorm1d) else RectifiedLayer(source, name, table, self)

    def momentum_of(self, samples: int) -> float:
        """The weight of a batch of so many samples."""
        if not isinstance(self.momentum, str):
            return self.momentum
        return next(value for size, value in MOMENTA[self.momentum].items() if samples >= size)

    def observe(self, state: State, x: Tensor) -> None:
        layers = [layer for layer in state.layers if isinstance(layer, RectifiedLayer)]
        for layer in layers:
            layer.moved = None
        super().observe(state, x)
        layers = [layer for layer in layers if layer.moved is not None]
        if not layers:
            return
        found = shares(torch.stack([layer.moved for layer in layers if layer.moved is not None]), self.most)
        foreach.copy([layer.share for layer in layers], found.to(torch.float32).unbind())
        foreach.lerp([layer.smoothed for layer in layers], [layer.share for layer in layers], 1 - self.smoothing)
        state.note(source_share=found.mean())


class RectifiedLayer(NormalizationLayer):
    """Keeps `target_mean` and `target_var`, its `share` of the source for answers, and the `smoothed` one."""

    target_mean: Tensor
    target_var: Tensor
    share: Tensor
    smoothed: Tensor

    def __init__(self, source: _BatchNorm, name: str, table: Table, config: RectifiedStatistics) -> None:
        super().__init__(source)
        self.config = config
        self.moved: Tensor | None = None
        mean, variance = self.source_statistics()
        if config.start == "fresh":
            mean, variance = torch.zeros_like(mean), torch.ones_like(variance)
        none = mean.new_zeros((), dtype=torch.float32)
        for key, value in (("target_mean", mean), ("target_var", variance), ("share", none), ("smoothed", none)):
            self.register_buffer(key, value.clone())
            table.declare(f"normalization.{name}.{key}", self.get_buffer(key), initial=value, kind="statistics")

    def respond(self, x: Tensor) -> Tensor:
        if self.phase != "observe":
            return self.normalise(x, *self.rectified(self.share, x.dtype))
        if x.numel() > x.shape[1]:
            momentum = self.config.momentum_of(len(x))
            for old, new in zip((self.target_mean, self.target_var), self.moments(x, correction=1), strict=True):
                old.lerp_(new.to(old.dtype), momentum)
        source, target = self.source_statistics(), (self.target_mean, self.target_var)
        self.moved = divergence(*(value.to(wide(x.dtype)) for value in (*source, *target)))
        return self.normalise(x, *self.rectified(self.smoothed, x.dtype))

    def rectified(self, share: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Mean and variance of the mixture of source and target."""
        values = (*self.source_statistics(), self.target_mean, self.target_var)
        mean, variance, target_mean, target_variance = (value.to(wide(dtype)) for value in values)
        away = (mean - target_mean).square() * (share * (1 - share))
        return torch.lerp(target_mean, mean, share), torch.lerp(target_variance, variance, share) + away

    def plain(self) -> nn.Module:
        """A stock batch norm with the rectified statistics."""
        layer = self.stock(track=True)
        for key, value in zip(("running_mean", "running_var"), self.rectified(self.share, torch.float32), strict=True):
            setattr(layer, key, value.to(getattr(layer, key).dtype))
        return layer


def divergence(mean: Tensor, variance: Tensor, other_mean: Tensor, other_variance: Tensor) -> Tensor:
    """Half the sum of both KL divergences between two diagonal Gaussians: a scalar."""
    return divergences(mean, variance + _JITTER, other_mean, other_variance + _JITTER).sum()


def shares(moved: Tensor, most: float) -> Tensor:
    """Of the source, for each layer from its divergence `[layers]`: in [0, most], half of it where all are alike."""
    apart = moved - moved.mean()
    spread = apart.square().mean().sqrt()
    z = torch.where(spread > 0, apart / spread, 0.0)
    return (z.clamp(-1, 1) + 1) * (most / 2)
