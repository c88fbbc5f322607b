r"""Wide residual networks for 32x32 images.

A 3x3 convolution, three stages of pre-activated blocks of $16k$, $32k$ and $64k$ channels at full, half and
quarter resolution, a norm, the mean over all positions, a linear head. With $a(x) = \mathrm{relu}(\mathrm{BN}(x))$
a block is $x \mapsto x + W_2 * a(W_1 * a(x))$; where the channels grow, the shortcut is $V * a(x)$ with a 1x1
convolution $V$. A depth of $6n + 4$ has $n$ blocks in each stage.

S. Zagoruyko, N. Komodakis: Wide Residual Networks, BMVC 2016. Tensors are named as in the checkpoints that
RobustBench publishes; its "Standard" model of CIFAR-10 takes images as they are.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional as F

from acclimate.models.initial import private_init
from acclimate.models.layers import Channels, ImageModel, conv, pooled
from acclimate.models.weights import filled

__all__ = ["WideResidualNet", "wrn_16_4", "wrn_28_10"]


class _Block(nn.Module):
    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = conv(channels, out, 3, stride)
        self.bn2 = nn.BatchNorm2d(out)
        self.conv2 = conv(out, out, 3)
        self.convShortcut = conv(channels, out, 1, stride) if stride > 1 or channels != out else None

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.bn1(x))
        branch = self.conv2(F.relu(self.bn2(self.conv1(active))))
        return branch + (x if self.convShortcut is None else self.convShortcut(active))


class _Stage(nn.Module):
    def __init__(self, channels: int, out: int, blocks: int, stride: int) -> None:
        super().__init__()
        self.layer = nn.Sequential(_Block(channels, out, stride), *(_Block(out, out, 1) for _ in range(blocks - 1)))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class WideResidualNet(ImageModel):
    """A wide residual network: `[B, 3, H, W]` in [0, 1] -> logits `[B, classes]`.

    Arguments:
        classes: number of outputs.
        depth: 6 n + 4 for n blocks in each stage.
        width: the factor k.
        mean: of each input channel; images are not normalised by default.
        std: of each input channel.
        seed: of the initial weights; the global generator is not used.

    Raises:
        ValueError: a depth that is not 6 n + 4.

    >>> import torch

    >>> WideResidualNet(7, depth=10, width=1)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 7])
    """

    def __init__(
        self,
        classes: int = 10,
        *,
        depth: int = 28,
        width: int = 10,
        mean: Channels = (0.0, 0.0, 0.0),
        std: Channels = (1.0, 1.0, 1.0),
        seed: int = 0,
    ) -> None:
        super().__init__()
        blocks, rest = divmod(depth - 4, 6)
        if rest or blocks < 1:
            raise ValueError(f"depth is {depth}; expected 6 n + 4 for n blocks in each stage: 10, 16, 22, 28, ...")
        first, second, third = 16 * width, 32 * width, 64 * width
        with private_init(seed):
            self.conv1 = conv(3, 16, 3)
            self.block1 = _Stage(16, first, blocks, 1)
            self.block2 = _Stage(first, second, blocks, 2)
            self.block3 = _Stage(second, third, blocks, 2)
            self.bn1 = nn.BatchNorm2d(third)
            self.fc = nn.Linear(third, classes)
        self.normalise_by(mean, std)
        self._raw = not any(mean) and set(std) == {1}

    def forward(self, images: Tensor) -> Tensor:
        x = self.conv1(images if self._raw else self.normalised(images))
        x = self.block3(self.block2(self.block1(x)))
        return self.fc(pooled(F.relu(self.bn1(x))))


def wrn_28_10(weights: str | Path | None = None, *, seed: int = 0) -> WideResidualNet:
    """WRN-28-10 for CIFAR-10: 36,479,194 parameters, in evaluation mode; images are not normalised.

    Arguments:
        weights: a checkpoint, see `load_weights`; without one the weights are random.
        seed: of the random weights.
    """
    return filled(WideResidualNet(seed=seed), weights)


def wrn_16_4(weights: str | Path | None = None, *, seed: int = 0) -> WideResidualNet:
    """WRN-16-4 for CIFAR-10: 2,748,890 parameters, otherwise like `wrn_28_10`."""
    return filled(WideResidualNet(depth=16, width=4, seed=seed), weights)
