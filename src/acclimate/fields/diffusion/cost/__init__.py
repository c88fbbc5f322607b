"""What an exchange costs: bytes to the last one, and seconds by a model that is held against published runs."""

from acclimate.fields.diffusion.cost.latency import Device, break_even, latency
from acclimate.fields.diffusion.cost.shapes import SHAPES, ModelShape
from acclimate.fields.diffusion.cost.volume import base_bytes, packet_bytes, received_bytes

__all__ = ["SHAPES", "Device", "ModelShape", "base_bytes", "break_even", "latency", "packet_bytes", "received_bytes"]
