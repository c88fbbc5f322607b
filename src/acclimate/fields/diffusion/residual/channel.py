"""One tensor of one layer of one device, step after step: the owner's end and the receivers'."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from acclimate.compression.message import MessageCodec, Whole, encode_change, from_bytes, message_codec
from acclimate.fields.diffusion.residual.packet import DTYPES, HEADER, Head
from acclimate.fields.diffusion.residual.settings import ResidualSettings

__all__ = ["ResidualChannel", "matrix_of"]


def matrix_of(shape: Sequence[int]) -> tuple[int, int]:
    """Rows and columns of activations: `[N, C]`, `[B, n, C]` as `[B n, C]`, `[B, n, H, D]` as `[B n, H D]`.

    >>> matrix_of((2, 16, 4, 8))
    (32, 32)
    """
    if not 2 <= len(shape) <= 4:
        raise ValueError(f"expected activations [N, C], [B, n, C] or [B, n, H, D], found {list(shape)}.")
    if len(shape) == 2:
        return shape[0], shape[1]
    return shape[0] * shape[1], shape[2] * (shape[3] if len(shape) == 4 else 1)


class ResidualChannel:
    """One end of a channel; the owner calls `encode` in every step, each receiver `decode`.

    With the base b that owner and receivers hold, a step sends `Enc(a - b)` and all go on from `b + Dec`, which is also
    what receivers use. What one step loses is part of the next step's change: feedback without a memory of its own.
    In the warm-up the tensor itself is sent. Of order 0 b is zero in every step; of order 2 the change is taken from
    `b + d`, with `d <- lambda (d + Dec)`.

    Both ends compute with one function on one packet in one type, so they stay equal bit for bit on equal hardware.

    Arguments:
        codec: a `MessageCodec`, what `message_codec` makes one of, or a function from the step to either.
        feedback, warmup, order, drift_decay, refresh_every: as in `ResidualSettings`.
        name: of the channel, for error messages.

    Attributes:
        step: packets so far.

    Raises:
        ValueError: an argument out of range.

    Source: CompactFusion, NeurIPS 2025 (arXiv 2507.17511). Fails where steps have little to do with each other.

    >>> owner, receiver = ResidualChannel("whole"), ResidualChannel("whole")
    >>> x = torch.tensor([[1.0, -2.0]])
    >>> torch.equal(receiver.decode(owner.encode(x), like=x), x)
    True
    """

    def __init__(
        self,
        codec: str | MessageCodec | Callable[[int], str | MessageCodec] = "two_bit",
        *,
        feedback: bool = True,
        warmup: int = 1,
        order: Literal[0, 1, 2] = 1,
        drift_decay: float = 0.5,
        refresh_every: int | None = None,
        name: str = "channel",
    ) -> None:
        self._choose = codec if callable(codec) else None
        self._settings = ResidualSettings(
            codec="whole" if callable(codec) else codec,
            feedback=feedback,
            warmup=warmup,
            order=order,
            drift_decay=drift_decay,
            refresh_every=refresh_every,
        )
        self.name = name
        self.reset()

    def reset(self) -> None:
        """Forget everything, as before a new image."""
        self.step = 0
        self._shape: tuple[int, ...] | None = None
        self._base: Tensor | None = None
        self._drift: Tensor | None = None

    @property
    def held(self) -> Tensor | None:
        """The base, in the shape of the activations; None before the first step."""
        return None if self._base is None or self._shape is None else self._base.view(self._shape)

    def codec(self, step: int | None = None) -> MessageCodec:
        """Of a step, this one by default; `Whole` in the warm-up."""
        step = self.step if step is None else step
        if self._settings.full(step):
            return Whole()
        return message_codec(self._settings.codec if self._choose is None else self._choose(step))

    def next_size(self, shape: Sequence[int], dtype: torch.dtype) -> int:
        """Bytes of the next packet for activations of this shape and type, of which 16 are the header."""
        return HEADER + self.codec().size(matrix_of(shape), dtype)

    @torch.no_grad()
    def encode(self, tensor: Tensor) -> Tensor:
        """The packet of this step, `uint8 [next_size]` on the device of the tensor; moves the owner's base.

        Raises:
            ValueError: another shape or type than in the step before, or values that are not finite; nothing has
                changed then.
        """
        head, codec = self._expect(tensor)
        if not bool(tensor.isfinite().all()):
            raise ValueError(
                f"{self.name}: {int((~tensor.isfinite()).sum())} of {tensor.numel()} values are not finite in step "
                f"{self.step}. Find where the model leaves the range of {tensor.dtype}, or use a wider type."
            )
        matrix = tensor.detach().reshape(matrix_of(tensor.shape)).contiguous()
        start = self._start(matrix)
        if isinstance(codec, Whole):
            body, new = matrix.view(-1).view(torch.uint8), matrix.clone()
        else:
            body, new = encode_change(codec, matrix, start)
        packet = torch.cat((head.bytes().to(body.device), body))
        self._move(packet[HEADER:], codec, new, start)
        if self._settings.open_loop:
            self._base = matrix.clone()
        self._shape = tuple(tensor.shape)
        return packet

    @torch.no_grad()
    def decode(self, packet: Tensor, like: Tensor | None = None) -> Tensor:
        """What the others know of the owner's tensor after this packet, in the shape and type of `like`.

        Without `like`, shape and type are those of the step before. The tensor belongs to the channel: do not write.

        Raises:
            LinkFault: a packet that is not of this step, shape, type and codec, is damaged, or says that its sender
                cannot go on; see `Head.check`. Nothing has changed then.
            ValueError: another shape or type than in the step before.
        """
        like = self.held if like is None else like
        if like is None:
            raise ValueError(f"{self.name}: the first packet needs like, a tensor of the shape and type it stands for.")
        head, codec = self._expect(like)
        rows = matrix_of(like.shape)
        head.check(packet, self.next_size(like.shape, like.dtype), self.name)
        content = from_bytes(codec, packet[HEADER:].to(like.device), torch.empty(rows, dtype=like.dtype, device="meta"))
        start = self._start(like)
        new = content.decode() if isinstance(codec, Whole) else codec.added(content, start)
        self._move(packet[HEADER:], codec, new, start)
        self._shape = tuple(like.shape)
        return new.view(self._shape)

    def _expect(self, like: Tensor) -> tuple[Head, MessageCodec]:
        if like.dtype not in DTYPES:
            raise ValueError(f"{self.name}: expected float32, float16 or bfloat16, found {like.dtype}.")
        held = self.held
        if held is not None and (held.shape != like.shape or held.dtype != like.dtype):
            raise ValueError(
                f"{self.name}: found {like.dtype} {list(like.shape)} in step {self.step}, after {held.dtype} "
                f"{list(held.shape)}. Call reset() first when an image of another size, batch or type begins."
            )
        codec, rows = self.codec(), matrix_of(like.shape)
        return Head.of(codec, isinstance(codec, Whole), self.step, rows, like.dtype), codec

    def _start(self, like: Tensor) -> Tensor:
        """What the change is taken from."""
        if self._base is None or self._settings.order == 0:
            return like.new_zeros(matrix_of(like.shape))
        return self._base if self._drift is None else self._base + self._drift

    def _move(self, body: Tensor, codec: MessageCodec, new: Tensor, start: Tensor) -> None:
        """Take over a new base; of order 2 from the packet's content, so that both ends do the same."""
        if self._settings.order == 2:
            before = torch.zeros_like(new) if self._drift is None else self._drift
            if isinstance(codec, Whole):
                self._drift = torch.zeros_like(new) if self._base is None else new - self._base
            else:
                self._drift = (
                    before + from_bytes(codec, body.to(new.device), new).decode()
                ) * self._settings.drift_decay
        self._base = new
        self.step += 1

    def checksum(self) -> int:
        """64 bits of the base and the step, equal at both ends as long as they agree."""
        digest = hashlib.blake2b(self.step.to_bytes(8, "little"), digest_size=8)
        if self._base is not None:
            digest.update(self._base.cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        return int.from_bytes(digest.digest(), "little")
