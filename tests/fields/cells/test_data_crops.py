"""The crop recipe, against cases that are worked out by hand."""

from __future__ import annotations

from math import ceil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from acclimate.fields.cells.data.crops import Sampling, box_of, crop, crop_cell, whole, window
from acclimate.fields.cells.data.frames import grey_frame


def numbered(height: int, width: int) -> np.ndarray:
    """Each pixel has its row in red, its column in green, and 7 in blue."""
    image = np.full((height, width, 3), 7, dtype=np.uint8)
    image[..., 0], image[..., 1] = np.arange(height)[:, None], np.arange(width)[None, :]
    return image


def test_a_window_of_the_result_s_size_is_a_slice() -> None:
    """An 8x6 box has a window of 10 pixels, one more on the left and two more on top."""
    image = numbered(40, 30)
    assert window((10, 20, 18, 26)) == (9, 18, 10)
    assert np.array_equal(crop(image, (10, 20, 18, 26), 10), image[18:28, 9:19])


def test_outside_is_grey_in_images_and_background_in_masks() -> None:
    """The box touches the upper left corner, so a row of one pixel and a column of two lie outside."""
    image, mask = numbered(20, 20), np.zeros((20, 20), dtype=np.int8)
    mask[0:8, 0:6] = 1
    mask[2:4, 2:4] = 2
    assert box_of(mask) == (0, 0, 6, 8)
    cut, cut_mask = crop_cell(image, mask, 10)
    expected, expected_mask = np.full((10, 10, 3), 128), np.zeros((10, 10))
    expected[1:, 2:] = image[0:9, 0:8]
    expected_mask[1:, 2:] = mask[0:9, 0:8]
    assert np.array_equal(cut, expected)
    assert np.array_equal(cut_mask, expected_mask)
    assert cut_mask.dtype == np.int8


def test_twice_the_size_repeats_a_mask_s_pixels() -> None:
    mask = np.zeros((20, 20), dtype=np.uint8)
    mask[4:12, 4:12] = 1
    mask[6:9, 7:9] = 2
    assert np.array_equal(crop(mask, box_of(mask), 20), mask[3:13, 3:13].repeat(2, 0).repeat(2, 1))


def test_overshoot_stays_in_range() -> None:
    """Cubic interpolation goes beyond black and white at an edge; it must not come back on the other side."""
    image = np.zeros((16, 16, 3), dtype=np.uint8)
    image[:, 8:] = 255
    cut = crop(image, (4, 4, 12, 12), 40)
    assert (np.diff(cut[20, :, 0].astype(int)) >= -20).all()
    assert cut[20, 0, 0] < 20
    assert cut[20, -1, 0] > 235


@given(st.integers(0, 30), st.integers(0, 30), st.integers(4, 25), st.integers(4, 25), st.sampled_from([16, 32, 50]))
@settings(max_examples=25, deadline=None)
def test_image_and_mask_stay_together(x: int, y: int, wide: int, high: int, size: int) -> None:
    """A bright box in the dark is where its mask is; its longer side is 1 / 1.25 of the result, and it is centred."""
    mask = np.zeros((60, 60), dtype=np.uint8)
    mask[y : y + high, x : x + wide] = 1
    image = np.repeat(mask[..., None] * np.uint8(250), 3, axis=2)
    cut, cut_mask = crop_cell(image, mask, size)
    assert cut.shape == (size, size, 3)
    blur = 1 + ceil(size / (1.25 * max(wide, high)))  # a pixel of the original
    assert (cut[ndimage.binary_erosion(cut_mask, iterations=blur)] > 180).all()
    assert (cut[~ndimage.binary_dilation(cut_mask, iterations=blur)] <= 150).all()
    across, down = cut_mask.any(0).sum(), cut_mask.any(1).sum()
    assert abs(max(across, down) - size / 1.25) <= 1.5
    left, top, right, bottom = box_of(cut_mask)
    assert abs((left + right) / 2 - size / 2) <= 1
    assert abs((top + bottom) / 2 - size / 2) <= 1


def test_whole_gives_up_the_aspect_ratio() -> None:
    image = np.zeros((16, 64, 3), dtype=np.uint8)
    image[:, 32:] = 200
    for how in ("bilinear", "bicubic"):
        kind: Sampling = how
        small = whole(image, 16, how=kind)
        assert small.shape == (16, 16, 3)
        assert (small[:, :6] == 0).all()
        assert (small[:, 10:] == 200).all()
    mask = np.eye(8, dtype=np.uint8)
    assert np.array_equal(whole(mask, 16), mask.repeat(2, 0).repeat(2, 1))


def test_impossible_crops_are_refused() -> None:
    image = numbered(20, 20)
    with pytest.raises(ValueError, match="mask is empty"):
        box_of(np.zeros((4, 4)))
    with pytest.raises(ValueError, match="expected left, top, right, bottom"):
        crop(image, (5, 5, 5, 9), 16)
    with pytest.raises(ValueError, match="size must be a whole number of at least 8"):
        crop(image, (5, 5, 9, 9), 4)
    with pytest.raises(ValueError, match=r"float64 \[20, 20, 3\]"):
        crop(image / 255, (5, 5, 9, 9), 16)


def test_black_frames_become_grey() -> None:
    """Three black rows on top and one black column on the right, each with a line of transition."""
    image = np.full((32, 32, 3), 200, dtype=np.uint8)
    image[:3], image[3], image[:, 31], image[:, 30] = 2, 90, 5, 120
    expected = np.full((32, 32, 3), 200)
    expected[:4], expected[:, 30:] = 128, 128
    assert np.array_equal(grey_frame(image), expected)
    assert image[0, 0, 0] == 2


def test_dark_cells_are_no_frame() -> None:
    image = np.full((32, 32, 3), 200, dtype=np.uint8)
    image[10:30, 0:20] = 0
    black = np.zeros((32, 32, 3), dtype=np.uint8)
    assert np.array_equal(grey_frame(image), image)
    assert np.array_equal(grey_frame(black), black)
