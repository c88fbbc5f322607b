"""The source model that belongs to a data set."""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path

from torch import nn

from acclimate.models.recipes import RECIPES
from acclimate.models.residual import cifar10_resnet20, digits_resnet
from acclimate.models.threads import one_thread
from acclimate.models.training import Progress, train
from acclimate.streams.shared import shared_file

__all__ = ["cache_folder", "source_model"]

_log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """`$ACCLIMATE_CACHE`, else `$XDG_CACHE_HOME/acclimate`, else `~/.cache/acclimate`."""
    own = os.environ.get("ACCLIMATE_CACHE")
    if own:
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "acclimate"


def _trained_digits(progress: Progress | None) -> nn.Module:
    recipe = RECIPES["digits-resnet"]
    path = cache_folder() / "models" / f"{recipe.name}-{recipe.digest()}.safetensors"
    if path.is_file():
        try:
            return digits_resnet(path)
        except ValueError as error:
            _log.warning("The cached model is trained again: %s", error)
    try:
        with one_thread():
            return digits_resnet(train(recipe.name, output=path, progress=progress))
    except OSError as error:
        _log.warning("The trained model cannot be cached in %s (%s).", path.parent, error)
    with one_thread(), tempfile.TemporaryDirectory() as folder:
        return digits_resnet(train(recipe.name, output=Path(folder) / path.name, progress=progress))


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
        return _trained_digits(progress)
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
