"""Diffusion transformers split over devices that exchange only compressed changes of keys and values."""

from importlib import import_module
from typing import TYPE_CHECKING

from acclimate.fields.diffusion.attach.compact import compact
from acclimate.fields.diffusion.attach.compacted import Compacted
from acclimate.fields.diffusion.cost import SHAPES, Device, ModelShape, latency, packet_bytes, received_bytes
from acclimate.fields.diffusion.exchange.exchange import Exchange
from acclimate.fields.diffusion.exchange.real import Distributed
from acclimate.fields.diffusion.exchange.simulated import Simulated
from acclimate.fields.diffusion.exchange.strategies import STRATEGIES
from acclimate.fields.diffusion.exchange.ulysses import Ulysses
from acclimate.fields.diffusion.quality import Judge, frechet_distance, psnr, ssim
from acclimate.fields.diffusion.residual.books import Stats
from acclimate.fields.diffusion.residual.channel import ResidualChannel
from acclimate.fields.diffusion.residual.context import ResidualContext
from acclimate.fields.diffusion.residual.settings import ResidualSettings

if TYPE_CHECKING:
    from acclimate.fields.diffusion.reproduction import reproduce_compactfusion
    from acclimate.fields.diffusion.tiny import load_dit, sample, start_noise

__all__ = [
    "SHAPES",
    "STRATEGIES",
    "Compacted",
    "Device",
    "Distributed",
    "Exchange",
    "Judge",
    "ModelShape",
    "ResidualChannel",
    "ResidualContext",
    "ResidualSettings",
    "Simulated",
    "Stats",
    "Ulysses",
    "compact",
    "frechet_distance",
    "latency",
    "load_dit",
    "packet_bytes",
    "psnr",
    "received_bytes",
    "reproduce_compactfusion",
    "sample",
    "ssim",
    "start_noise",
]

_LATE = {"reproduce_compactfusion": "reproduction", "load_dit": "tiny", "sample": "tiny", "start_noise": "tiny"}


def __getattr__(name: str) -> object:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LATE[name]}"), name)
