r"""A small network that names every pixel: dilated residual blocks, and a decoder with skips.

A stem at half the resolution, one residual block at a quarter, five at an eighth, of which the last four look
2, 4, 8 and 1 positions far. The decoder goes back up to a half: at each step it adds what the encoder saw there.
All norms are batch norms, all activations ReLU.

The parts are those of F. Yu, V. Koltun, T. Funkhouser: Dilated Residual Networks, CVPR 2017, and of T.-Y. Lin et al.:
Feature Pyramid Networks for Object Detection, CVPR 2017.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional as F

from acclimate.models.initial import private_init
from acclimate.models.layers import IMAGENET_MEAN, IMAGENET_STD, Channels, ImageModel, conv
from acclimate.models.weights import filled

__all__ = ["Segmenter", "camvid_segmenter"]

_DILATIONS = (2, 4, 8, 1)


def _conv(channels: int, out: int, *, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    made = nn.Conv2d(channels, out, 3, stride, padding=dilation, dilation=dilation, bias=False)
    nn.init.kaiming_normal_(made.weight, mode="fan_out", nonlinearity="relu")
    return made


def _enlarged(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=False)


class _Block(nn.Module):
    def __init__(self, channels: int, out: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.conv1 = _conv(channels, out, stride=stride, dilation=dilation)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = _conv(out, out, dilation=dilation)
        self.bn2 = nn.BatchNorm2d(out)
        self.shortcut = nn.Identity()
        if stride > 1 or channels != out:
            self.shortcut = nn.Sequential(conv(channels, out, 1, stride), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        branch = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(self.shortcut(x) + branch)


class _Merge(nn.Module):
    """Coarse features, enlarged, plus fine ones; then a convolution."""

    def __init__(self, coarse: int, fine: int, out: int) -> None:
        super().__init__()
        self.coarse = conv(coarse, out, 1)
        self.fine = conv(fine, out, 1)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv = _conv(out, out)
        self.bn2 = nn.BatchNorm2d(out)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        # A 1x1 convolution and an enlargement commute, and before it there are fewer positions.
        together = _enlarged(self.coarse(coarse), fine) + self.fine(fine)
        return F.relu(self.bn2(self.conv(F.relu(self.bn1(together)))))


class Segmenter(ImageModel):
    """A segmentation network: `[B, 3, H, W]` in [0, 1] -> logits `[B, classes, H, W]`, for any size from 16 pixels.

    Input is normalised inside, by buffers which are not in the state dict. The logits are made at half the
    resolution and enlarged bilinearly.

    Arguments:
        classes: number of outputs.
        widths: channels at a half, a quarter and an eighth of the resolution.
        mean: of each input channel.
        std: of each input channel.
        seed: of the initial weights; the global generator is not used.

    >>> import torch

    >>> Segmenter(classes=5, widths=(4, 8, 8))(torch.zeros(2, 3, 30, 41)).shape
    torch.Size([2, 5, 30, 41])
    """

    def __init__(
        self,
        classes: int,
        *,
        widths: tuple[int, int, int] = (24, 48, 96),
        mean: Channels = IMAGENET_MEAN,
        std: Channels = IMAGENET_STD,
        seed: int = 0,
    ) -> None:
        super().__init__()
        half, quarter, eighth = widths
        with private_init(seed):
            self.stem = _conv(3, half, stride=2)
            self.bn = nn.BatchNorm2d(half)
            self.layer1 = _Block(half, quarter, 2)
            self.layer2 = nn.Sequential(
                _Block(quarter, eighth, 2), *(_Block(eighth, eighth, 1, dilation) for dilation in _DILATIONS)
            )
            self.merge1 = _Merge(eighth, quarter, quarter)
            self.merge2 = _Merge(quarter, half, half)
            self.head = nn.Conv2d(half, classes, 1)
        self.normalise_by(mean, std)

    def forward(self, images: Tensor) -> Tensor:
        half = F.relu(self.bn(self.stem(self.normalised(images))))
        quarter = self.layer1(half)
        eighth = self.layer2(quarter)
        merged = self.merge2(self.merge1(eighth, quarter), half)
        return _enlarged(self.head(merged), images)


def camvid_segmenter(weights: str | Path | None = None, *, seed: int = 0) -> Segmenter:
    """The network for the 11 classes of CamVid, in evaluation mode.

    Arguments:
        weights: a safetensors file; without one the weights are random.
        seed: of the random weights.
    """
    return filled(Segmenter(11, seed=seed), weights)
