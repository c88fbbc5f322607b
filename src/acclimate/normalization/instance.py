"""Instance statistics: each sample is normalised by itself."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]

from acclimate.core.normalization import Normalization, NormalizationLayer, normalizations
from acclimate.core.table import Table

__all__ = ["InstanceStatistics"]


@normalizations.register("instance")
@dataclass(frozen=True, kw_only=True)
class InstanceStatistics(Normalization):
    """`m = mu_i`, `v = var_i`: mean and biased variance of each sample's channel over its L positions.

    The weights and biases stay the batch norms' own. An answer depends on its own row only, so that domains may mix
    and batches be of any size; what samples differ in by brightness and contrast of channels is lost. With one
    position, and in `BatchNorm1d` layers, there is nothing to average: there the source's statistics are used.

    Cost: no state and no further pass. Source: Ulyanov et al., 2016, put into a trained batch norm.
    Fails where the level of a channel tells the classes apart, as it does before a global average: a network trained
    with batch norm is then left with little, CIFAR-10's ResNet-20 with almost nothing. In layers of few positions
    statistics are mostly chance.

    >>> from acclimate import adapt
    >>> import torch
    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2))
    >>> adapt(net, "bn", normalization="instance")(torch.rand(8, 3, 8, 8)).shape
    torch.Size([8, 2])
    """

    def layer(self, source: _BatchNorm, name: str, table: Table) -> nn.Module:
        if isinstance(source, nn.BatchNorm1d):
            return source
        layer = InstanceLayer(source)
        layer.source_statistics()
        return layer


class InstanceLayer(NormalizationLayer):
    def respond(self, x: Tensor) -> Tensor:
        if x.shape[2:].numel() == 1:
            return self.normalise_by_source(x)
        return self.normalise(x, *self.moments(x, each=True))
