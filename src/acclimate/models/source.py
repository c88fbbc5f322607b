"""The source model that belongs to a data set."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

from torch import nn

from acclimate.models.cache import kept_weights
from acclimate.models.recipes import RECIPES
from acclimate.models.residual import cifar10_resnet20
from acclimate.models.threads import one_thread
from acclimate.models.training import Progress, train
from acclimate.streams.shared import shared_file

__all__ = ["source_model", "trained"]

_log = logging.getLogger(__name__)


def trained(name: str, *, progress: Progress | None = None) -> nn.Module:
    """The model of a recipe with the weights that are kept for it; those of digits are trained where there are none.

    Raises:
        FileNotFoundError: there are none, and the message says how to make them.
        ValueError: the file is damaged, and training is not a matter of seconds.
    """
    recipe, path = RECIPES[name], kept_weights(RECIPES[name])
    if path.is_file():
        try:
            return recipe.build(path)
        except ValueError as error:
            if recipe.dataset != "digits":
                raise
            _log.warning("The cached model is trained again: %s", error)
    if recipe.dataset != "digits":
        raise FileNotFoundError(
            f"there are no weights of {name!r}. Train it once: `acclimate train {name}`, which keeps them in "
            f"{path.parent}; or pass weights of your own with --weights FILE."
        )
    try:
        with one_thread():
            return recipe.build(train(name, output=path, progress=progress))
    except OSError as error:
        _log.warning("The trained model cannot be cached in %s (%s).", path.parent, error)
    with one_thread(), tempfile.TemporaryDirectory() as folder:
        return recipe.build(train(name, output=Path(folder) / path.name, progress=progress))


def source_model(dataset: str, *, progress: Progress | None = None) -> nn.Module:
    """The source model of a data set, in evaluation mode.

    `digits`: trained on first use on the 1,000 training digits, in well under a minute, and kept as
    safetensors in `$ACCLIMATE_CACHE`, else `$XDG_CACHE_HOME/acclimate`, else `~/.cache/acclimate`. The
    file's name carries the recipe, so a changed recipe trains anew, and so does a damaged file, with a logged
    warning.

    `cifar10`, `cifar10c`: `models/cifar10_resnet20.safetensors` of the shared folder.

    Arguments:
        dataset: the name of a data set; what follows a colon is ignored.
        progress: called after each epoch if the model has to be trained first; see `train`.

    Raises:
        FileNotFoundError: the weights are not there; the message says how to make them.
        ValueError: a data set without a source model.
    """
    kind = dataset.partition(":")[0]
    if kind == "digits":
        return trained("digits-resnet", progress=progress)
    if kind in ("cifar10", "cifar10c"):
        otherwise = (
            "train one: `acclimate train cifar10-resnet20 --output cifar10.safetensors`, and pass its "
            "weights with the model"
        )
        return cifar10_resnet20(shared_file("models/cifar10_resnet20.safetensors", otherwise))
    published = {"cifar100c": "resnext-29", "cifar100": "resnext-29", "imagenetc": "resnet-50"}.get(kind)
    hint = (
        f"Name the published one and its weights: --model {published} --weights FILE. Or bring"
        if published
        else "Bring"
    )
    raise ValueError(
        f"There is no source model for the data set {kind!r}, only for digits, cifar10 and cifar10c. {hint} "
        "your own: load_model('file.py:function', weights='weights.safetensors')."
    )
