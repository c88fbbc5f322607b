"""The source segmenter: trained once, then kept."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from acclimate.fields.segmentation.scores import Confusion
from acclimate.models.cache import kept_weights
from acclimate.models.recipes import RECIPES
from acclimate.models.segmenter import Segmenter, camvid_segmenter
from acclimate.models.training import Progress, train
from acclimate.streams.scenes import Scenes

__all__ = ["evaluate", "source_segmenter"]

_RECIPE = "camvid-segmenter"


def source_segmenter(
    weights: str | Path | None = None, *, data: str | Path | None = None, progress: Progress | None = None
) -> Segmenter:
    """The network for CamVid in evaluation mode, with weights from a file or from the cache.

    Without a file, and where the cache (`$ACCLIMATE_CACHE`, else `$XDG_CACHE_HOME/acclimate`, else
    `~/.cache/acclimate`) lacks it, it is trained first, on the training split of CamVid: some minutes on two cores.
    An interrupted training is continued by the next call. The name of the cached file carries the recipe.

    Arguments:
        weights: a file that `acclimate train camvid-segmenter` wrote.
        data: where the archives of CamVid are, if it has to be trained; the shared folder by default.
        progress: called after each epoch if it has to be trained; see `acclimate.models.train`.

    Raises:
        FileNotFoundError: no such file, or CamVid is not there.
        ValueError: weights that do not fit.
    """
    if weights is None:
        weights = kept_weights(RECIPES[_RECIPE])
        if not weights.is_file():
            train(_RECIPE, output=weights, data=data, progress=progress)
    return camvid_segmenter(weights)


@torch.no_grad()
def evaluate(model: nn.Module, scenes: Scenes, *, batch_size: int = 8) -> Confusion:
    """Count a model's answers to clean scenes; in evaluation mode.

    Arguments:
        model: with logits `[B, C, H, W]`.
        scenes: such as `camvid("val")`.
        batch_size: images at once.
    """
    was_training = model.training
    model.eval()
    counts = Confusion(len(scenes.classes))
    for index in torch.arange(len(scenes)).split(batch_size):
        counts.add(model(scenes.read(index).to(torch.float32) / 255), scenes.answers(index))
    model.train(was_training)
    return counts
