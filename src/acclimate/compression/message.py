"""Codecs for messages: the bytes depend on shape and type alone, so that a receiver can wait with a buffer."""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor

from acclimate.compression.codec import Codec, Packed, codecs
from acclimate.compression.layout import Layout

__all__ = ["Form", "MessageCodec", "Whole", "encode_change", "from_bytes", "matrix_shape", "message_codec", "placed"]
__all__ += ["to_bytes", "two_byte"]

Form = tuple[tuple[tuple[int, ...], torch.dtype], ...]
"""Shape and type of each part of a packed tensor."""


@dataclass(frozen=True, kw_only=True)
class MessageCodec(Codec):
    """A codec whose parts have shapes and types that follow from those of the tensor, whatever its content.

    Takes matrices `[N, C]`, rows tokens and columns channels, unless the codec says more. A codec in a file of its own
    implements `pack`, `unpack` and `form`. A tensor with NaN or infinity decodes to NaN where that shows: loud, and
    never a plausible number.
    """

    main: ClassVar[str] = ""
    """The setting that a number in `message_codec("name:number")` stands for."""

    messages: ClassVar[Mapping[str, Any]] = {}
    """What `message_codec("name")` sets besides, where a message wants other than the defaults."""

    @abstractmethod
    def form(self, shape: Sequence[int], dtype: torch.dtype) -> Form:
        """Shapes and types of the parts, in their order in a message. ValueError for a shape that has none."""

    def size(self, shape: Sequence[int], dtype: torch.dtype) -> int:
        return sum(prod(part) * kind.itemsize for part, kind in self.form(shape, dtype))

    def encode(self, tensor: Tensor, *, generator: Generator | None = None) -> Packed:
        self.form(tensor.shape, tensor.dtype)
        return super().encode(tensor, generator=generator)

    def encode_change(self, tensor: Tensor, base: Tensor) -> Packed:
        """`encode(tensor - base)`, bit for bit; without that difference in memory, where the codec knows how.

        ValueError unless both have the same shape and type.
        """
        return self.encode(tensor.detach() - self.like(base, tensor))

    def added(self, packed: Packed, base: Tensor, out: Tensor | None = None) -> Tensor:
        """`base + packed.decode()`, bit for bit: fresh, or in `out`, which may be `base` itself.

        ValueError unless base and out have the shape and type of what was packed.
        """
        total = packed.decode().add_(self.like(base, packed.layout))
        if out is None:
            return total
        self.like(out, packed.layout).copy_(total)
        return out

    @staticmethod
    def like(base: Tensor, expected: Tensor | Layout) -> Tensor:
        """The base, without a graph; ValueError if it has another shape or type."""
        if tuple(base.shape) != tuple(expected.shape) or base.dtype != expected.dtype:
            raise ValueError(
                f"expected a base {list(expected.shape)} of {expected.dtype}, as the tensor, found "
                f"{list(base.shape)} of {base.dtype}."
            )
        return base.detach()


@codecs.register("whole")
@dataclass(frozen=True, kw_only=True)
class Whole(MessageCodec):
    """The matrix itself, bit for bit: `N C` elements of its own type.

    >>> x = torch.tensor([[1.0, -2.0]])
    >>> packed = Whole().encode(x)
    >>> packed.nbytes, torch.equal(packed.decode(), x)
    (8, True)
    """

    def pack(self, tensor: Tensor, layout: Layout, generator: Generator | None) -> tuple[Tensor, ...]:
        return (tensor.clone(memory_format=torch.contiguous_format),)

    def unpack(self, parts: tuple[Tensor, ...], layout: Layout) -> Tensor:
        return placed(parts[0].clone(), layout)

    def form(self, shape: Sequence[int], dtype: torch.dtype) -> Form:
        return ((matrix_shape(shape), dtype),)


def matrix_shape(shape: Sequence[int]) -> tuple[int, int]:
    """Rows and columns; ValueError for any other number of axes."""
    if len(shape) != 2:
        raise ValueError(
            f"expected a matrix [tokens, channels], found {len(shape)} axes {list(shape)}. "
            "Fold the batch into the tokens and the heads into the channels: tensor.reshape(-1, channels)."
        )
    return shape[0], shape[1]


def two_byte(choice: str, dtype: torch.dtype) -> torch.dtype:
    """The type of numbers in a message: as chosen; for `"auto"` float16, or bfloat16 for tensors of that type."""
    if choice == "auto":
        return torch.bfloat16 if dtype == torch.bfloat16 else torch.float16
    return getattr(torch, choice)


def placed(matrix: Tensor, layout: Layout) -> Tensor:
    """A contiguous tensor of the layout's shape as it lies in that layout: itself, where it lies so already."""
    if matrix.stride() == layout.stride:
        return matrix
    return layout.shaped(layout.empty()).copy_(matrix)


def message_codec(spec: str | MessageCodec | Mapping[str, Any]) -> MessageCodec:
    """A codec from its name, `name:number` or `name:preset`, a saved configuration, or a codec itself.

    The number is the main setting of the codec: the rank, the entries of a group, the fraction kept. ValueError for
    names that are none, and for codecs whose bytes depend on the content.

    >>> message_codec("low_rank_int4:16").rank
    16
    """
    if isinstance(spec, str):
        name, _, number = spec.partition(":")
        cls = codecs.classes().get(name)
        if cls is not None and issubclass(cls, MessageCodec) and number not in cls.presets:
            return cls(**_settings(cls, name, number))
    codec = codecs.build(spec)
    if not isinstance(codec, MessageCodec):
        known = ", ".join(name for name, cls in codecs.classes().items() if issubclass(cls, MessageCodec))
        raise ValueError(f"{codec.name!r} promises no fixed bytes for a message. Choose one of {known}.")
    return codec


def _settings(cls: type[MessageCodec], name: str, number: str) -> dict[str, Any]:
    settings = dict(cls.messages)
    if number:
        try:
            settings[cls.main or number] = int(number) if number.isdigit() else float(number)
        except ValueError:
            known = ", ".join(sorted(cls.presets)) or "none"
            raise ValueError(f"{name} has no preset {number!r}, and that is no number. Its presets: {known}.") from None
        if not cls.main:
            raise ValueError(f"{name} has no setting that a number stands for, found {number!r}. Write {name!r}.")
    return settings


def to_bytes(packed: Packed, out: Tensor | None = None) -> Tensor:
    """The parts one after the other, as they lie in memory, little endian: `uint8 [size]`.

    `out`, a contiguous `uint8 [size]` on the device of the parts, is written to and returned, where given; ValueError
    if it has another length.
    """
    _little_endian()
    parts = [part.contiguous().view(-1).view(torch.uint8) for part in packed.parts]
    if out is None:
        return torch.cat(parts)
    _length(len(out), sum(len(part) for part in parts))
    filled = 0
    for part in parts:
        out[filled : filled + len(part)] = part
        filled += len(part)
    return out


def from_bytes(codec: MessageCodec, raw: Tensor, like: Layout | Tensor) -> Packed:
    """What a received message `uint8 [size]` holds, for a tensor of the shape and type of `like`, on the device of raw.

    The parts are views of `raw` wherever they begin at a multiple of their element's bytes, so raw must stay as it is
    until they are decoded. ValueError for another length than the codec has for that shape and type.
    """
    _little_endian()
    if raw.dtype != torch.uint8 or raw.dim() != 1:
        raise ValueError(f"expected the bytes of a message, uint8 [size], found {raw.dtype} {list(raw.shape)}.")
    shape = tuple(like.shape)
    form = codec.form(shape, like.dtype)
    _length(len(raw), codec.size(shape, like.dtype))
    parts: list[Tensor] = []
    begin = 0
    for part, dtype in form:
        end = begin + prod(part) * dtype.itemsize
        parts.append(_typed(raw[begin:end], dtype).view(part))
        begin = end
    return Packed(codec, _row_major(shape, like.dtype, raw.device), tuple(parts))


def encode_change(codec: MessageCodec, tensor: Tensor, base: Tensor) -> tuple[Tensor, Tensor]:
    """The bytes of `tensor - base`, and the base that all who hold `base` arrive at with them.

    The new base is `codec.added(from_bytes(codec, raw, base), base)`, bit for bit. Neither argument is changed.
    """
    packed = codec.encode_change(tensor, base)
    return to_bytes(packed), codec.added(packed, base)


def _typed(raw: Tensor, dtype: torch.dtype) -> Tensor:
    if raw.storage_offset() % dtype.itemsize or raw.data_ptr() % dtype.itemsize or raw.stride(0) != 1:
        raw = raw.clone()
    return raw.view(dtype)


def _row_major(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Layout:
    stride = tuple(prod(max(length, 1) for length in shape[axis + 1 :]) for axis in range(len(shape)))
    return Layout(shape, stride, dtype, device)


def _length(found: int, expected: int) -> None:
    if found != expected:
        raise ValueError(
            f"a message of {expected} bytes was expected, found {found}. Sender and receiver must use the same codec "
            "and settings for tensors of the same shape and type."
        )


def _little_endian() -> None:
    if sys.byteorder != "little":
        raise RuntimeError("messages are little endian, and this machine is not.")
