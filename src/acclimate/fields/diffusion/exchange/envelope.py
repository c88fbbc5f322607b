"""What goes ahead of a message between ranks: enough to see at once that both mean the same one."""

from __future__ import annotations

import struct
from dataclasses import dataclass, fields
from enum import IntEnum

import torch

from acclimate.fields.diffusion.residual.packet import DTYPES
from acclimate.wire.faults import Disagreement, GarbledPacket, LinkFault

__all__ = ["ENVELOPE", "MAGIC", "Envelope", "Kind", "PeerFault", "body_length", "check", "excuse"]

ENVELOPE = 192
"""Bytes of an envelope."""

MAGIC = 0xCF03E4E1
"""The first four bytes of an envelope."""

_LAYOUT = struct.Struct("<IBBHHHIIIIIII4IQQQ")
_TEXT = ENVELOPE - _LAYOUT.size


class Kind(IntEnum):
    """What an envelope is for: a message that follows, a rank that cannot go on, or the end of an image."""

    MESSAGE = 0
    EXCUSE = 1
    FAREWELL = 2


class PeerFault(LinkFault):
    """Another rank cannot go on, and says why."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """What both ends of a message must agree on.

    Attributes:
        source: rank whose packets these are.
        size: ranks.
        settings: fingerprint of strategy and settings.
        image: resets so far.
        evaluation: of all branches, in this image.
        step: of the branch.
        branch: of guidance.
        layer: as they say.
        part: messages of this layer before this one.
        dtype: of the activations.
        shape: of the own keys, `[B, n, H, D]`.
        length: bytes of the message.
        checksum: of what the sender's channels held before; 0 where it is not compared.
        inputs: digest of what the model was given whole; 0 where it is not compared.
    """

    source: int
    size: int
    settings: int
    image: int
    evaluation: int
    step: int
    branch: int
    layer: int
    part: int
    dtype: torch.dtype
    shape: tuple[int, int, int, int]
    length: int
    checksum: int = 0
    inputs: int = 0

    def bytes(self) -> bytes:
        """`ENVELOPE` bytes, little endian."""
        counts = (self.settings, self.image, self.evaluation, self.step, self.branch, self.layer, self.part)
        head = (MAGIC, Kind.MESSAGE, DTYPES.index(self.dtype), self.source, self.size, 0)
        return _LAYOUT.pack(*head, *counts, *self.shape, self.length, self.checksum, self.inputs).ljust(ENVELOPE, b"\0")

    @classmethod
    def read(cls, raw: bytes, peer: int) -> Envelope:
        """The envelope that a peer has sent.

        Raises:
            GarbledPacket: bytes that are none.
            PeerFault: the peer says that it cannot go on.
        """
        magic, kind, dtype, source, size, _, *numbers = _LAYOUT.unpack(raw[: _LAYOUT.size])
        if magic != MAGIC or kind not in (Kind.MESSAGE, Kind.EXCUSE) or dtype >= len(DTYPES):
            raise GarbledPacket(f"a message from rank {peer} begins with {magic:#010x}, expected {MAGIC:#010x}.")
        if kind == Kind.EXCUSE:
            reason = raw[_LAYOUT.size :].rstrip(b"\0").decode(errors="replace")
            raise PeerFault(f"rank {source} could not go on: {reason} Then reset all ranks and start the image again.")
        settings, image, evaluation, step, branch, layer, part, *shape, length, checksum, inputs = numbers
        return cls(
            source=source,
            size=size,
            settings=settings,
            image=image,
            evaluation=evaluation,
            step=step,
            branch=branch,
            layer=layer,
            part=part,
            dtype=DTYPES[dtype],
            shape=(shape[0], shape[1], shape[2], shape[3]),
            length=length,
            checksum=checksum,
            inputs=inputs,
        )


def body_length(raw: bytes) -> int | None:
    """Bytes of the message that follows an envelope; None if none does."""
    return None if raw[4] != Kind.MESSAGE else int(_LAYOUT.unpack(raw[: _LAYOUT.size])[-3])


def check(found: Envelope, expected: Envelope, peer: int) -> None:
    """Return if they are equal.

    Raises:
        Disagreement: with what differs, on both sides.
    """
    differing = [
        f"{field.name} {getattr(found, field.name)} (here {getattr(expected, field.name)})"
        for field in fields(Envelope)
        if getattr(found, field.name) != getattr(expected, field.name)
    ]
    if differing == [f"checksum {found.checksum} (here {expected.checksum})"]:
        raise Disagreement(
            f"layer {found.layer} of rank {found.source}, branch {found.branch}: the base held here is not the "
            f"sender's in step {found.step}. The devices compute differently; use equal ones, or set refresh_every."
        )
    if differing == [f"inputs {found.inputs} (here {expected.inputs})"]:
        raise Disagreement(
            f"rank {peer} gave its model other inputs in evaluation {found.evaluation}: other latents, text, labels or "
            "timestep. Every rank draws the whole image: give all the same prompt, seed and scheduler; then reset all."
        )
    if differing:
        raise Disagreement(
            f"rank {peer} is elsewhere: it sends {', '.join(differing)}. Give every rank the same settings, shapes and "
            "number of evaluations; then reset all of them."
        )


def excuse(rank: int, error: BaseException) -> bytes:
    """An envelope that says why this rank cannot go on, as far as the text fits."""
    head = _LAYOUT.pack(MAGIC, Kind.EXCUSE, 0, rank, 0, 0, *[0] * 14)
    text = f"{type(error).__name__}: {error}".encode()[:_TEXT]
    return (head + text).ljust(ENVELOPE, b"\0")
