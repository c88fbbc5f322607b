"""The model that servers are measured with: a ResNet-20 for CIFAR-10, of weights that nobody has trained."""

from __future__ import annotations

from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from acclimate.models import cifar10_resnet20

SPEC = "acclimate.models.residual:cifar10_resnet20"


def write_weights(path: Path) -> Path:
    """The same in every process."""
    torch.manual_seed(0)
    safetensors.torch.save_file(cifar10_resnet20().state_dict(), path)
    return path


def batch(rows: int, seed: int = 0) -> Tensor:
    return torch.rand(rows, 3, 32, 32, generator=torch.Generator().manual_seed(seed))
