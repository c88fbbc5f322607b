"""What the paper's authors measured, and what the model of latency makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from acclimate.fields.diffusion.cost.latency import Device, latency
from acclimate.fields.diffusion.cost.shapes import SHAPES
from acclimate.fields.diffusion.cost.volume import received_bytes

__all__ = [
    "CAPPED", "CAPS", "DEVICES", "FLUX_H20", "FLUX_L20", "FLUX_QUALITY", "Claim", "calibrated", "capped", "claims",
    "predicted",
]  # fmt: skip

DEVICES = 4

FLUX_L20: Mapping[str, float] = {
    "single": 23.16, "ring": 10.89, "patch": 10.90, "ulysses": 9.13, "pipefusion": 9.49, "distrifusion": 8.05,
    "one_bit": 7.46, "two_bit": 7.57, "low_rank_int4:32": 10.60,
}  # fmt: skip
"""Seconds for one image of FLUX.1-dev, 1024 x 1024, 28 steps, on four L20 (PCIe)."""

FLUX_H20: Mapping[str, float] = {
    "single": 20.26, "ring": 7.54, "patch": 6.83, "ulysses": 6.70, "pipefusion": 9.07, "distrifusion": 6.86,
    "one_bit": 6.86, "two_bit": 6.70,
}  # fmt: skip
"""Likewise on four H20 (NVLink)."""

FLUX_QUALITY: Mapping[str, tuple[float, float]] = {
    "pipefusion": (6.72, 0.250), "distrifusion": (9.91, 0.310), "one_bit": (7.08, 0.260), "two_bit": (3.26, 0.114),
    "low_rank_int4:32": (8.68, 0.275),
}  # fmt: skip
"""FID and LPIPS against the images of ring attention."""

CAPS = (500, 1000, 1500, 2000)
"""Limits of bandwidth for each device, MB/s."""

CAPPED: Mapping[str, tuple[float, ...]] = {
    "single": (28.06, 28.06, 28.06, 28.06),
    "ring": (136.5, 76.1, 58.3, 44.4),
    "patch": (141.6, 79.5, 44.6, 43.4),
    "ulysses": (75.6, 46.5, 38.9, 30.7),
    "distrifusion": (139.7, 78.7, 58.4, 42.2),
    "one_bit": (20.9, 15.7, 14.8, 13.9),
    "two_bit": (27.5, 19.8, 17.8, 16.1),
}
"""Seconds for one image under each limit; PipeFusion takes 12.4 under all of them."""

_EXCHANGES = {"ring": "ring", "patch": "gather", "ulysses": "ulysses", "distrifusion": "stale"}


@dataclass(frozen=True, slots=True)
class Claim:
    """A published speed-up, that of the seconds published, and that of the model."""

    name: str
    claimed: float
    measured: float
    modelled: float


def calibrated() -> Device:
    """The L20, by two of its rows: bandwidth by that of the ring, time for coding by that of one bit.

    Every other row is then a prediction.
    """
    shape, alone = SHAPES["flux.1-dev"], FLUX_L20["single"]
    bandwidth = received_bytes(shape, DEVICES) / (FLUX_L20["ring"] - alone / DEVICES)
    sent = received_bytes(shape, DEVICES, "one_bit") / bandwidth
    return Device(alone=alone, bandwidth=bandwidth, codec=FLUX_L20["one_bit"] - alone / DEVICES - sent)


def predicted(row: str, device: Device) -> float:
    """Seconds of a row of the tables, by the model; DistriFusion as if it hid nothing."""
    if row == "single":
        return device.alone
    exchange = _EXCHANGES.get(row)
    return latency(SHAPES["flux.1-dev"], DEVICES, device, "whole" if exchange else row, exchange=exchange or "ring")


def capped(limit: int) -> Device:
    """A device of the runs under a limit of MB/s; coding is taken to cost what it costs the L20."""
    return Device(alone=CAPPED["single"][0], bandwidth=1e6 * limit, codec=calibrated().codec)


def claims() -> tuple[Claim, Claim]:
    """The two speed-ups that the abstract and its figures name."""
    l20, slow = calibrated(), capped(CAPS[0])
    return (
        Claim(
            "two bits on four L20, over one device",
            3.0,
            FLUX_L20["single"] / FLUX_L20["two_bit"],
            predicted("single", l20) / predicted("two_bit", l20),
        ),
        Claim(
            "one bit at 500 MB/s, over DistriFusion",
            6.7,
            CAPPED["distrifusion"][0] / CAPPED["one_bit"][0],
            predicted("distrifusion", slow) / predicted("one_bit", slow),
        ),
    )
