"""Separable linear filters as matrix products whose rounding cannot depend on the batch."""

from functools import lru_cache

import torch
from torch import Tensor

_VALUE_BITS = 24
_WEIGHT_BITS = 26


def separable(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    r"""Apply one matrix along the rows and one along the columns: :math:`R\,X\,C^\top`.

    Matrix libraries choose their order of summation by the shape of the batch. Here values are rounded to
    multiples of 2^-24 and weights to 2^-26 and multiplied in float64, where every partial sum is then exact:
    any order gives the same bits.

    Arguments:
        images: float tensor [..., H, W], absolute values below 4.
        rows: float64 [H', H], absolute row sums at most about 1.
        columns: float64 [W', W], likewise.

    Returns: float32 [..., H', W'].

    Example:
        >>> separable(torch.rand(2, 3, 32, 40), gaussian_matrix(32, 1.0), gaussian_matrix(40, 1.0)).shape
        torch.Size([2, 3, 32, 40])
    """
    across = _exact_product(images, columns).transpose(-1, -2)
    return _exact_product(across, rows).transpose(-1, -2).float().contiguous()


def _exact_product(values: Tensor, weights: Tensor) -> Tensor:
    """Values [..., A] times weights [B, A] transposed, rounded to multiples of 2^-24; float64 [..., B]."""
    whole_values = values.double().mul_(2.0**_VALUE_BITS).round_()
    whole_weights = (weights * 2.0**_WEIGHT_BITS).round_()
    product = whole_values @ whole_weights.T
    return product.mul_(2.0**-_WEIGHT_BITS).round_().mul_(2.0**-_VALUE_BITS)


def mirrored(position: Tensor, size: int, *, repeat_edge: bool) -> Tensor:
    """Fold whole positions (of any type) into 0..size - 1 by reflection at the border, however far out they lie.

    `repeat_edge` mirrors behind the last pixel (c b a | a b c), else about its centre (c b | a b c).
    """
    period = 2 * size if repeat_edge else 2 * size - 2
    folded = position - (position / period).floor_().to(position.dtype) * period
    return torch.minimum(folded, period - 1 - folded if repeat_edge else period - folded)


@lru_cache(maxsize=64)
def gaussian_matrix(
    size: int, sigma: float, *, truncate: float = 4.0, mirror: bool = False, device: torch.device | None = None
) -> Tensor:
    r"""Gaussian smoothing of a line of `size` samples, :math:`w_d \propto e^{-d^2 / 2\sigma^2}`, as float64.

    Arguments:
        size: length of the line, at least 1.
        sigma: standard deviation in samples; 0 is the identity.
        truncate: weights reach `round(truncate * sigma)` samples out.
        mirror: reflect at the border, edge sample repeated; else the edge sample goes on for ever.
    """
    radius = int(truncate * sigma + 0.5)
    distance = torch.arange(-radius, radius + 1, device="cpu")
    weight = torch.exp(-0.5 * (distance.double() / sigma) ** 2) if radius else torch.ones(1, dtype=torch.float64)
    return line_matrix(size, distance.tolist(), (weight / weight.sum()).tolist(), mirror=mirror).to(device)


def line_matrix(size: int, offsets: list[int], weights: list[float], *, mirror: bool) -> Tensor:
    """The float64 [size, size] matrix of out[i] = sum_k weights[k] * line[i + offsets[k]], bordered as above."""
    matrix = torch.zeros(size, size, dtype=torch.float64, device="cpu")
    place = torch.arange(size, device="cpu")
    for offset, weight in zip(offsets, weights, strict=True):
        source = place + offset
        source = mirrored(source, size, repeat_edge=True) if mirror else source.clamp(0, size - 1)
        matrix[place, source] += weight
    return matrix
