"""Bytes that devices exchange and keep, exactly."""

from __future__ import annotations

import torch

from acclimate.compression.message import MessageCodec, message_codec
from acclimate.core.config import one_of, whole
from acclimate.fields.diffusion.cost.shapes import ModelShape

__all__ = ["EXCHANGES", "base_bytes", "packet_bytes", "received_bytes"]

EXCHANGES = ("gather", "ring", "stale", "ulysses")

_KINDS = {2: torch.float16, 4: torch.float32}


def packet_bytes(shape: ModelShape, devices: int, codec: MessageCodec | str = "whole") -> int:
    """P, bytes of one device's keys, or values, of one layer: the codec's own count, without a message's header.

    >>> from acclimate.fields.diffusion.cost.shapes import SHAPES
    >>> packet_bytes(SHAPES["flux.1-dev"], 4)
    6684672
    """
    return message_codec(codec).size((shape.rows(devices), shape.channels), _KINDS[shape.itemsize])


def received_bytes(
    shape: ModelShape, devices: int, codec: MessageCodec | str = "whole", *, exchange: str = "gather"
) -> int:
    """V, bytes that each device receives for one image.

    Keys and values of all others, `V = 2 L (W - 1) (w F + (S - w) P)`, F bytes whole and P compressed, for gather and
    ring, and with P = F for stale, which compresses nothing. Nor does Ulysses, which changes shards of tokens for
    shards of heads and back, `V = 4 L S (W - 1) F / W`.

    Arguments: `shape`; `devices` W; `codec`; `exchange`, of `EXCHANGES`.

    Raises ValueError for an unknown exchange, a codec other than whole with stale or ulysses, or channels that devices
    cannot share in ulysses.
    """
    one_of(*EXCHANGES, exchange=exchange)
    whole(1, devices=devices)
    codec = message_codec(codec)
    if exchange in ("stale", "ulysses") and codec.name != "whole":
        raise ValueError(
            f"found {exchange} with codec {codec.name!r}; expected 'whole', since it compresses nothing. Take gather "
            "or ring to compress."
        )
    full, packet = packet_bytes(shape, devices), packet_bytes(shape, devices, codec)
    if exchange == "ulysses":
        if shape.channels % devices:
            raise ValueError(
                f"found ulysses with {shape.channels} channels on {devices} devices; expected channels that divide. "
                "Take another number of devices, or gather or ring."
            )
        return 4 * shape.layers * shape.steps * (devices - 1) * (full // devices)
    first = min(shape.warmup, shape.steps)
    return 2 * shape.layers * (devices - 1) * (first * full + (shape.steps - first) * packet)


def base_bytes(shape: ModelShape, devices: int) -> int:
    """Bytes that each device keeps of what all have sent last, its own included: `2 L W F`."""
    return 2 * shape.layers * devices * packet_bytes(shape, devices)
