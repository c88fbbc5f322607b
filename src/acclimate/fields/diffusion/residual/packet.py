"""The 16 bytes before the content of a packet: whether it is what its receiver waits for."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

from acclimate.compression.message import MessageCodec
from acclimate.fields.diffusion.residual.settings import fingerprint
from acclimate.wire.faults import Disagreement, GarbledPacket, LinkFault

__all__ = ["HEADER", "Content", "Head", "fault_packet"]

HEADER = 16
"""Bytes before the content."""

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
"""Types of activations, by their number in a packet."""

_LAYOUT = struct.Struct("<HBBIII")
_MAGIC = 0xCF01


class Content(IntEnum):
    """What follows the header."""

    WHOLE = 0
    COMPRESSED = 1
    FAULT = 2


@dataclass(frozen=True, slots=True)
class Head:
    """What sender and receiver must agree on.

    Attributes:
        content: what follows.
        dtype: of the activations.
        step: evaluations since the start of the image.
        shape: fingerprint of rows and columns.
        codec: fingerprint of the codec and its settings.
    """

    content: Content
    dtype: torch.dtype
    step: int
    shape: int
    codec: int

    @classmethod
    def of(cls, codec: MessageCodec, whole: bool, step: int, shape: tuple[int, int], dtype: torch.dtype) -> Head:
        content = Content.WHOLE if whole else Content.COMPRESSED
        return cls(content, dtype, step, fingerprint(shape), fingerprint(codec.config()))

    def bytes(self) -> Tensor:
        """uint8 `[16]`, little endian: magic, content, type, step, shape, codec."""
        packed = _LAYOUT.pack(_MAGIC, self.content, DTYPES.index(self.dtype), self.step, self.shape, self.codec)
        return torch.frombuffer(bytearray(packed), dtype=torch.uint8)

    def check(self, raw: Tensor, length: int, name: str) -> None:
        """Return if a packet has this header and so many bytes.

        Raises:
            LinkFault: a packet that only says that its sender cannot go on.
            GarbledPacket: no packet, or cut.
            Disagreement: a packet of another step, shape, type, codec or content; the message says which.
        """
        if raw.dtype != torch.uint8 or raw.dim() != 1 or len(raw) < HEADER:
            raise GarbledPacket(f"{name}: found {raw.dtype} {list(raw.shape)}, expected uint8 of {length}.")
        magic, content, dtype, step, shape, codec = _LAYOUT.unpack(raw[:HEADER].cpu().numpy().tobytes())
        if magic != _MAGIC or content > max(Content) or dtype >= len(DTYPES):
            raise GarbledPacket(f"{name}: begins with {magic:#06x}, {content}, {dtype}; this is no packet.")
        if content == Content.FAULT:
            raise LinkFault(f"{name}: its sender cannot go on. See the error there; reset all ranks and start again.")
        found = Head(Content(content), DTYPES[dtype], step, shape, codec)
        differing = [
            f"{field} {getattr(found, field)} (here {getattr(self, field)})"
            for field in ("step", "dtype", "shape", "codec", "content")
            if getattr(found, field) != getattr(self, field)
        ]
        if differing:
            raise Disagreement(
                f"{name}: the packet was made with another {', another '.join(differing)}; shapes and codecs appear "
                "as fingerprints. Give every rank the same settings, shapes and number of steps, and reset all."
            )
        if len(raw) != length:
            raise GarbledPacket(f"{name}: has {len(raw)} bytes, expected {length}: it was cut or joined.")


def fault_packet(length: int) -> Tensor:
    """A packet `uint8 [length]` that lets its receivers raise, in place of one of that length.

    >>> len(fault_packet(40))
    40
    """
    packet = torch.zeros(length, dtype=torch.uint8)
    packet[:HEADER] = Head(Content.FAULT, DTYPES[0], 0, 0, 0).bytes()
    return packet
