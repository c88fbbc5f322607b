"""What a checkpoint says about its images: their size, and the mean and deviation of their colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from acclimate.fields.vision_language.encoders.framing import Framing
from acclimate.models.layers import HALF, IMAGENET_MEAN, IMAGENET_STD, Channels

__all__ = ["CLIP", "IMAGENET", "SIGLIP", "Colours", "Preprocessing"]


@dataclass(frozen=True)
class Colours:
    """Mean and standard deviation of red, green and blue, in [0, 1]."""

    mean: Channels
    std: Channels


CLIP = Colours((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
IMAGENET = Colours(IMAGENET_MEAN, IMAGENET_STD)
SIGLIP = Colours(HALF, HALF)


@dataclass(frozen=True)
class Preprocessing:
    """How a checkpoint wants its images."""

    framing: Framing
    colours: Colours

    @classmethod
    def read(cls, settings: Mapping[str, Any], size: int, otherwise: Colours) -> Preprocessing:
        """From a preprocessor file's entries, of today's form or with plain numbers as older ones have.

        Arguments: `size`, the model's own; `otherwise`, colours where the file names none.

        ValueError for images that are not square or have other than three colours.

        >>> Preprocessing.read({"size": 256, "crop_size": 224}, 518, IMAGENET).framing
        Framing(size=224, shorter=256, squashed=False, resample=3)
        """
        resized, cropped = settings.get("size"), settings.get("crop_size")
        crops = settings.get("do_center_crop", cropped is not None)
        side = _side(cropped if crops else resized, size)
        squashed = "height" in resized if isinstance(resized, Mapping) else resized is not None and not crops
        framing = Framing(
            size=side,
            shorter=max(side, _side(resized, side)),
            squashed=squashed,
            resample=int(settings.get("resample", 3)),
        )
        mean, std = settings.get("image_mean"), settings.get("image_std")
        colours = otherwise if mean is None or std is None else Colours(_channels(mean), _channels(std))
        return cls(framing, colours)


def _channels(values: Sequence[float]) -> Channels:
    if len(values) != 3:
        raise ValueError(
            f"found images of {len(values)} colours, expected red, green and blue. Wrap the model in a callable."
        )
    return float(values[0]), float(values[1]), float(values[2])


def _side(size: Any, otherwise: int) -> int:
    """The side of a square, however it is written; `otherwise` where it is not."""
    if isinstance(size, Mapping):
        sides = {int(size[key]) for key in ("shortest_edge", "height", "width") if key in size}
        if len(sides) > 1:
            raise ValueError(f"found images of {dict(size)}, expected a square. Wrap the model in a callable yourself.")
        return sides.pop() if sides else otherwise
    return int(size) if size is not None else otherwise
