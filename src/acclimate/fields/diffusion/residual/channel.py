"""One tensor of one layer of one device, step after step: the owner's end and the receivers'."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from acclimate.compression.message import MessageCodec, Whole, encode_change, from_bytes, message_codec
from acclimate.fields.diffusion.residual.packet import DTYPES, HEADER, Head
from acclimate.fields.diffusion.residual.settings import ResidualSettings, fingerprint

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
        rule = {"order": order, "feedback": feedback, "warmup": warmup, "refresh_every": refresh_every}
        self._rule = fingerprint({**rule, "drift_decay": drift_decay if order == 2 else None})
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
        return self._settings.chosen(0, step, "") if self._choose is None else message_codec(self._choose(step))

    def next_size(self, shape: Sequence[int], dtype: torch.dtype) -> int:
        """Bytes of the next packet for activations of this shape and type, of which 16 are the header."""
        return HEADER + self.codec().size(matrix_of(shape), dtype)

    @torch.no_grad()
    def encode(self, tensor: Tensor) -> Tensor:
        """The packet of this step, `uint8 [next_size]` on the device of the tensor; moves the owner's base.

        Raises:
            ValueError: another shape or type than in the step before, a shape that the codec of later steps does not
                take, values that are not finite, or a base that would not be: finite values may be further apart than
                their type goes. Nothing has changed then.
        """
        head, codec = self._expect(tensor)
        matrix = tensor.detach().reshape(matrix_of(tensor.shape)).contiguous()
        start = self._start(matrix)
        if isinstance(codec, Whole):
            body, new = matrix.view(-1).view(torch.uint8), matrix.clone()
        else:
            body, new = encode_change(codec, matrix, start)
        if not bool(matrix.isfinite().all() & new.isfinite().all()):
            raise ValueError(self._not_finite(matrix, new))
        packet = head.before(body)
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
            LinkFault: a packet that is not of this step, shape, type, codec and rule, is damaged, or says that its
                sender cannot go on; see `Head.check`. Nothing has changed then.
            ValueError: another shape or type than in the step before, a packet that is no tensor, or, without feedback,
                a base that would not be finite.
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
        if self._settings.open_loop and not bool(new.isfinite().all()):  # with feedback the owner has seen to it
            raise ValueError(self._not_finite(new, new))
        self._move(packet[HEADER:], codec, new, start)
        self._shape = tuple(like.shape)
        return new.view(self._shape)

    def _not_finite(self, matrix: Tensor, new: Tensor) -> str:
        """What to say of activations, or else of a base, that are not finite."""
        bad = int((~matrix.isfinite()).sum())
        if bad:
            return (
                f"{self.name}: {bad} of {matrix.numel()} values are not finite in step {self.step}. Find where the "
                f"model leaves the range of {matrix.dtype}, or use a wider type."
            )
        return (
            f"{self.name}: {int((~new.isfinite()).sum())} of {new.numel()} values of the base would not be finite "
            f"after step {self.step}: they change by more than {matrix.dtype} holds, "
            f"{torch.finfo(matrix.dtype).max:.5g}. Use a wider type, or a policy that sends it whole."
        )

    def _expect(self, like: Tensor) -> tuple[Head, MessageCodec]:
        if not isinstance(like, Tensor) or like.dtype not in DTYPES:  # pyright: ignore[reportUnnecessaryIsInstance]
            found = getattr(like, "dtype", type(like).__name__)
            raise ValueError(f"{self.name}: expected float32, float16 or bfloat16, as a tensor, found {found}.")
        held, rows = self.held, matrix_of(like.shape)
        if held is None:
            self._fits(rows, like.dtype)
        elif held.shape != like.shape or held.dtype != like.dtype:
            raise ValueError(
                f"{self.name}: found {like.dtype} {list(like.shape)} in step {self.step}, after {held.dtype} "
                f"{list(held.shape)}. Call reset() first when an image of another size, batch or type begins."
            )
        codec = self.codec()
        return Head.of(codec, isinstance(codec, Whole), self.step, self._rule, rows, like.dtype), codec

    def _fits(self, rows: tuple[int, int], dtype: torch.dtype) -> None:
        """ValueError, before the warm-up, for a shape that the codec after it does not take."""
        first = self._settings.warmup
        if not self._settings.full(first):
            try:
                self.codec(first).form(rows, dtype)
            except ValueError as error:
                raise ValueError(f"{self.name}, step {first}: {error}") from error

    def _start(self, like: Tensor) -> Tensor:
        """What the change is taken from; a prediction is held to the range of its type."""
        if self._base is None or self._settings.order == 0:
            return like.new_zeros(matrix_of(like.shape))
        return self._base if self._drift is None else (self._base + self._drift).nan_to_num_()

    def _move(self, body: Tensor, codec: MessageCodec, new: Tensor, start: Tensor) -> None:
        """Take over a new base; of order 2 from the packet's content, so that both ends do the same."""
        if self._settings.order == 2:
            if isinstance(codec, Whole):
                drift = torch.zeros_like(new) if self._base is None else new - self._base
            else:
                before = torch.zeros_like(new) if self._drift is None else self._drift
                sent = from_bytes(codec, body.to(new.device), new).decode()
                drift = (before + sent) * self._settings.drift_decay
            self._drift = drift.nan_to_num_()
        self._base = new
        self.step += 1

    def checksum(self) -> int:
        """64 bits of the base and the step, equal at both ends as long as they agree."""
        digest = hashlib.blake2b(self.step.to_bytes(8, "little"), digest_size=8)
        if self._base is not None:
            digest.update(self._base.cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        return int.from_bytes(digest.digest(), "little")
