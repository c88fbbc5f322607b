"""Where a max pooling found its maxima, as small offsets within the windows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import ClassVar

import torch
from torch import Generator, Tensor

from acclimate.compression.codec import Codec, codecs
from acclimate.compression.layout import Layout
from acclimate.core.config import whole

__all__ = ["Offsets"]


@codecs.register("offsets")
@dataclass(frozen=True, kw_only=True)
class Offsets(Codec):
    """Keep the int64 indices of a max pooling over 1, 2 or 3 axes as offsets within each window: exact, 8 times less.

    An index is `start(window) + offset`, where the start follows from the place of the output, and the offset is one
    of `prod(kernel)` values: a uint8 up to 256 of them, else an int16 (up to 32,768).

    Arguments, one number per axis: `input_size`, the lengths that were pooled, and `kernel`, `stride`, `padding`,
    `dilation` of the pooling, those the indices came from. Indices that lie in no such window raise ValueError on the
    CPU; accelerators are not asked, since that would wait for them. Bytes: 1 or 2 per output. Temporaries: two to
    three times the indices.

    >>> pooled, indices = torch.nn.functional.max_pool2d(torch.rand(1, 1, 4, 4), 2, return_indices=True)
    >>> codec = Offsets(input_size=(4, 4), kernel=(2, 2), stride=(2, 2), padding=(0, 0), dilation=(1, 1))
    >>> packed = codec.encode(indices)
    >>> packed.nbytes, torch.equal(packed.decode(), indices)
    (4, True)
    """

    dtypes: ClassVar[frozenset[torch.dtype]] = frozenset({torch.int64})
    input_size: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]

    def __post_init__(self) -> None:
        given = (self.input_size, self.kernel, self.stride, self.padding, self.dilation)
        if not 1 <= len(self.kernel) <= 3 or len({len(numbers) for numbers in given}) != 1:
            raise ValueError(f"expected 1 to 3 numbers, as many for each argument, found {given!r}.")
        for low, numbers in zip((1, 1, 1, 0, 1), given, strict=True):
            for number in numbers:
                whole(low, **{"each length, kernel, stride and dilation" if low else "each padding": number})
        if math.prod(self.kernel) > 1 << 15:
            raise ValueError(f"windows of {self.kernel} have more than 32,768 places. Keep these indices with Exact().")

    @property
    def _code(self) -> torch.dtype:
        return torch.uint8 if math.prod(self.kernel) <= 256 else torch.int16

    @property
    def _steps(self) -> tuple[int, ...]:
        """How far apart neighbours along each axis lie in the flat index."""
        return tuple(math.prod(self.input_size[axis + 1 :]) for axis in range(len(self.input_size)))

    def _distances(self, device: torch.device) -> Tensor:
        """From the start of a window to each of its places: int64 `[prod(kernel)]`."""
        steps = [dilation * step for dilation, step in zip(self.dilation, self._steps, strict=True)]
        places = product(*(range(width) for width in self.kernel))
        return torch.tensor(
            [sum(place * step for place, step in zip(each, steps, strict=True)) for each in places], device=device
        )

    def _starts(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        """Flat index at which each window starts, below zero in the padding: int64, of the last axes' shape."""
        starts = torch.zeros((), dtype=torch.int64, device=device)
        for axis, step in enumerate(self._steps):
            begin = torch.arange(shape[axis - len(self.kernel)], device=device) * self.stride[axis] - self.padding[axis]
            starts = starts[..., None] + begin * step
        return starts

    def pack(self, tensor: Tensor, layout: Layout, generator: Generator | None) -> tuple[Tensor, ...]:
        if tensor.ndim < len(self.kernel):
            raise ValueError(
                f"found indices {list(tensor.shape)}, expected at least {len(self.kernel)} axes of outputs."
            )
        distances = self._distances(layout.device)
        reach = sum(
            (width - 1) * dilation * step
            for width, dilation, step in zip(self.kernel, self.dilation, self._steps, strict=True)
        )
        table = torch.full((reach + 3,), -1, dtype=torch.int16, device=layout.device)
        table[distances + 1] = torch.arange(len(distances), dtype=torch.int16, device=layout.device)
        found = layout.flat(tensor.sub(self._starts(layout.shape, layout.device))).clamp_(-1, reach + 1)
        codes = table.index_select(0, found.add_(1))
        if layout.device.type == "cpu" and layout.numel and codes.amin().item() < 0:
            raise ValueError(
                f"some indices {list(tensor.shape)} lie in no window of {self.kernel} over {self.input_size}, stride "
                f"{self.stride}, padding {self.padding}, dilation {self.dilation}. Give the settings of the pooling."
            )
        return (codes.to(self._code),)

    def unpack(self, parts: tuple[Tensor, ...], layout: Layout) -> Tensor:
        indices = self._distances(layout.device).index_select(0, parts[0].int())
        return layout.shaped(indices).add_(self._starts(layout.shape, layout.device))

    def size(self, shape: Sequence[int], dtype: torch.dtype) -> int:
        return math.prod(shape) * self._code.itemsize
