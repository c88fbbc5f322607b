"""Signal to noise and structural similarity against sums over windows written out, and what must hold of any."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from acclimate.fields.diffusion.quality import psnr, ssim


def images(seed: int, shape: tuple[int, ...] = (3, 2, 14, 13)) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def by_hand(x: np.ndarray, y: np.ndarray) -> float:
    """One channel; each window by itself."""
    place = np.arange(11) - 5.0
    line = np.exp(-(place**2) / (2 * 1.5**2))
    weights = np.outer(line, line)
    weights /= weights.sum()
    values: list[float] = []
    for top in range(x.shape[0] - 10):
        for left in range(x.shape[1] - 10):
            a, b = x[top : top + 11, left : left + 11], y[top : top + 11, left : left + 11]
            ma, mb = (weights * a).sum(), (weights * b).sum()
            va, vb = (weights * (a - ma) ** 2).sum(), (weights * (b - mb) ** 2).sum()
            both = (weights * (a - ma) * (b - mb)).sum()
            c, d = 0.02**2, 0.06**2
            values.append((2 * ma * mb + c) * (2 * both + d) / ((ma**2 + mb**2 + c) * (va + vb + d)))
    return float(np.mean(values))


def test_structure_is_that_of_the_windows_one_by_one() -> None:
    x = images(0)
    y = (x + 0.3 * images(1)).clamp(-1, 1)
    expected = [
        np.mean([by_hand(a.double().numpy(), b.double().numpy()) for a, b in zip(one, other, strict=True)])
        for one, other in zip(x, y, strict=True)
    ]
    assert ssim(x, y).tolist() == pytest.approx(expected, abs=1e-12)


def test_structure_is_that_of_another_library() -> None:
    metrics = pytest.importorskip("skimage.metrics")
    x = images(2, (1, 1, 32, 32))
    y = (x + 0.5 * images(3, (1, 1, 32, 32))).clamp(-1, 1)
    settings = {"data_range": 2.0, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    expected = metrics.structural_similarity(x[0, 0].double().numpy(), y[0, 0].double().numpy(), **settings)
    assert float(ssim(x, y)) == pytest.approx(expected, abs=1e-6)


def test_noise_of_a_known_size_has_its_decibels() -> None:
    x = torch.zeros(2, 1, 4, 4)
    y = torch.stack([torch.full((1, 4, 4), 0.02), torch.full((1, 4, 4), 0.2)])
    assert psnr(x, y, each=True).tolist() == pytest.approx([40.0, 20.0], abs=1e-5)
    together = 10 * math.log10(4 / ((0.02**2 + 0.2**2) / 2))
    assert float(psnr(x, y)) == pytest.approx(together, abs=1e-5)
    assert float(psnr(x, x)) == math.inf


def test_pixels_beyond_the_range_count_as_its_ends() -> None:
    x = torch.full((1, 1, 12, 12), 1.0)
    assert float(psnr(x, 3 * x)) == math.inf and float(ssim(x, 3 * x)) == pytest.approx(1.0)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.floats(0.01, 1.0))
def test_both_are_symmetric_and_best_for_the_same_image(seed: int, share: float) -> None:
    x = images(seed, (1, 1, 12, 12))
    y = (x + share * images(seed + 1, (1, 1, 12, 12))).clamp(-1, 1)
    assert float(ssim(x, y)) == pytest.approx(float(ssim(y, x)), abs=1e-12)
    assert float(psnr(x, y)) == pytest.approx(float(psnr(y, x)), abs=1e-9)
    assert float(ssim(x, y)) < float(ssim(x, x)) == pytest.approx(1.0)


def test_shapes_that_differ_and_small_images_are_refused() -> None:
    with pytest.raises(ValueError, match="one shape"):
        psnr(images(0), images(0)[:1])
    with pytest.raises(ValueError, match="11 or more"):
        ssim(torch.zeros(1, 1, 8, 16), torch.zeros(1, 1, 8, 16))
