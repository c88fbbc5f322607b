r"""The residual networks of bottlenecks for ImageNet.

A 7x7 convolution and a pooling that quarter the resolution, four stages of bottlenecks, the mean over all
positions, a linear head. A bottleneck is $x \mapsto \mathrm{relu}(s(x) + F(x))$, where $F$ narrows by 1x1, mixes
by 3x3 and widens fourfold by 1x1, each with its norm; $s$ is a 1x1 convolution with a norm where the shape
changes. The 3x3 convolution takes the stride, as in the weights in use today (the paper gave it to the first 1x1).

K. He, X. Zhang, S. Ren, J. Sun: Deep Residual Learning for Image Recognition, CVPR 2016, table 1. Tensors are
named as in torchvision's checkpoints.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional as F

from acclimate.models.initial import private_init
from acclimate.models.layers import IMAGENET_MEAN, IMAGENET_STD, Channels, ImageModel, conv, pooled
from acclimate.models.weights import filled

__all__ = ["BottleneckNet", "resnet_50"]

_EXPANSION = 4


class _Bottleneck(nn.Module):
    def __init__(self, channels: int, planes: int, stride: int) -> None:
        super().__init__()
        out = _EXPANSION * planes
        self.conv1 = conv(channels, planes, 1)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = conv(planes, planes, 3, stride)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = conv(planes, out, 1)
        self.bn3 = nn.BatchNorm2d(out)
        self.downsample = (
            nn.Sequential(conv(channels, out, 1, stride), nn.BatchNorm2d(out))
            if stride > 1 or channels != out
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        branch = F.relu(self.bn1(self.conv1(x)))
        branch = F.relu(self.bn2(self.conv2(branch)))
        branch = self.bn3(self.conv3(branch))
        return F.relu(branch + (x if self.downsample is None else self.downsample(x)))


class BottleneckNet(ImageModel):
    """An ImageNet residual network: `[B, 3, H, W]` in [0, 1] -> logits `[B, classes]`.

    Arguments:
        classes: number of outputs.
        blocks: bottlenecks in each of the four stages.
        width: channels after the first convolution.
        mean: of each input channel.
        std: of each input channel.
        seed: of the initial weights; the global generator is not used.

    >>> import torch

    >>> BottleneckNet(7, blocks=(1, 1, 1, 1), width=8)(torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2, 7])
    """

    def __init__(
        self,
        classes: int = 1000,
        *,
        blocks: tuple[int, int, int, int] = (3, 4, 6, 3),
        width: int = 64,
        mean: Channels = IMAGENET_MEAN,
        std: Channels = IMAGENET_STD,
        seed: int = 0,
    ) -> None:
        super().__init__()
        first, second, third, fourth = blocks
        with private_init(seed):
            self.conv1 = conv(3, width, 7, 2)
            self.bn1 = nn.BatchNorm2d(width)
            self.layer1 = self._stage(width, width, first, 1)
            self.layer2 = self._stage(_EXPANSION * width, 2 * width, second, 2)
            self.layer3 = self._stage(_EXPANSION * 2 * width, 4 * width, third, 2)
            self.layer4 = self._stage(_EXPANSION * 4 * width, 8 * width, fourth, 2)
            self.fc = nn.Linear(_EXPANSION * 8 * width, classes)
        self.normalise_by(mean, std)

    @staticmethod
    def _stage(channels: int, planes: int, blocks: int, stride: int) -> nn.Sequential:
        following = (_Bottleneck(_EXPANSION * planes, planes, 1) for _ in range(blocks - 1))
        return nn.Sequential(_Bottleneck(channels, planes, stride), *following)

    def forward(self, images: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(self.normalised(images))))
        x = self.layer2(self.layer1(F.max_pool2d(x, 3, 2, padding=1)))
        return self.fc(pooled(self.layer4(self.layer3(x))))


def resnet_50(weights: str | Path | None = None, *, seed: int = 0) -> BottleneckNet:
    """ResNet-50 for ImageNet: 25,557,032 parameters, in evaluation mode.

    Arguments:
        weights: a checkpoint, see `load_weights`; without one the weights are random.
        seed: of the random weights.
    """
    return filled(BottleneckNet(seed=seed), weights)
