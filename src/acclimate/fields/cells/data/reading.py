"""Any image file as RGB pixels, with what is odd about it in words."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acclimate.fields.cells.data.depth import DEEP, eight_bits, upper_bits
from acclimate.streams.image_files import open_image
from acclimate.streams.shared import require

__all__ = ["LARGEST", "LONGEST", "SMALLEST", "Reading", "read"]

SMALLEST = 8
"""Pixels of the shorter side; smaller pictures show no cell."""

LARGEST = 8192
"""Pixels of the longer side; larger files are not even decoded, since a few bytes may unfold to gigabytes."""

LONGEST = 4
"""Longer by shorter side, above which a picture is named as odd."""


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """What became of a file.

    Arguments:
        pixels: uint8 `[H, W, 3]`, RGB; None where the file is refused.
        what: what is odd about the file, and what was done or why it is refused; empty for a usual one.
    """

    pixels: NDArray[np.uint8] | None
    what: str = ""


class _Refused(Exception):
    pass


def read(path: str | Path, ground: int = 255) -> Reading:
    """The picture of a file, repaired where it can be.

    Repaired and named: grey-scale (repeated in three channels), an alpha channel (laid over `ground`), more than 8 bits
    and floating point (scaled by the range that is used, see `depth.eight_bits`), a palette, CMYK and other colour
    spaces, several frames (the first). Named only: sides of more than `LONGEST` to 1, and a picture of one colour.

    Refused: files that are missing, empty or damaged, no images, and those with a side below `SMALLEST` or above
    `LARGEST` pixels.

    Arguments:
        path: of the file.
        ground: grey level, 0 to 255, that transparent pixels show.

    Raises:
        ImportError: pillow is not installed.
    """
    file = Path(path)
    require("PIL.Image", "Reading image files")
    try:
        if not file.is_file():
            raise _Refused("is no file")
        if not file.stat().st_size:
            raise _Refused("is empty (0 bytes)")
        with _opened(file) as image:
            pixels, odd = _decoded(image, ground)
    except _Refused as error:
        return Reading(None, str(error))
    return Reading(pixels, "; ".join(odd))


def _opened(path: Path) -> Any:
    try:
        image = open_image(path)
    except Exception as error:  # decoders meet damaged bytes with errors of many kinds
        if type(error).__name__.startswith("DecompressionBomb"):
            raise _Refused(f"has too many pixels, expected at most {LARGEST} a side") from error
        raise _Refused("is not a readable image") from error
    width, height = image.size
    if min(width, height) < SMALLEST:
        image.close()
        raise _Refused(f"is {width}x{height} pixels, expected at least {SMALLEST} a side")
    if max(width, height) > LARGEST:
        image.close()
        raise _Refused(f"is {width}x{height} pixels, expected at most {LARGEST} a side")
    return image


def _decoded(image: Any, ground: int) -> tuple[NDArray[np.uint8], list[str]]:
    odd: list[str] = []
    wide = ";16" in str(image.tile)
    try:
        frames = getattr(image, "n_frames", 1)
        image.load()
        pixels, colours = _colours(image, ground)
    except _Refused:
        raise
    except Exception as error:  # as above
        raise _Refused(f"cannot be decoded ({error or type(error).__name__})") from error
    if frames > 1:
        odd.append(f"has {frames} frames, the first is taken")
    odd += colours
    if wide and image.mode not in DEEP:
        try:
            odd.append(upper_bits(pixels))
        except ValueError as error:
            raise _Refused(str(error)) from error
    width, height = image.size
    if max(width, height) > LONGEST * min(width, height):
        odd.append(f"is {width}x{height} pixels, more than {LONGEST} to 1")
    if (pixels == pixels[0, 0]).all():
        odd.append("is of one colour, it shows no cell")
    return pixels, odd


def _colours(image: Any, ground: int) -> tuple[NDArray[np.uint8], list[str]]:
    if image.mode in DEEP:
        try:
            grey, done = eight_bits(np.asarray(image))
        except ValueError as error:
            raise _Refused(str(error)) from error
        return np.repeat(grey[..., None], 3, axis=2), [done, _GREY]
    odd = [_ODD.get(image.mode, f"is stored as {image.mode}, converted to RGB")] if image.mode != "RGB" else []
    if image.has_transparency_data:
        clear = image.convert("RGBA")
        image = require("PIL.Image", "Reading image files").new("RGBA", image.size, (ground,) * 3 + (255,))
        image.alpha_composite(clear)
        odd = [*(what for what in odd if what), f"has an alpha channel, laid over {_GROUNDS.get(ground, ground)}"]
    return np.array(image.convert("RGB"), dtype=np.uint8), [what for what in odd if what]


_GREY = "is grey-scale, repeated in three channels"
_GROUNDS = {0: "black", 255: "white"}
_ODD = {
    "1": "has one bit a pixel, taken as black and white",
    "L": _GREY,
    "LA": _GREY,
    "P": "has a palette, converted to RGB",
    "PA": "has a palette, converted to RGB",
    "CMYK": "is stored as CMYK, converted to RGB without a colour profile",
    "RGBA": "",
    "RGBX": "",
}
