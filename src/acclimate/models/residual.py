r"""The residual networks for 32x32 images of He et al.

A 3x3 convolution, three stages of basic blocks at full, half and quarter resolution, the mean over all
positions, a linear head. A block computes $x \mapsto \mathrm{relu}(s(x) + F(x))$, where $F$ is two 3x3
convolutions with their norms and $s$ has no parameters: where the resolution halves it takes every second
pixel and pads the channels with zeros, half of them on each side.

K. He, X. Zhang, S. Ren, J. Sun: Deep Residual Learning for Image Recognition, CVPR 2016, section 4.2.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from acclimate.models.initial import private_init
from acclimate.models.layers import HALF, IMAGENET_MEAN, IMAGENET_STD, Channels, ImageModel, conv, pooled
from acclimate.models.weights import filled

__all__ = ["Norm", "ResidualNet", "cifar10_resnet20", "digits_resnet"]

Norm = Literal["batch", "group", "none"]

_GROUPS = 8


def _norm(kind: Norm, channels: int) -> nn.Module:
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    if kind == "group":
        return nn.GroupNorm(_GROUPS, channels)
    return nn.Identity()


def _conv(kind: Norm, channels: int, out: int, stride: int = 1) -> nn.Conv2d:
    return conv(channels, out, 3, stride, bias=kind == "none")


class _Block(nn.Module):
    def __init__(self, channels: int, out: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.stride, self.added = stride, out - channels
        self.conv1 = _conv(norm, channels, out, stride)
        self.bn1 = _norm(norm, out)
        self.conv2 = _conv(norm, out, out)
        self.bn2 = _norm(norm, out)
        if norm == "none":
            # Each block starts as its shortcut: without norms, sums of random branches grow with depth.
            nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        branch = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.stride > 1 or self.added:
            half = self.added // 2
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, self.added - half))
        return F.relu(x + branch)


class ResidualNet(ImageModel):
    """A CIFAR residual network: `[B, 3, H, W]` in [0, 1] -> logits `[B, classes]`.

    Input is normalised inside, by buffers which are not in the state dict.

    Arguments:
        classes: number of outputs.
        widths: channels of the three stages. For `group`, multiples of 8.
        blocks: basic blocks in each stage; the depth is 6 blocks + 2.
        norm: `batch`; `group` (eight groups); or `none`, with biases in the convolutions instead.
        mean: of each input channel.
        std: of each input channel.
        seed: of the initial weights; the global generator is not used.

    Raises:
        ValueError: an unknown norm, or widths that cannot be grouped or shrink.

    >>> import torch

    >>> ResidualNet(classes=7, blocks=1)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 7])
    """

    def __init__(
        self,
        classes: int = 10,
        *,
        widths: tuple[int, int, int] = (16, 32, 64),
        blocks: int = 3,
        norm: Norm = "batch",
        mean: Channels = IMAGENET_MEAN,
        std: Channels = IMAGENET_STD,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if norm not in ("batch", "group", "none"):
            raise ValueError(f"norm is {norm!r}; expected 'batch', 'group' or 'none'.")
        if norm == "group" and any(width % _GROUPS for width in widths):
            raise ValueError(f"widths are {widths}; expected multiples of {_GROUPS} for norm='group'.")
        if not widths[0] <= widths[1] <= widths[2]:
            raise ValueError(f"widths are {widths}; expected three that do not shrink: shortcuts pad channels.")
        first, second, third = widths
        with private_init(seed):
            self.conv1 = _conv(norm, 3, first)
            self.bn1 = _norm(norm, first)
            self.layer1 = self._stage(first, first, blocks, 1, norm)
            self.layer2 = self._stage(first, second, blocks, 2, norm)
            self.layer3 = self._stage(second, third, blocks, 2, norm)
            self.linear = nn.Linear(third, classes)
        self.normalise_by(mean, std)

    @staticmethod
    def _stage(channels: int, out: int, blocks: int, stride: int, norm: Norm) -> nn.Sequential:
        first = _Block(channels, out, stride, norm)
        return nn.Sequential(first, *(_Block(out, out, 1, norm) for _ in range(blocks - 1)))

    def forward(self, images: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(self.normalised(images))))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(pooled(x))


def cifar10_resnet20(weights: str | Path | None = None, *, norm: Norm = "batch", seed: int = 0) -> ResidualNet:
    """The 20-layer network for CIFAR-10: 269,722 parameters, in evaluation mode.

    Arguments:
        weights: a safetensors file; without one the weights are random.
        norm: see `ResidualNet`.
        seed: of the random weights.
    """
    return filled(ResidualNet(10, norm=norm, seed=seed), weights)


def digits_resnet(weights: str | Path | None = None, *, norm: Norm = "batch", seed: int = 0) -> ResidualNet:
    """A small network for the digits: 8, 16 and 32 channels, one block a stage; in evaluation mode.

    Arguments:
        weights: a safetensors file; without one the weights are random.
        norm: see `ResidualNet`.
        seed: of the random weights.
    """
    model = ResidualNet(10, widths=(8, 16, 32), blocks=1, norm=norm, mean=HALF, std=HALF, seed=seed)
    return filled(model, weights)
