"""The digits against scikit-learn's own arrays."""

import numpy as np
import pytest
import torch

from acclimate.streams import load_dataset


@pytest.fixture(scope="module")
def original() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    order = np.random.default_rng(0).permutation(1797)
    return bunch.images[order], bunch.target[order]


def test_the_split_is_the_fixed_permutation(original):
    train, test = load_dataset("digits", "train"), load_dataset("digits", "test")
    assert (len(train), len(test)) == (1000, 797)
    assert train.labels.tolist() + test.labels.tolist() == original[1].tolist()
    assert train.classes == tuple("0123456789")
    assert (train.split, test.split) == ("train", "test")


def test_images_are_interpolated_linearly(original):
    dataset = load_dataset("digits", "test")
    assert dataset.images.shape == (797, 3, 32, 32)
    assert dataset.images.dtype == torch.uint8
    at = np.clip((np.arange(32) + 0.5) / 4 - 0.5, 0, 7)
    rows = np.stack([np.interp(at, np.arange(8), column) for column in original[0][1000].T], 1)
    expected = np.stack([np.interp(at, np.arange(8), row) for row in rows]) * 255 / 16
    for channel in dataset.images[0].numpy():
        assert np.abs(channel - expected).max() <= 0.5 + 1e-9


def test_they_take_no_folder():
    with pytest.raises(ValueError, match="takes no folder"):
        load_dataset("digits:/tmp")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch):
    import sys

    from acclimate.streams.shared import require

    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r'needs the package \'sklearn\': pip install "acclimate\[cli\]"'):
        require("sklearn.datasets", "The data set 'digits'")
