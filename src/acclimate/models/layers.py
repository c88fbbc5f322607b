"""What the networks share: convolutions, the normalising of images, the pooling before the head."""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["HALF", "IMAGENET_MEAN", "IMAGENET_STD", "Channels", "ImageModel", "conv", "pooled"]

Channels: TypeAlias = tuple[float, float, float]

IMAGENET_MEAN: Channels = (0.485, 0.456, 0.406)
IMAGENET_STD: Channels = (0.229, 0.224, 0.225)
HALF: Channels = (0.5, 0.5, 0.5)


class ImageModel(nn.Module):
    """A model of images in [0, 1] that normalises them itself, by buffers which are not in the state dict."""

    mean: Tensor
    std: Tensor

    def normalise_by(self, mean: Channels, std: Channels) -> None:
        """Keep the mean and the standard deviation of each input channel."""
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def normalised(self, images: Tensor) -> Tensor:
        """The images as the first layer takes them."""
        return (images - self.mean) / self.std


def conv(channels: int, out: int, kernel: int, stride: int = 1, *, groups: int = 1, bias: bool = False) -> nn.Conv2d:
    """A convolution that keeps the resolution at stride 1, with weights drawn for ReLU."""
    made = nn.Conv2d(channels, out, kernel, stride, padding=kernel // 2, groups=groups, bias=bias)
    nn.init.kaiming_normal_(made.weight, mode="fan_out", nonlinearity="relu")
    return made


def pooled(features: Tensor) -> Tensor:
    """The mean over all positions: `[B, C, H, W]` -> `[B, C]`.

    >>> pooled(torch.ones(2, 3, 4, 4)).shape
    torch.Size([2, 3])
    """
    # Its backward keeps channels_last; that of mean does not.
    return F.avg_pool2d(features, features.shape[-2:]).flatten(1)
