"""UnMix-TNS: the statistics of a mixture of components, which follow a correlated stream apart from each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]

from acclimate.core.config import between, positive, whole
from acclimate.core.normalization import Normalization, NormalizationLayer, normalizations, wide
from acclimate.core.table import Table

__all__ = ["UnmixedStatistics"]


@normalizations.register("unmix")
@dataclass(frozen=True, kw_only=True)
class UnmixedStatistics(Normalization):
    """Each sample by the K components of a layer, drawn a little towards it where they resemble it (UnMix-TNS).

    With a sample's mean `mu` and biased variance `var` for each channel, components `(M_k, V_k)` and
    `p = softmax_k(cos(mu, M_k) / temperature)`, without gradient:

        m_k = (1 - p_k) M_k + p_k mu      v_k = (1 - p_k) V_k + p_k var
        m = mean_k m_k                    v = mean_k v_k + mean_k m_k^2 - m^2

    Then, with `rate = 1 - (1 - momentum)^(N / full_batch)`, `M_k <- M_k + rate mean_b p_bk (mu_b - M_k)`, and V_k
    likewise. They begin at `M_k = mu_s + sqrt(spread K / (K - 1)) std_s noise_k` and `V_k = (1 - spread) var_s`: in
    expectation the mixture has the source's variance. A reset returns to this draw. Answers move the components;
    views and frozen answers change nothing. An answer depends on other rows only by what components have learned.
    `BatchNorm1d` layers keep the source's statistics, as in the released code.

    Arguments: `components` K >= 1 (16; 128 for streams of mixed domains, preset "mixed"); `temperature` > 0 (0.07);
    `spread` in [0, 1] (0.5); `momentum` in [0, 1] (0.1); `full_batch` >= 1 (64; 16 on ImageNet, preset "imagenet").

    Cost: `2 K` vectors for each layer and as many to reset to; no further pass.
    Source: Tomar et al., ICLR 2024; all constants are those of the released code.
    Fails when classes and domains are well mixed already: batch statistics are then better estimates.

    >>> from acclimate import adapt
    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2))
    >>> adapt(net, "bn", normalization="unmix")(torch.rand(8, 3, 8, 8)).shape
    torch.Size([8, 2])
    """

    by_batch: ClassVar[bool] = True  # a second forward of some rows would meet components that the first has moved
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "mixed": {"components": 128},
        "imagenet": {"full_batch": 16},
        "imagenet_mixed": {"components": 128, "full_batch": 16},
    }
    components: int = 16
    temperature: float = 0.07
    spread: float = 0.5
    momentum: float = 0.1
    full_batch: int = 64

    def __post_init__(self) -> None:
        whole(1, components=self.components, full_batch=self.full_batch)
        positive(temperature=self.temperature)
        between(0, 1, spread=self.spread, momentum=self.momentum)

    def layer(self, source: _BatchNorm, name: str, table: Table) -> nn.Module:
        return source if isinstance(source, nn.BatchNorm1d) else UnmixedLayer(source, name, table, self)

    def rate(self, samples: int) -> float:
        """How far components follow a batch of so many samples."""
        return 1 - (1 - self.momentum) ** (samples / self.full_batch)


class UnmixedLayer(NormalizationLayer):
    """Keeps `means` and `variances` of the components, `[K, C]`."""

    def __init__(self, source: _BatchNorm, name: str, table: Table, config: UnmixedStatistics) -> None:
        super().__init__(source)
        self.config = config
        mean, variance = (value.to(wide(value.dtype)) for value in self.source_statistics())
        key = f"normalization.{name}.noise"
        noise = torch.randn(config.components, len(mean), generator=table.generator(key)).to(mean)
        del table.generators[key]  # nothing more is drawn; what was is kept as the value to reset to
        spread = config.spread if config.components > 1 else 0.0
        scale = (spread * config.components / max(1, config.components - 1)) ** 0.5
        self._declare("means", mean + scale * variance.sqrt() * noise, name, table)
        self._declare("variances", ((1 - spread) * variance).expand_as(noise).clone(), name, table)

    def _declare(self, key: str, initial: Tensor, name: str, table: Table) -> None:
        self.register_buffer(key, initial.clone())
        table.declare(f"normalization.{name}.{key}", self.get_buffer(key), initial=initial, kind="statistics")

    def respond(self, x: Tensor) -> Tensor:
        means, variances = self.moments(x, each=True)
        with torch.autocast(x.device.type, enabled=False):  # products below are of statistics
            mixed = self._mixed(means, variances)
        return self.normalise(x, *mixed)

    def _mixed(self, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance for each sample, from its own; all as products `[N, K] [K, C]`."""
        count = self.config.components
        with torch.no_grad():
            means, variances = (self.get_buffer(key).to(mean.dtype) for key in ("means", "variances"))
            share = self._shares(mean, means)
            rest = 1 - share
            centre = means.mean(0)  # squares about it, so that a far mean costs no digits
            apart = means - centre
            level, slope = rest @ apart, (share * rest) @ apart
            squares, own = rest.square() @ apart.square(), share.square().sum(1, keepdim=True)
            within, total = rest @ variances, share.sum(1, keepdim=True)
        shifted = mean - centre
        moved = (level + total * shifted) / count
        second = (squares + 2 * slope * shifted + own * shifted.square()) / count
        spread = (within + total * variance) / count + second - moved.square()
        if self.phase == "answer":
            self._follow(share, mean.detach(), variance.detach())
        return centre + moved, spread.clamp_min(0)

    def _shares(self, mean: Tensor, means: Tensor) -> Tensor:
        alike = F.normalize(mean, dim=1) @ F.normalize(means, dim=1).T
        return (alike / self.config.temperature).softmax(1)

    @torch.no_grad()
    def _follow(self, share: Tensor, mean: Tensor, variance: Tensor) -> None:
        weight = self.config.rate(len(share)) / len(share)
        keep = (1 - weight * share.sum(0)).unsqueeze(1)
        for key, value in (("means", mean), ("variances", variance)):
            buffer = self.get_buffer(key)
            buffer.copy_(torch.addmm(buffer.to(value.dtype) * keep, share.T, value, alpha=weight))
