"""Rankers by name."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Mapping, Sequence
from typing import Any

from acclimate.core.config import one_of, whole
from acclimate.fields.recommendation.models import architectures
from acclimate.fields.recommendation.models.ranker import FILED, Ranker, checked_sizes
from acclimate.models.initial import private_init
from acclimate.streams.segments import suggest

__all__ = ["MODELS", "WIDTHS", "build", "option_names"]

for _module in pkgutil.iter_modules(architectures.__path__):
    importlib.import_module(f"{architectures.__name__}.{_module.name}")

MODELS: Mapping[str, type[Ranker]] = FILED
"""Every ranker by name; a class of yours is among them once it is registered with `ranker.register`."""

WIDTHS = {"published": 16, "small": 10}
"""Embedding widths of the presets."""


def build(
    name: str,
    sizes: Sequence[int],
    *,
    width: int | None = None,
    seed: int = 0,
    preset: str = "published",
    **options: Any,
) -> Ranker:
    """A ranker with fresh weights, in training mode.

    Arguments:
        name: one of `MODELS`.
        sizes: how many ids each field has.
        width: numbers of an embedding; None for the preset's. RankMixer takes the next multiple of its tokens.
        seed: of the initial weights; the global generator does not move.
        preset: "published", or "small" for some ten thousand rows: width 10, MLP of 128 and 64, dropout 0.2.
        options: of this model, in place of the preset's.

    Raises:
        ValueError: an unknown name, preset or option, or a value that the model cannot have.

    >>> build("fnn", [5, 7], preset="small").options()
    {'mlp_dims': [128, 64], 'dropout': 0.2, 'bn': False}
    """
    cls = _named(name)
    one_of(*cls.presets, preset=preset)
    whole(0, seed=seed)
    known = option_names(name)
    for key in options:
        if key not in known:
            raise ValueError(f"{name} has no option {key!r}. Its options: {', '.join(known) or 'none'}.")
    fields = len(checked_sizes(sizes))
    values = {**cls.presets[preset], **options}
    fitting = cls.fitting(WIDTHS[preset] if width is None else width, fields, values)
    with private_init(seed):
        return cls(sizes, fitting, **values)


def option_names(name: str) -> tuple[str, ...]:
    """What `build` can be told of this ranker beside sizes, width and seed; ValueError for an unknown name.

    >>> option_names("dcnv2")
    ('cross', 'mlp_dims', 'dropout', 'bn')
    """
    return tuple(key for key in inspect.signature(_named(name)).parameters if key not in ("sizes", "width"))


def _named(name: str) -> type[Ranker]:
    if name not in MODELS:
        raise ValueError(f"there is no ranker {name!r}. {suggest(name, sorted(MODELS))}")
    return MODELS[name]
