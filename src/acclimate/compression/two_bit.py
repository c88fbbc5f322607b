"""The sign of each entry, and whether it is larger than its row and column say."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from acclimate.compression.codec import codecs
from acclimate.compression.magnitudes import Magnitudes
from acclimate.compression.planes import larger, not_negative, pack_pairs
from acclimate.core.config import positive

__all__ = ["TwoBit"]


@codecs.register("two_bit")
@dataclass(frozen=True, kw_only=True)
class TwoBit(Magnitudes):
    """Keep the sign and whether `|x_ij| > t S_ij`, `S_ij = u_i c_j`; decode to `+-l S_ij`, `l` one of two levels.

    u and c are means of `|x|` over rows and columns, as in `OneBit`. The code of an entry has `x >= 0` in its high
    bit and "large" in its low bit. A matrix of zeros decodes to zeros; one with NaN or infinity to NaN as a whole.

    Arguments: `threshold` t; `levels_at`, the level below and above it. `scales` as for `OneBit`. The preset
    `"normal"` has the threshold and levels that are best for normal entries.

    Bytes: `N C / 4 + 2 (N + C)`, C a multiple of 4. Relative error 0.38 on normal entries (0.34 with the preset), 0.46
    on Laplace entries. Temporaries: a few chunks of 32,768 entries. Fails as `OneBit` does, later. Source:
    CompactFusion, NeurIPS 2025.

    >>> packed = TwoBit().encode(torch.tensor([[1.0, -1.0, 4.0, -4.0], [4.0, 4.0, -1.0, 1.0]]))
    >>> packed.nbytes, packed.decode()[0].tolist()
    (14, [1.25, -1.25, 5.0, -5.0])
    """

    bits: ClassVar[int] = 2
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "normal": {"threshold": 1.230, "levels_at": (0.567, 1.893)},
    }
    threshold: float = 1.0
    levels_at: tuple[float, float] = (0.5, 2.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(threshold=self.threshold)
        low, high = self.levels_at if len(self.levels_at) == 2 else (1.0, 0.0)
        if not 0 <= low <= high < math.inf:
            raise ValueError(f"levels_at must be two finite numbers, 0 <= low <= high, found {self.levels_at!r}.")

    def codes(self, values: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        large = larger(values, rows * self.threshold, columns)
        return pack_pairs(large.view(-1), not_negative(values).view(-1))

    def levels(self) -> Tensor:
        low, high = self.levels_at
        codes = torch.arange(256)[:, None] >> torch.arange(0, 8, 2) & 3
        return torch.tensor([-low, -high, low, high])[codes]
