"""The handwritten digits which come with scikit-learn: a data set that needs no download."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from acclimate.streams.dataset import Dataset
from acclimate.streams.shared import require

__all__ = ["digits"]

_TRAIN = 1000


@lru_cache(maxsize=1)
def _enlarged() -> tuple[Tensor, Tensor]:
    bunch = require("sklearn.datasets", "The data set 'digits'").load_digits()
    grey = torch.from_numpy(np.asarray(bunch.images, dtype=np.float32))[:, None]
    # Bilinear by 4 has weights in 64ths, so float32 is exact here and the pixels are the same everywhere.
    large = F.interpolate(grey, size=(32, 32), mode="bilinear", align_corners=False)
    pixels = (large * (255 / 16)).round().to(torch.uint8).repeat(1, 3, 1, 1)
    return pixels, torch.from_numpy(np.asarray(bunch.target, dtype=np.int64))


def digits(split: str) -> Dataset:
    """1,797 grey digits of 8x8 pixels, enlarged to 32x32 RGB: 1,000 to train, 797 to test.

    The split is the fixed permutation `numpy.random.default_rng(0).permutation(1797)`.

    Raises:
        ImportError: scikit-learn, which holds the images, is not installed.
    """
    images, labels = _enlarged()
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(images)))
    index = order[:_TRAIN] if split == "train" else order[_TRAIN:]
    return Dataset("digits", images[index], labels[index], tuple("0123456789"), split)
