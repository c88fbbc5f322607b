"""How activations are compressed from step to step."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from acclimate.compression.message import MessageCodec, message_codec
from acclimate.core.config import Configured, between, one_of, whole, whole_or_none

__all__ = ["Policy", "ResidualSettings", "fingerprint"]

Policy = Callable[[int, int, str], "str | MessageCodec"]
"""From layer, step and kind ("k" or "v") to the codec of a compressed step; the same on every rank."""

_USUAL = "two_bit"


@dataclass(frozen=True, kw_only=True)
class ResidualSettings(Configured):
    """Settings of a residual exchange; every rank has the same.

    Arguments:
        codec: of the changes, a `MessageCodec` or what `message_codec` makes one of. "whole" sends everything. None for
            the strategy's own: two bits where it compresses; see `suited`.
        warmup: w, evaluations at the start of an image that send everything. With 0 all begin from a base of zeros.
        order: 0 compresses the activation, 1 its change, 2 its deviation from a predicted change.
        feedback: whether the owner, too, goes on from what the others hold, so that later messages carry what earlier
            ones lost. Only of order 1 may this be False, for comparison.
        drift_decay: lambda of order 2, in [0, 1].
        refresh_every: send everything in every so many evaluations after the warm-up; None for never.
        own_block: whether a device attends to its own keys and values as they are ("exact"), or as the others hold
            them ("reconstructed"), so that all devices see the same.
        checksum_every: compare what sender and receivers hold in every so many evaluations; 0 for never. Between
            processes only.
        policy: from layer, step and kind to the codec of a compressed step, instead of `codec`. Warm-up and refreshes
            stay. It must not depend on what a rank computes.

    Raises:
        ValueError: an argument out of range, or settings that contradict each other.

    >>> ResidualSettings(codec="whole").warmup
    1
    """

    name: ClassVar[str] = "residual"
    codec: str | MessageCodec | None = None
    warmup: int = 1
    order: Literal[0, 1, 2] = 1
    feedback: bool = True
    drift_decay: float = 0.5
    refresh_every: int | None = None
    own_block: Literal["exact", "reconstructed"] = "exact"
    checksum_every: int = 0
    policy: Policy | None = None

    def __post_init__(self) -> None:
        whole(0, warmup=self.warmup, checksum_every=self.checksum_every)
        whole_or_none(1, refresh_every=self.refresh_every)
        one_of(0, 1, 2, order=self.order)
        one_of("exact", "reconstructed", own_block=self.own_block)
        between(0, 1, drift_decay=self.drift_decay)
        if not self.feedback and self.order != 1:
            reason = "which predicts from what all hold" if self.order else "which sends no changes to feed back into"
            raise ValueError(
                f"found feedback=False with order={self.order}, {reason}. Leave it out, or choose order=1."
            )
        if self.open_loop and self.checksum_every:
            raise ValueError(
                "found checksum_every with feedback=False: sender and receivers then hold different tensors on "
                "purpose. Leave checksum_every at 0."
            )
        if self.codec is not None:
            object.__setattr__(self, "codec", message_codec(self.codec))

    @property
    def open_loop(self) -> bool:
        """Whether the owner holds something else than the receivers."""
        return self.order == 1 and not self.feedback

    def full(self, step: int) -> bool:
        """Whether this step, from 0, sends everything."""
        after = step - self.warmup
        return after < 0 or (self.refresh_every is not None and after % self.refresh_every == self.refresh_every - 1)

    def chosen(self, layer: int, step: int, kind: str) -> MessageCodec:
        """The codec of a step that does not send everything."""
        return message_codec((self.codec or _USUAL) if self.policy is None else self.policy(layer, step, kind))


def fingerprint(values: Any) -> int:
    """32 bits of JSON values, to compare between ranks.

    >>> fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    True
    """
    return zlib.crc32(json.dumps(values, sort_keys=True).encode())
