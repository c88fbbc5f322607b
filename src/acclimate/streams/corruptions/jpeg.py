"""JPEG compression at a given quality: what is lost, without the file."""

import math
from functools import lru_cache

import torch
from torch import Tensor

from acclimate.streams.corruptions.draws import Draws

# Quantisation tables K.1 and K.2 of ITU-T T.81, rows of eight.
_LUMA = (
    "16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 14 13 16 24 40 57 69 56 14 17 22 29 51 87 80 62 "
    "18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92 49 64 78 87 103 121 120 101 72 92 95 98 112 100 103 99"
)
_CHROMA = (
    "17 18 24 47 99 99 99 99 18 21 26 66 99 99 99 99 24 26 56 99 99 99 99 99 47 66 99 99 99 99 99 99 "
    "99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99"
)
_COSINE_BITS = 18
# Chroma 128 in units of 2^-16, less one unit so that 255.5 is not reached.
_CENTRE = (128 << 16) - 1


def jpeg_compression(images: Tensor, _: Draws, quality: int) -> Tensor:
    """Encode and decode as baseline JPEG with 4:2:0 chroma, on 8-bit pixels.

    YCbCr by BT.601, chroma averaged over 2x2 pixels, 8x8 cosine transforms quantised by the standard tables scaled to
    the quality, then back, with chroma interpolated by a triangle (3:1 in each direction). Rounding is that of
    the common codec, all in exact arithmetic. Entropy coding loses nothing and is left out.

    Source: ITU-T Recommendation T.81 (1992); scaling of the tables by the Independent JPEG Group.

    Arguments:
        quality: 1..100.

    Example:
        >>> import torch
        >>> from acclimate.streams import corrupt
        >>> corrupt(torch.rand(2, 3, 32, 32), "jpeg_compression", severity=3).shape
        torch.Size([2, 3, 32, 32])
    """
    height, width = images.shape[-2:]
    red, green, blue = (images * 255).add_(0.5).int().unbind(1)
    luma = _from_fixed_point(19595 * red + 38470 * green + 7471 * blue)
    blue_difference = _from_fixed_point(-11059 * red - 21709 * green + 32768 * blue + _CENTRE)
    red_difference = _from_fixed_point(32768 * red - 27439 * green - 5329 * blue + _CENTRE)
    luma = _through_blocks(luma, _table(_LUMA, quality, images.device))
    chroma = _halve(torch.stack((blue_difference, red_difference), 1))
    chroma = _through_blocks(chroma, _table(_CHROMA, quality, images.device))
    chroma = chroma[..., : (width + 1) // 2]
    blue_difference, red_difference = _double(chroma)[..., :height, :width].sub_(128).unbind(1)
    red = luma + _from_fixed_point(91881 * red_difference)
    green = luma + _from_fixed_point(-22554 * blue_difference - 46802 * red_difference)
    blue = luma + _from_fixed_point(116130 * blue_difference)
    return torch.stack((red, green, blue), 1).clamp_(0, 255).float().div_(255)


def _from_fixed_point(values: Tensor) -> Tensor:
    """Int32 multiples of 2^-16 rounded to whole numbers."""
    return values.add_(32768).bitwise_right_shift_(16)


def _pad(planes: Tensor, row_multiple: int, column_multiple: int) -> Tensor:
    """Repeat the last row and column until both sizes are multiples."""
    if planes.shape[-2] % row_multiple == 0 and planes.shape[-1] % column_multiple == 0:
        return planes
    rows, columns = (
        torch.arange(math.ceil(size / multiple) * multiple, device=planes.device).clamp_(max=size - 1)
        for size, multiple in zip(planes.shape[-2:], (row_multiple, column_multiple), strict=True)
    )
    return planes.index_select(-2, rows).index_select(-1, columns)


def _halve(planes: Tensor) -> Tensor:
    """Means of 2x2 pixels; halves are rounded down in even columns, up in odd ones.

    Columns are filled up to whole blocks before they are averaged, rows after: so does the common codec.
    """
    even = _pad(planes, 2, 16)
    rows = even[..., ::2, :] + even[..., 1::2, :]
    total = rows[..., ::2] + rows[..., 1::2]
    bias = 1 + torch.arange(total.shape[-1], device=planes.device) % 2
    return (total + bias.int()).bitwise_right_shift_(2)


def _double(planes: Tensor) -> Tensor:
    """Twice the size: each value 9 : 3 : 3 : 1 with its nearest neighbours, the edge going on outside."""
    height, width = planes.shape[-2:]
    up, down = (torch.arange(height, device=planes.device) + k for k in (-1, 1))
    left, right = (torch.arange(width, device=planes.device) + k for k in (-1, 1))
    rows = torch.stack(
        [planes * 3 + planes.index_select(-2, other.clamp(0, height - 1)) for other in (up, down)], -2
    ).flatten(-3, -2)
    before = rows * 3 + rows.index_select(-1, left.clamp(0, width - 1)) + 8
    after = rows * 3 + rows.index_select(-1, right.clamp(0, width - 1)) + 7
    return torch.stack((before, after), -1).flatten(-2).bitwise_right_shift_(4)


@lru_cache(maxsize=64)
def _table(base: str, quality: int, device: torch.device) -> Tensor:
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    entries = [min(max((int(entry) * percent + 50) // 100, 1), 255) for entry in base.split()]
    return torch.tensor(entries, dtype=torch.float64, device=device)


@lru_cache(maxsize=8)
def _cosines(device: torch.device) -> Tensor:
    """The orthonormal 8x8 cosine transform as float64 [64, 64], a product of entries rounded to 2^-18."""
    order = torch.arange(8, dtype=torch.float64, device="cpu")[:, None]
    place = torch.arange(8, dtype=torch.float64, device="cpu")
    basis = torch.cos((2 * place + 1) * order * (math.pi / 16)) / 2
    basis[0] /= math.sqrt(2)
    rounded = (basis * 2.0**_COSINE_BITS).round().div(2.0**_COSINE_BITS)
    return torch.kron(rounded, rounded).to(device)


def _through_blocks(planes: Tensor, table: Tensor) -> Tensor:
    """Quantise 8x8 cosine coefficients of int32 planes [..., H, W] of 0..255.

    Every product and sum fits in 53 bits, so the result does not depend on how the products are computed.
    """
    height, width = planes.shape[-2:]
    padded = _pad(planes, 8, 8)
    cosines = _cosines(planes.device)
    tall, wide = padded.shape[-2] // 8, padded.shape[-1] // 8
    blocks = padded.unflatten(-2, (tall, 8)).unflatten(-1, (wide, 8)).transpose(-3, -2).flatten(-2)
    eighths = ((blocks - 128).double() @ cosines.T).mul_(8).add_(0.5).floor_()
    whole = (eighths.abs() / 8).add_(table / 2).div_(table).floor_()
    restored = whole.mul_(table).copysign_(eighths)
    pixels = (restored @ cosines).add_(128.5).floor_().clamp_(0, 255).int()
    return pixels.unflatten(-1, (8, 8)).transpose(-3, -2).flatten(-2).flatten(-3, -2)[..., :height, :width]
