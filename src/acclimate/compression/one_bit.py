"""The sign of each entry, and how large its row and its column are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from acclimate.compression.codec import codecs
from acclimate.compression.magnitudes import Magnitudes
from acclimate.compression.packing import pack_bits
from acclimate.compression.planes import not_negative

__all__ = ["OneBit"]


@codecs.register("one_bit")
@dataclass(frozen=True, kw_only=True)
class OneBit(Magnitudes):
    """Keep `x_ij >= 0` and decode to `+-u_i c_j`, where u are row means and c column means of `|x|`.

    `c_j = mean_i |x_ij|`, `u_i = mean_j |x_ij| / mean_ij |x_ij|` (see `magnitude_scales`). A matrix of zeros decodes
    to zeros; one with NaN or infinity to NaN as a whole.

    `scales` is the type of u and c: `"auto"`, float16 but bfloat16 for matrices of that type, or `"float16"` (held to
    65504, and zero below 3e-8), `"bfloat16"`, `"float32"`.

    Bytes: `N C / 8 + 2 (N + C)`, C a multiple of 8. Relative error 0.60 on normal entries, 0.71 on Laplace entries,
    whatever the scales of rows and columns. Temporaries: a few chunks of 32,768 entries. Made for differences of
    steps, whose error the next step sends again; one bit of the activations themselves is too little. Fails where
    a few entries are much larger than their row and column say. Source: CompactFusion, NeurIPS 2025.

    >>> x = torch.tensor([[2.0, -2.0, 2.0, 2.0, -2.0, 2.0, 2.0, 2.0]])
    >>> packed = OneBit().encode(x)
    >>> packed.nbytes, torch.equal(packed.decode(), x)
    (19, True)
    """

    bits: ClassVar[int] = 1

    def codes(self, values: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        return pack_bits(not_negative(values).view(-1))

    def levels(self) -> Tensor:
        return 2.0 * (torch.arange(256)[:, None] >> torch.arange(8) & 1) - 1.0
