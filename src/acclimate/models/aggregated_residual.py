r"""Residual networks of aggregated transformations for 32x32 images.

A 3x3 convolution, three stages of bottlenecks at full, half and quarter resolution, the mean over all positions,
a linear head. A bottleneck is $x \mapsto \mathrm{relu}(s(x) + F(x))$, where $F$ narrows to $D$ channels by 1x1,
mixes them by a 3x3 convolution in $C$ groups, and widens by 1x1, each with its norm; $s$ is a 1x1 convolution
with a norm where the shape changes. A stage of $p$ planes has $D = C \lfloor p w / 64 \rfloor$ and widens to $4p$.

S. Xie, R. Girshick, P. Dollár, Z. Tu, K. He: Aggregated Residual Transformations for Deep Neural Networks,
CVPR 2017. Tensors are named as in the CIFAR checkpoints of AugMix (D. Hendrycks et al., ICLR 2020), which
normalise by 0.5 and 0.5.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional as F

from acclimate.models.initial import private_init
from acclimate.models.layers import HALF, Channels, ImageModel, conv, pooled
from acclimate.models.weights import filled

__all__ = ["AggregatedResidualNet", "resnext_29"]

_EXPANSION = 4


class _Bottleneck(nn.Module):
    def __init__(self, channels: int, planes: int, inner: int, groups: int, stride: int) -> None:
        super().__init__()
        out = _EXPANSION * planes
        self.conv_reduce = conv(channels, inner, 1)
        self.bn_reduce = nn.BatchNorm2d(inner)
        self.conv_conv = conv(inner, inner, 3, stride, groups=groups)
        self.bn = nn.BatchNorm2d(inner)
        self.conv_expand = conv(inner, out, 1)
        self.bn_expand = nn.BatchNorm2d(out)
        self.downsample = (
            nn.Sequential(conv(channels, out, 1, stride), nn.BatchNorm2d(out))
            if stride > 1 or channels != out
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        branch = F.relu(self.bn_reduce(self.conv_reduce(x)))
        branch = F.relu(self.bn(self.conv_conv(branch)))
        branch = self.bn_expand(self.conv_expand(branch))
        return F.relu(branch + (x if self.downsample is None else self.downsample(x)))


class AggregatedResidualNet(ImageModel):
    """A CIFAR ResNeXt: `[B, 3, H, W]` in [0, 1] -> logits `[B, classes]`.

    Arguments:
        classes: number of outputs.
        depth: 9 n + 2 for n bottlenecks in each stage.
        cardinality: groups of the 3x3 convolutions.
        base_width: channels of a group, of 64 planes.
        planes: of the first stage; the others have twice and four times as many.
        mean: of each input channel.
        std: of each input channel.
        seed: of the initial weights; the global generator is not used.

    Raises:
        ValueError: a depth that is not 9 n + 2, or groups without a channel.

    >>> import torch

    >>> AggregatedResidualNet(7, depth=11, planes=8)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 7])
    """

    def __init__(
        self,
        classes: int = 100,
        *,
        depth: int = 29,
        cardinality: int = 4,
        base_width: int = 32,
        planes: int = 64,
        mean: Channels = HALF,
        std: Channels = HALF,
        seed: int = 0,
    ) -> None:
        super().__init__()
        blocks, rest = divmod(depth - 2, 9)
        if rest or blocks < 1:
            raise ValueError(f"depth is {depth}; expected 9 n + 2 for n bottlenecks in each stage: 11, 20, 29, ...")
        if planes * base_width < 64:
            raise ValueError(f"planes={planes} and base_width={base_width} make groups without a channel.")

        def stage(channels: int, planes: int, stride: int) -> nn.Sequential:
            inner = planes * base_width // 64 * cardinality
            strides = (stride, *(1 for _ in range(blocks - 1)))
            inputs = (channels, *(_EXPANSION * planes for _ in range(blocks - 1)))
            return nn.Sequential(
                *(_Bottleneck(n, planes, inner, cardinality, s) for n, s in zip(inputs, strides, strict=True))
            )

        with private_init(seed):
            self.conv_1_3x3 = conv(3, planes, 3)
            self.bn_1 = nn.BatchNorm2d(planes)
            self.stage_1 = stage(planes, planes, 1)
            self.stage_2 = stage(_EXPANSION * planes, 2 * planes, 2)
            self.stage_3 = stage(_EXPANSION * 2 * planes, 4 * planes, 2)
            self.classifier = nn.Linear(_EXPANSION * 4 * planes, classes)
        self.normalise_by(mean, std)

    def forward(self, images: Tensor) -> Tensor:
        x = F.relu(self.bn_1(self.conv_1_3x3(self.normalised(images))))
        return self.classifier(pooled(self.stage_3(self.stage_2(self.stage_1(x)))))


def resnext_29(weights: str | Path | None = None, *, seed: int = 0) -> AggregatedResidualNet:
    """ResNeXt-29 4x32d for CIFAR-100: 6,900,132 parameters, in evaluation mode.

    Arguments:
        weights: a checkpoint, see `load_weights`; without one the weights are random.
        seed: of the random weights.
    """
    return filled(AggregatedResidualNet(seed=seed), weights)
