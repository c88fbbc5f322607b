"""Which function makes which corruption, and the published constants of its five severities."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from acclimate.streams.corruptions.blur import defocus_blur, gaussian_blur
from acclimate.streams.corruptions.colour import brightness, contrast, saturate
from acclimate.streams.corruptions.elastic import elastic_transform
from acclimate.streams.corruptions.fog import fog
from acclimate.streams.corruptions.frost import frost
from acclimate.streams.corruptions.glass import glass_blur
from acclimate.streams.corruptions.jpeg import jpeg_compression
from acclimate.streams.corruptions.motion import motion_blur
from acclimate.streams.corruptions.night import night
from acclimate.streams.corruptions.noise import gaussian_noise, impulse_noise, shot_noise, speckle_noise
from acclimate.streams.corruptions.pixelate import pixelate
from acclimate.streams.corruptions.rain import rain
from acclimate.streams.corruptions.snow import snow
from acclimate.streams.corruptions.spatter import spatter
from acclimate.streams.corruptions.zoom import zoom_blur

LARGEST_SMALL_SIDE = 64
"""Short sides up to this many pixels take the CIFAR-10-C constants, longer ones those of ImageNet-C."""

Severities = tuple[tuple[Any, ...], tuple[Any, ...], tuple[Any, ...], tuple[Any, ...], tuple[Any, ...]]


@dataclass(frozen=True, kw_only=True)
class Corruption:
    """A corruption: ``apply(images, draws, *parameters)`` and its parameters by severity."""

    apply: Callable[..., Tensor]
    small: Severities
    large: Severities

    def parameters(self, height: int, width: int, severity: int) -> tuple[Any, ...]:
        """The published constants for an image of this size, severity 1..5."""
        table = self.small if min(height, width) <= LARGEST_SMALL_SIDE else self.large
        return table[severity - 1]


def _single(a: Any, b: Any, c: Any, d: Any, e: Any) -> Severities:
    return (a,), (b,), (c,), (d,), (e,)


_RAIN: Severities = (
    (0.006, 0.35, 0.08, 0.92),
    (0.010, 0.42, 0.14, 0.86),
    (0.015, 0.50, 0.20, 0.80),
    (0.020, 0.57, 0.27, 0.74),
    (0.027, 0.65, 0.35, 0.68),
)

_NIGHT: Severities = (
    (0.80, 5, 0.0010, 0.006),
    (0.66, 5, 0.0020, 0.010),
    (0.54, 6, 0.0035, 0.015),
    (0.44, 6, 0.0060, 0.020),
    (0.36, 7, 0.0100, 0.028),
)

# The published elastic constants for ImageNet are multiples of 244 pixels on images of 224.
_E = 244 / 224

CATALOGUE: dict[str, Corruption] = {
    "gaussian_noise": Corruption(
        apply=gaussian_noise,
        small=_single(0.04, 0.06, 0.08, 0.09, 0.10),
        large=_single(0.08, 0.12, 0.18, 0.26, 0.38),
    ),
    "shot_noise": Corruption(apply=shot_noise, small=_single(500, 250, 100, 75, 50), large=_single(60, 25, 12, 5, 3)),
    "impulse_noise": Corruption(
        apply=impulse_noise,
        small=_single(0.01, 0.02, 0.03, 0.05, 0.07),
        large=_single(0.03, 0.06, 0.09, 0.17, 0.27),
    ),
    "defocus_blur": Corruption(
        apply=defocus_blur,
        small=((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
        large=((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    ),
    "glass_blur": Corruption(
        apply=glass_blur,
        small=((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
        large=((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    ),
    "motion_blur": Corruption(
        apply=motion_blur,
        small=((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
        large=((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    ),
    "zoom_blur": Corruption(
        apply=zoom_blur,
        small=((0.01, 7), (0.01, 12), (0.01, 16), (0.01, 21), (0.01, 26)),
        large=((0.01, 12), (0.01, 16), (0.02, 11), (0.02, 13), (0.03, 11)),
    ),
    "snow": Corruption(
        apply=snow,
        small=(
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
        large=(
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
    ),
    "frost": Corruption(
        apply=frost,
        small=((1, 0.2, 5), (1, 0.3, 5), (0.9, 0.4, 5), (0.85, 0.4, 5), (0.75, 0.45, 5)),
        large=((1, 0.4, 1), (0.8, 0.6, 1), (0.7, 0.7, 1), (0.65, 0.7, 1), (0.6, 0.75, 1)),
    ),
    "fog": Corruption(
        apply=fog,
        small=((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
        large=((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
    ),
    "brightness": Corruption(
        apply=brightness,
        small=_single(0.05, 0.1, 0.15, 0.2, 0.3),
        large=_single(0.1, 0.2, 0.3, 0.4, 0.5),
    ),
    "contrast": Corruption(
        apply=contrast,
        small=_single(0.75, 0.5, 0.4, 0.3, 0.15),
        large=_single(0.4, 0.3, 0.2, 0.1, 0.05),
    ),
    "elastic_transform": Corruption(
        apply=elastic_transform,
        small=((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
        large=(
            (_E * 2, _E * 0.7, _E * 0.1),
            (_E * 2, _E * 0.08, _E * 0.2),
            (_E * 0.05, _E * 0.01, _E * 0.02),
            (_E * 0.07, _E * 0.01, _E * 0.02),
            (_E * 0.12, _E * 0.01, _E * 0.02),
        ),
    ),
    "pixelate": Corruption(
        apply=pixelate,
        small=_single(0.95, 0.9, 0.85, 0.75, 0.65),
        large=_single(0.6, 0.5, 0.4, 0.3, 0.25),
    ),
    "jpeg_compression": Corruption(
        apply=jpeg_compression, small=_single(80, 65, 58, 50, 40), large=_single(25, 18, 15, 10, 7)
    ),
    "speckle_noise": Corruption(
        apply=speckle_noise,
        small=_single(0.06, 0.1, 0.12, 0.16, 0.2),
        large=_single(0.15, 0.2, 0.35, 0.45, 0.6),
    ),
    "gaussian_blur": Corruption(
        apply=gaussian_blur, small=_single(0.4, 0.6, 0.7, 0.8, 1), large=_single(1, 2, 3, 4, 6)
    ),
    "spatter": Corruption(
        apply=spatter,
        small=(
            (0.62, 0.1, 0.7, 0.7, 0.5, False),
            (0.65, 0.1, 0.8, 0.7, 0.5, False),
            (0.65, 0.3, 1, 0.69, 0.5, False),
            (0.65, 0.1, 0.7, 0.69, 0.6, True),
            (0.65, 0.1, 0.5, 0.68, 0.6, True),
        ),
        large=(
            (0.65, 0.3, 4, 0.69, 0.6, False),
            (0.65, 0.3, 3, 0.68, 0.6, False),
            (0.65, 0.3, 2, 0.68, 0.5, False),
            (0.65, 0.3, 1, 0.65, 1.5, True),
            (0.67, 0.4, 1, 0.65, 1.5, True),
        ),
    ),
    "saturate": Corruption(
        apply=saturate,
        small=((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)),
        large=((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),
    ),
    "rain": Corruption(apply=rain, small=_RAIN, large=_RAIN),
    "night": Corruption(apply=night, small=_NIGHT, large=_NIGHT),
}

EXTRA_CORRUPTIONS: tuple[str, ...] = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
"""The four held out for validation by the authors of the benchmark."""

WEATHER: tuple[str, ...] = ("rain", "night")
"""Of our own making, for road scenes, beside fog and snow; part of no benchmark, so in none of its lists."""

CORRUPTIONS: tuple[str, ...] = tuple(name for name in CATALOGUE if name not in (*EXTRA_CORRUPTIONS, *WEATHER))
"""The fifteen of the benchmark, in its order."""
