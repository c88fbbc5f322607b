"""The classic operations behind spatter against OpenCV."""

import numpy as np
import pytest
import torch

from acclimate.streams.corruptions import corrupt
from acclimate.streams.corruptions.draws import Draws
from acclimate.streams.corruptions.edges import canny, distance_to, equalise
from acclimate.streams.corruptions.spatter import spatter

cv2 = pytest.importorskip("cv2")
ndimage = pytest.importorskip("scipy.ndimage")


def planes(height: int, width: int) -> np.ndarray:
    noise = np.random.default_rng(height).normal(120, 160, (4, height, width))
    return np.uint8(np.clip(ndimage.gaussian_filter(noise, (0, 1.2, 1.2)), 0, 255))


@pytest.mark.parametrize("size", [(32, 32), (40, 57)])
def test_edges_are_those_of_opencv(size: tuple[int, int]):
    levels = planes(*size)
    found = canny(torch.from_numpy(levels).int(), 50, 150).numpy()
    for plane, edges in zip(levels, found, strict=True):
        expected = cv2.Canny(plane, 50, 150) > 0
        assert expected.any() and (expected != edges).mean() < 0.003


@pytest.mark.parametrize("size", [(32, 32), (70, 57)])
def test_distances_are_those_of_opencv(size: tuple[int, int]):
    marked = np.random.default_rng(1).random((4, *size)) < 0.01
    marked[3] = False
    found = distance_to(torch.from_numpy(marked), 20).numpy()
    for plane, distance in zip(marked[:3], found, strict=False):
        exact = cv2.distanceTransform(255 - np.uint8(plane) * 255, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        assert np.abs(np.minimum(exact, 20) - distance).max() < 1e-4
    assert (found[3] == 20).all()


def test_equalisation_is_that_of_opencv():
    levels = planes(32, 40)
    levels[3] = 7
    found = equalise(torch.from_numpy(levels).int()).numpy()
    for plane, equal in zip(levels, found, strict=True):
        difference = cv2.equalizeHist(plane).astype(int) - equal
        assert np.abs(difference).max() <= 1 and (difference != 0).mean() < 0.05


@pytest.mark.parametrize(
    ("constants", "side"),
    [((0.62, 0.1, 0.7, 0.7, 0.5), 32), ((0.65, 0.3, 1, 0.69, 0.5), 40), ((0.65, 0.3, 4, 0.69, 0.6), 96)],
)
def test_water_is_the_published_relief(constants: tuple[float, ...], side: int):
    mean, deviation, size, threshold, strength = constants
    draws = Draws.keyed(torch.arange(6), 0, "water")
    black = torch.zeros(6, 3, side, side)
    found = spatter(black, draws, *constants, False)
    errors: list[float] = []
    changes: list[float] = []
    for number, noise in enumerate(draws.normal(0, side, side).numpy()):
        liquid = ndimage.gaussian_filter(noise.astype(float) * deviation + mean, size, mode="nearest", truncate=4)
        liquid[liquid < threshold] = 0
        liquid = np.uint8(liquid * 255)
        distance = cv2.distanceTransform(255 - cv2.Canny(liquid, 50, 150), cv2.DIST_L2, 5)
        distance = np.uint8(cv2.blur(np.minimum(distance, 20), (3, 3)))
        kernel = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
        relief = cv2.blur(cv2.filter2D(cv2.equalizeHist(distance), cv2.CV_8U, kernel), (3, 3)).astype(float)
        layer = liquid * relief
        layer *= strength / max(layer.max(), 1e-9)
        expected = layer * 238 / 255
        errors.append(np.abs(found[number, 1].numpy() - expected).mean())
        changes.append(expected.mean())
    assert np.mean(changes) > 1e-4
    assert np.mean(errors) < 0.1 * np.mean(changes)


def test_mud_darkens_towards_brown_and_leaves_the_rest():
    white = torch.ones(8, 3, 32, 32)
    found = corrupt(white, "spatter", 5, quantise=False)
    cover = (1 - found[:, 0]) / (1 - 63 / 255)
    assert ((cover == 0) | (cover > 0.799)).all()
    assert 0.005 < (cover > 0).float().mean() < 0.5
    assert torch.allclose(found[:, 1], 1 - cover * (1 - 42 / 255), atol=1e-5)
    assert torch.allclose(found[:, 2], 1 - cover * (1 - 20 / 255), atol=1e-5)
