"""Structural similarity, distances of means, and the pictures that are drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.metrics import structural_similarity as published

from acclimate.fields.cells.embedding.domains import mean_discrepancy
from acclimate.fields.cells.embedding.similarity import structural_similarity
from acclimate.fields.cells.embedding.targets import largest_part, targets


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def similarity_map(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Of planes `[H, W]`, in double precision, noughts outside."""
    taps = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    taps /= taps.sum()

    def mean(x: np.ndarray) -> np.ndarray:
        down = ndimage.correlate1d(x, taps, axis=0, mode="constant")
        return ndimage.correlate1d(down, taps, axis=1, mode="constant")

    m, n = mean(first), mean(second)
    v, w, c = mean(first**2) - m**2, mean(second**2) - n**2, mean(first * second) - m * n
    return (2 * m * n + 1e-4) * (2 * c + 9e-4) / ((m**2 + n**2 + 1e-4) * (v + w + 9e-4))


def pictures(count: int = 2, side: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    first = torch.rand(count, 3, side, side + 8, generator=seeded())
    return first, (first + 0.3 * torch.randn(first.shape, generator=seeded(1))).clamp(0, 1)


def test_similarity_is_the_published_one() -> None:
    first, second = pictures()
    planes = list(zip(*(x.flatten(0, 1).double().numpy() for x in (first, second)), strict=True))
    maps = [similarity_map(*pair) for pair in planes]
    for found, pair in zip(maps, planes, strict=True):
        _, whole = published(
            *pair, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
        )
        assert np.abs(found - whole)[5:-5, 5:-5].max() < 1e-4
    assert abs(float(structural_similarity(first, second)) - np.mean(maps)) < 1e-5
    # One pixel far from all edges, by itself: what it adds to the mean.
    alone = torch.zeros(1, 1, 31, 31)
    alone[0, 0, 15, 15] = 1
    empty = torch.zeros_like(alone)
    expected = similarity_map(alone[0, 0].double().numpy(), empty[0, 0].double().numpy()).mean()
    assert abs(float(structural_similarity(alone, empty)) - expected) < 1e-6


def test_similarity_is_one_for_the_same_symmetric_and_bounded() -> None:
    first, second = pictures()
    assert abs(float(structural_similarity(first, first)) - 1) < 1e-6
    assert abs(float(structural_similarity(first, second) - structural_similarity(second, first))) < 1e-6
    for other in (second, 1 - first, torch.zeros_like(first)):
        assert 0 <= 1 - float(structural_similarity(first, other)) <= 2
    drawn = second.clone().requires_grad_()
    structural_similarity(drawn, first).backward()
    assert drawn.grad is not None and drawn.grad.isfinite().all() and drawn.grad.abs().max() > 0
    with pytest.raises(ValueError, match="expected two of the same"):
        structural_similarity(first, first[:1])


def test_distances_of_means_by_hand() -> None:
    codes = torch.randn(12, 5, generator=seeded())
    domains = torch.tensor([0, 1, 2, 0, 1, 2, 1, 1, 2, 0, 3, 3])
    x, d = codes.double().numpy(), domains.numpy()
    means = [x[d == k].mean(0) for k in range(4)]
    apart = {(i, j): ((means[i] - means[j]) ** 2).sum() / 5 for i in range(4) for j in range(i + 1, 4)}
    anchored = sum(value for (i, _), value in apart.items() if i == 0)
    assert np.isclose(float(mean_discrepancy(codes, domains)), anchored, rtol=1e-5)
    assert np.isclose(float(mean_discrepancy(codes, domains, "all")), sum(apart.values()), rtol=1e-5)
    with pytest.raises(ValueError, match="pairs must be one of"):
        mean_discrepancy(codes, domains, "some")


def test_equal_means_and_laboratories_that_are_missing_cost_nothing() -> None:
    codes = torch.randn(6, 4, generator=seeded())
    same = torch.cat([codes, codes.flip(0)])
    assert float(mean_discrepancy(same, torch.arange(12) // 6)) < 1e-12
    for domains in (torch.zeros(6), torch.tensor([1, 2, 1, 2, 1, 2]), torch.full((6,), 3)):
        moved = codes.clone().requires_grad_()
        found = mean_discrepancy(moved, domains.long())
        found.backward()
        assert found.item() == 0 and moved.grad is not None and (moved.grad == 0).all()


def test_all_laboratories_are_moved() -> None:
    codes = torch.randn(6, 4, generator=seeded()).requires_grad_()
    mean_discrepancy(codes, torch.tensor([0, 0, 0, 1, 1, 1])).backward()
    assert codes.grad is not None
    means = codes.detach().view(2, 3, 4).mean(1)
    expected = 2 * (means[0] - means[1]) / 4 / 3
    assert torch.allclose(codes.grad, torch.stack([expected] * 3 + [-expected] * 3), atol=1e-6)


def test_the_largest_part_hangs_together_over_edges() -> None:
    mask = np.zeros((8, 8), dtype=bool)
    mask[1:3, 1:3] = mask[3:6, 3:7] = mask[7, 0] = True  # the first two touch at a corner only
    found = largest_part(mask)
    assert found.sum() == 12 and found[3:6, 3:7].all()
    assert largest_part(np.zeros((3, 4), dtype=bool)).all()


def test_the_cell_fills_the_frame_on_grey() -> None:
    images = torch.randint(256, (3, 3, 64, 64), generator=seeded(), dtype=torch.uint8)
    cells = torch.zeros(3, 64, 64, dtype=torch.bool)
    cells[0, 10:54, 5:49] = True  # with the frame 64 pixels a side, so nothing is resized
    cells[0, 20:30, 20:30] = False
    cells[0, 60:62, 60:62] = True
    cells[1, 0:44, 20:64] = True
    drawn, empty = targets(images, cells, 64)
    assert empty == [2] and drawn.shape == (3, 3, 64, 64) and drawn.dtype == torch.float32
    expected = torch.full((3, 64, 64), 128 / 255)
    expected[:, 10:54, 10:54] = images[0, :, 10:54, 5:49] / 255
    expected[:, 20:30, 25:35] = 128 / 255
    assert torch.allclose(drawn[0], expected, atol=1e-6)
    assert torch.allclose(drawn[1, :, 10:54, 10:54], images[1, :, :44, 20:] / 255, atol=1e-6)
    assert drawn[2].std() > 0.1  # the whole picture counts


def test_pictures_are_stretched_without_overshoot() -> None:
    images = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    images[:, :, :, 32:] = 255
    cells = torch.zeros(1, 64, 64, dtype=torch.bool)
    cells[0, 20:30, 12:52] = True
    drawn, _ = targets(images, cells)
    assert drawn.shape == (1, 3, 128, 128) and drawn.min() == 0 and drawn.max() == 1
    # A frame of 10 pixels in 30 x 60: a third of the height, a sixth of the width.
    grey = (drawn - 128 / 255).abs() < 1e-3
    assert grey[0, :, :36].all() and grey[0, :, 92:].all() and grey[0, :, :, :17].all() and grey[0, :, :, 111:].all()
    assert not grey[0, :, 44:84, 23:105].any()
    with pytest.raises(ValueError, match=r"expected \[N, 3, H, W\] and \[N, H, W\]"):
        targets(images, cells[0])
