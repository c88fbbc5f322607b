"""The 16 bytes before the content of a packet: whether it is what its receiver waits for, and undamaged."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

from acclimate.compression.message import MessageCodec
from acclimate.fields.diffusion.residual.settings import fingerprint
from acclimate.fields.diffusion.residual.weighed import FIELD, weighed
from acclimate.wire.faults import Disagreement, GarbledPacket, LinkFault

__all__ = ["DTYPES", "HEADER", "Content", "Head", "fault_packet"]

HEADER = 16
"""Bytes before the content."""

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
"""Types of activations, by their number in a packet."""

_LAYOUT = struct.Struct("<BBHHHII")
_MAGIC = 0xCF
_SHORT = 1 << 16


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
        step: evaluations since the start of the image, modulo 2^16.
        rule: fingerprint, of 16 bits, of how both ends go on from step to step.
        shape: of rows and columns, of 16 bits.
        codec: of the codec and its settings, of 32 bits.
    """

    content: Content
    dtype: torch.dtype
    step: int
    rule: int
    shape: int
    codec: int

    @classmethod
    def of(
        cls, codec: MessageCodec, whole: bool, step: int, rule: int, shape: tuple[int, int], dtype: torch.dtype
    ) -> Head:
        content = Content.WHOLE if whole else Content.COMPRESSED
        short = fingerprint(shape) % _SHORT
        return cls(content, dtype, step % _SHORT, rule % _SHORT, short, fingerprint(codec.config()))

    def before(self, body: Tensor) -> Tensor:
        """The packet `uint8 [16 + size]` of a content `uint8 [size]`, on its device.

        Little endian: magic, content and type, step, rule, shape, codec; then `weighed` of the whole packet.
        """
        kind = self.content | DTYPES.index(self.dtype) << 4
        packed = _LAYOUT.pack(_MAGIC, kind, self.step, self.rule, self.shape, self.codec, 0)
        packet = torch.cat((torch.frombuffer(bytearray(packed), dtype=torch.uint8).to(body.device), body))
        packet[FIELD] = weighed(packet)
        return packet

    def check(self, raw: Tensor, length: int, name: str) -> None:
        """Return if a packet has this header and so many bytes, and arrived as it was sent.

        Damage within one aligned word of four bytes is always found, any other but for one case in 2^32.

        Raises:
            ValueError: anything but a tensor.
            LinkFault: a packet that only says that its sender cannot go on.
            GarbledPacket: no packet, a damaged one, or cut.
            Disagreement: a packet of another step, shape, type, codec, rule or content; the message says which.
        """
        found = _read(raw, length, name)
        if found.content == Content.FAULT:
            raise LinkFault(f"{name}: its sender cannot go on. See the error there; reset all ranks and start again.")
        differing = [
            f"{field} {getattr(found, field)} (here {getattr(self, field)})"
            for field in ("step", "dtype", "shape", "codec", "rule", "content")
            if getattr(found, field) != getattr(self, field)
        ]
        if differing:
            raise Disagreement(
                f"{name}: the packet was made with another {', another '.join(differing)}; shapes, codecs and rules "
                "(order, feedback, drift_decay, warmup, refresh_every) appear as fingerprints. Give every rank the "
                "same settings, shapes and number of steps, and reset all."
            )
        if len(raw) != length:
            raise GarbledPacket(f"{name}: has {len(raw)} bytes, expected {length}: it was cut or joined.")


def _read(raw: Tensor, length: int, name: str) -> Head:
    if not isinstance(raw, Tensor):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(
            f"{name}: expected a packet as a tensor uint8 [{length}], found {type(raw).__name__}. Of bytes, "
            "torch.frombuffer(bytearray(packet), dtype=torch.uint8) makes one."
        )
    if raw.dtype != torch.uint8 or raw.dim() != 1 or len(raw) < HEADER:
        raise GarbledPacket(f"{name}: found {raw.dtype} {list(raw.shape)}, expected uint8 of {length}.")
    read = torch.cat((raw[:HEADER], weighed(raw))).cpu().numpy().tobytes()
    magic, kind, step, rule, shape, codec, told = _LAYOUT.unpack(read[:HEADER])
    content, dtype = kind & 15, kind >> 4
    if magic != _MAGIC or content > max(Content) or dtype >= len(DTYPES):
        raise GarbledPacket(f"{name}: begins with {magic:#04x}, {content}, {dtype}; this is no packet.")
    if int.from_bytes(read[HEADER:], "little") != told:
        raise GarbledPacket(
            f"{name}: {len(raw)} bytes do not add up to what their sender noted: the packet was damaged, cut or joined "
            "on the way. Reset all ranks and start again."
        )
    return Head(Content(content), DTYPES[dtype], step, rule, shape, codec)


def fault_packet(length: int) -> Tensor:
    """A packet `uint8 [length]` that lets its receivers raise, in place of one of that length.

    >>> len(fault_packet(40))
    40
    """
    return Head(Content.FAULT, DTYPES[0], 0, 0, 0, 0).before(torch.zeros(length - HEADER, dtype=torch.uint8))
