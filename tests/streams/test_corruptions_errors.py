"""What `corrupt` refuses, and what it says."""

import numpy as np
import pytest
import torch

from acclimate.streams.corruptions import corrupt

GOOD = torch.full((2, 3, 32, 32), 0.5)


def with_value(value: float) -> torch.Tensor:
    images = GOOD.clone()
    images[1, 2, 3, 4] = value
    return images


@pytest.mark.parametrize(
    ("name", "said"),
    [("gausian_noise", "gaussian_noise"), ("jpeg", "jpeg_compression"), ("zzz", "Choose one of gaussian_noise")],
)
def test_unknown_names_list_the_close_ones(name: str, said: str):
    with pytest.raises(ValueError, match=said):
        corrupt(GOOD, name)


@pytest.mark.parametrize("severity", [0, 6, -1, 2.5, True, "3"])
def test_severity_outside_one_to_five(severity: int):
    with pytest.raises(ValueError, match="1, 2, 3, 4 or 5 expected"):
        corrupt(GOOD, "fog", severity)


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (GOOD[0], r"shape \(3, 32, 32\) found, \[N, 3, H, W\] expected"),
        (GOOD[:, :1], r"\(2, 1, 32, 32\) found"),
        (GOOD.movedim(1, -1), r"permute\(0, 3, 1, 2\)"),
        (GOOD[:, :, :31], "31x32 pixels found, at least 32x32 expected"),
        (GOOD[..., :16], "32x16 pixels found"),
        (GOOD.long(), "torch.int64 found"),
        (with_value(float("nan")), "NaN or infinite values found"),
        (with_value(float("inf")), "NaN or infinite values found"),
        (with_value(-0.25), r"from -0.25 to 0.5 found, values in \[0, 1\] expected"),
        (GOOD * 255, "from 127.5 to 127.5 found"),
    ],
)
def test_images_that_are_none(images: torch.Tensor, said: str):
    with pytest.raises(ValueError, match=said):
        corrupt(images, "fog")


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ([1], r"shape \(1,\) found, one number for each of 2 images expected"),
        (torch.arange(3), r"shape \(3,\) found"),
        (torch.zeros(2, 1, dtype=torch.int64), r"shape \(2, 1\) found"),
        (torch.tensor([0.5, 1.0]), "torch.float32 found, whole numbers expected"),
        (np.array([0.5, 1.0]), "torch.float64 found, whole numbers expected"),
        ([True, False], "torch.bool found"),
    ],
)
def test_index_that_does_not_fit(index: torch.Tensor, said: str):
    with pytest.raises(ValueError, match=said):
        corrupt(GOOD, "fog", index=index)
