"""Models by name or from the user's code."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from acclimate.models.aggregated_residual import resnext_29
from acclimate.models.bottleneck import resnet_50
from acclimate.models.recipes import RECIPES
from acclimate.models.residual import cifar10_resnet20, digits_resnet
from acclimate.models.source import source_model, trained
from acclimate.models.training import Progress
from acclimate.models.weights import load_weights
from acclimate.models.wide_residual import wrn_16_4, wrn_28_10

__all__ = ["BUILT_IN", "load_model"]

_OWN: dict[str, tuple[Callable[..., nn.Module], str]] = {
    "cifar10-resnet20": (cifar10_resnet20, "cifar10"),
    "digits-resnet": (digits_resnet, "digits"),
}
_TRAINED = ("digits-resnet-gn", "digits-vit", "cifar10-resnet20-gn", "cifar10-vit")
_PUBLISHED: dict[str, tuple[Callable[..., nn.Module], str]] = {
    "wrn-28-10": (wrn_28_10, "RobustBench's `Standard` for CIFAR-10, or your own: acclimate train wrn-28-10"),
    "wrn-16-4": (wrn_16_4, "your own: acclimate train wrn-16-4"),
    "resnext-29": (resnext_29, "RobustBench's `Hendrycks2020AugMix_ResNeXt` for CIFAR-100"),
    "resnet-50": (resnet_50, "torchvision's `IMAGENET1K_V1`, resnet50-0676ba61.pth"),
}

BUILT_IN = (*_OWN, *_TRAINED, *_PUBLISHED)
"""The names `load_model` knows."""


@contextmanager
def _importable(folder: Path) -> Generator[None]:
    entry = str(folder.resolve())
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        if entry in sys.path:
            sys.path.remove(entry)


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path.absolute()}; expected one that defines the model.")
    name = f"_acclimate_model_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} cannot be imported; expected a Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up here
    try:
        with _importable(path.parent), _blamed(str(path)):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextmanager
def _blamed(place: str) -> Generator[None]:
    """A ValueError of one line for whatever the user's own code raises."""
    try:
        yield
    except (ValueError, FileNotFoundError, ImportError):
        raise
    except Exception as error:
        said = " ".join(str(error).split())
        raise ValueError(f"{place} fails by itself: {type(error).__name__}: {said}. Mend it there first.") from error


def _module(place: str) -> ModuleType:
    if place.endswith(".py"):
        return _from_file(Path(place).expanduser())
    with _importable(Path.cwd()):
        try:
            return importlib.import_module(place)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{place}.".startswith(f"{error.name}."):
                raise
            raise ValueError(
                f"There is no module {place!r} (looked in the installed packages and {Path.cwd()}). Expected "
                "module:function or file.py:function."
            ) from error


def _built(spec: str) -> nn.Module:
    place, _, name = spec.rpartition(":")
    module = _module(place)
    if not hasattr(module, name):
        there = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        close = get_close_matches(name, there, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        shown = ", ".join(there[:8]) or "nothing that can be called"
        raise ValueError(f"{place} has no {name!r}; it has {shown}.{hint}")
    found = getattr(module, name)
    if not isinstance(found, nn.Module):
        if not callable(found):
            raise ValueError(
                f"{spec} is of type {type(found).__name__}; expected a function that takes nothing and "
                "returns a torch.nn.Module."
            )
        try:
            with _blamed(spec):
                found = found()
        except ValueError as error:
            if "required positional argument" not in str(error):
                raise
            raise ValueError(f"{spec} cannot be called without arguments ({error}); wrap it.") from error
    if not isinstance(found, nn.Module):
        raise ValueError(f"{spec} returned {type(found).__name__}; expected a torch.nn.Module.")
    return found


def _check_classes(model: nn.Module, spec: str, classes: int, image_shape: tuple[int, int, int]) -> None:
    model.eval()
    try:
        with torch.no_grad():
            logits = model(torch.zeros(2, *image_shape))
    except RuntimeError as error:
        raise ValueError(
            f"The model {spec} does not take images [B, {', '.join(map(str, image_shape))}]: {error}"
        ) from error
    found = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if found != [2, classes]:
        raise ValueError(
            f"The model {spec} answers two images with {found}; expected logits [2, {classes}], one for each "
            "class of the data. Take the model that belongs to this data set."
        )


def _published(spec: str, weights: str | Path | None) -> nn.Module:
    build, origin = _PUBLISHED[spec]
    if weights is None:
        raise ValueError(f"The model {spec!r} brings no weights; pass a file (--weights FILE): {origin}.")
    return build(weights)


def load_model(
    spec: str,
    weights: str | Path | None = None,
    *,
    classes: int | None = None,
    image_shape: tuple[int, int, int] = (3, 32, 32),
    progress: Progress | None = None,
) -> nn.Module:
    """A model by name or from the user's code, in evaluation mode.

    Arguments:
        spec: `cifar10-resnet20` or `digits-resnet`; their likes with group norm, `cifar10-resnet20-gn` and
            `digits-resnet-gn`, and transformers, `cifar10-vit` and `digits-vit`; `wrn-28-10`, `wrn-16-4`,
            `resnext-29` or `resnet-50`; or `module:function` or `file.py:function`, where the function takes
            nothing and returns a `torch.nn.Module` (a class or a module will do, too).
        weights: a checkpoint, see `load_weights`. The first two have weights of their own where none are given,
            see `source_model`; the next four those that `acclimate train NAME` keeps, which on the digits happens
            by itself; the others need a file.
        classes: refuse a model which does not answer with so many logits.
        image_shape: channels, height, width of the images for that check.
        progress: called after each epoch if a built-in model has to be trained first.

    Raises:
        ValueError: no such name, module or function; not a module; weights or classes which do not fit.
        FileNotFoundError: no such file.

    >>> type(load_model("torch.nn:Identity")).__name__
    'Identity'
    """
    if spec in _OWN:
        build, dataset = _OWN[spec]
        model = source_model(dataset, progress=progress) if weights is None else build(weights)
    elif spec in _TRAINED:
        model = trained(spec, progress=progress) if weights is None else RECIPES[spec].build(weights)
    elif spec in _PUBLISHED:
        model = _published(spec, weights)
    elif ":" in spec:
        model = _built(spec)
        if weights is not None:
            load_weights(model, weights)
    else:
        close = get_close_matches(spec, BUILT_IN, n=1)
        hint = f"Did you mean {close[0]!r}? " if close else ""
        raise ValueError(
            f"There is no model {spec!r}. {hint}There are: {', '.join(BUILT_IN)}; your own is "
            "module:function or file.py:function."
        )
    if classes is not None:
        _check_classes(model, spec, classes, image_shape)
    return model.eval()
