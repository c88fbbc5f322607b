"""The distance of Gaussian fits against matrix square roots of another library, and for one dimension by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from acclimate.fields.diffusion.quality import frechet_distance


def rows(seed: int, count: int, width: int) -> Tensor:
    generator = Generator().manual_seed(seed)
    return torch.randn(count, width, generator=generator) @ torch.randn(width, width, generator=generator) + seed


def test_it_is_the_formula_with_a_general_matrix_square_root() -> None:
    linalg = pytest.importorskip("scipy.linalg")
    x, y = rows(1, 60, 5).double().numpy(), rows(2, 80, 5).double().numpy()
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = np.real(linalg.sqrtm(a @ b))
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(a + b - 2 * root)
    assert float(frechet_distance(torch.tensor(x), torch.tensor(y))) == pytest.approx(expected, rel=1e-8)


def test_of_one_feature_it_is_the_squares_of_both_differences() -> None:
    x, y = rows(3, 50, 1), rows(4, 50, 1)
    expected = (x.mean() - y.mean()) ** 2 + (x.std() - y.std()) ** 2
    assert float(frechet_distance(x, y)) == pytest.approx(float(expected), rel=1e-5)


def test_it_is_nought_for_the_same_rows_even_where_they_are_few() -> None:
    x = rows(5, 4, 16)  # covariances of rank 3
    assert float(frechet_distance(x, x.flip(0))) == pytest.approx(0.0, abs=1e-5)
    assert float(frechet_distance(x, x + 1)) == pytest.approx(16.0, rel=1e-5)


def test_shapes_that_have_no_covariance_are_refused() -> None:
    with pytest.raises(ValueError, match="2 or more"):
        frechet_distance(rows(0, 1, 3), rows(0, 5, 3))
    with pytest.raises(ValueError, match=r"\[M, D\]"):
        frechet_distance(rows(0, 5, 3), rows(0, 5, 2))
