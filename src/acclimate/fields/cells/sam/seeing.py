"""What a trained segmenter sees in the cells of a laboratory: masks and feature maps."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from acclimate.fields.cells.data.laboratory import Laboratory
from acclimate.fields.cells.sam.colours import colours_of
from acclimate.fields.cells.sam.segmenter import Segmenter

__all__ = ["Sight", "see"]


class Sight(NamedTuple):
    """`features` float16 `[N, D, g, g]`, before the neck; `masks` int8 `[N, S, S]`, the likeliest part of each pixel,
    0 for background."""

    features: Tensor
    masks: Tensor


@torch.no_grad()
def see(
    model: Segmenter,
    laboratory: Laboratory,
    *,
    own_colours: bool = False,
    batch_size: int = 32,
    into: Tensor | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Sight:
    """Look at all cells.

    Arguments: `own_colours`, normalise by the laboratory's own colours rather than by those of the training; what is
    seen then depends a little on which cells come together; `into`, where features go, float16 `[N, D, g, g]`.

    Cost: a forward of each image; two bytes for each number of the feature maps.
    """
    was_training = model.training
    model.eval()
    colours = colours_of(laboratory.images) if own_colours else None
    size = model.size
    shape = len(laboratory), size.width, size.grid, size.grid
    features = torch.empty(shape, dtype=torch.float16) if into is None else into
    masks: list[Tensor] = []
    done = 0
    for part in laboratory.images.split(batch_size):
        seen = model(part.float() / 255, colours)
        features[done : done + len(part)] = seen.features
        whole = F.interpolate(seen.logits, part.shape[-2:], mode="bilinear", align_corners=False)
        masks.append(whole.argmax(1).to(torch.int8))
        done += len(part)
        if progress is not None:
            progress(done, len(laboratory))
    model.train(was_training)
    return Sight(features, torch.cat(masks))
