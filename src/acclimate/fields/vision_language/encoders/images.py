"""An image encoder that takes images as they are: in [0, 1], of any size."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from acclimate.fields.vision_language.encoders.preprocessing import Preprocessing
from acclimate.models.layers import ImageModel

__all__ = ["ImageEncoder"]


class ImageEncoder(ImageModel):
    """Images `[n, 3, H, W]` in [0, 1] to features `[n, D]`, float32, not normalised.

    Images of another size than `image_size` are resized bicubically, with smoothing where they shrink, and the middle
    of the longer side is kept; then colours are normalised as the checkpoint wants them, and the model runs in its own
    type. Pictures of files come through `preprocess`, which is what the checkpoint was trained with.

    Arguments: `tower`, the model: normalised pixels to features `[n, D]`; `preprocessing`, how it wants its images.

    ValueError for anything but floating images of three colours. Cost: one forward.
    """

    def __init__(self, tower: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.tower = tower
        self.preprocessing = preprocessing
        self.normalise_by(preprocessing.colours.mean, preprocessing.colours.std)

    @property
    def image_size(self) -> int:
        """Pixels of a side of what the model looks at."""
        return self.preprocessing.framing.size

    def preprocess(self, picture: Any) -> Tensor:
        """A `PIL.Image` of any size as `[3, image_size, image_size]` in [0, 1]. ValueError for anything else."""
        return self.preprocessing.framing.preprocess(picture)

    def forward(self, images: Tensor) -> Tensor:
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise ValueError(
                f"found {images.dtype} {list(images.shape)}, expected images [n, 3, H, W] in [0, 1]. Divide bytes by "
                "255; put one image into a batch with images[None]."
            )
        pixels = self.normalised(self.preprocessing.framing.fit(images).float())
        return self.tower(pixels.to(_type(self.tower))).float()


def _type(module: nn.Module) -> torch.dtype:
    return next((each.dtype for each in module.parameters() if each.is_floating_point()), torch.float32)
