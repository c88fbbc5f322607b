"""Seconds for one image on several devices, where nothing of the exchange is hidden behind computing."""

from __future__ import annotations

from dataclasses import dataclass

from acclimate.compression.message import MessageCodec
from acclimate.core.config import at_least, positive
from acclimate.fields.diffusion.cost.shapes import ModelShape
from acclimate.fields.diffusion.cost.volume import packet_bytes, received_bytes

__all__ = ["Device", "break_even", "latency"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    """One of several equal devices.

    Arguments: `alone`, s for an image on one of them; `bandwidth`, bytes/s that each receives; `codec`, s for an image
    that encoding and decoding take; `delay`, s until the first byte of an exchange comes.
    """

    alone: float
    bandwidth: float
    codec: float = 0.0
    delay: float = 0.0

    def __post_init__(self) -> None:
        positive(alone=self.alone, bandwidth=self.bandwidth)
        at_least(0.0, codec=self.codec, delay=self.delay)


def latency(
    shape: ModelShape, devices: int, device: Device, codec: MessageCodec | str = "whole", *, exchange: str = "gather"
) -> float:
    """`T = T_1 / W + T_codec + V / B + L S d`, seconds for one image; exchanges that change nothing take no codec.

    When it fails: an exchange that hides behind computing takes less, at best the longer of the two; devices that share
    one wire, or computing that does not divide by W, take more.
    """
    volume = received_bytes(shape, devices, codec, exchange=exchange)
    coding = device.codec if volume < received_bytes(shape, devices) and exchange != "ulysses" else 0.0
    waiting = shape.layers * shape.steps * device.delay if devices > 1 else 0.0
    return device.alone / devices + coding + volume / device.bandwidth + waiting


def break_even(shape: ModelShape, devices: int, codec: MessageCodec | str, bandwidth: float) -> float:
    """Seconds that coding one tensor may take before sending it whole is faster: `(F - P) (W - 1) / B`."""
    positive(bandwidth=bandwidth)
    saved = packet_bytes(shape, devices) - packet_bytes(shape, devices, codec)
    return saved * (devices - 1) / bandwidth
