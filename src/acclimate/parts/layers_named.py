"""Layers by name, by stage or by depth."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from torch import nn

from acclimate.anatomy import blocks, stages

__all__ = ["first_layers", "layers_named"]


def first_layers(model: nn.Module, names: Sequence[str], share: float) -> set[str]:
    """The first `share` of the layers `names` of a model, rounded up, and on to the end of a block."""
    end = ceil(share * len(names))
    last = names[end - 1] if end else ""
    home = next((f"{block}." for block in blocks(model) if last.startswith(f"{block}.")), None)
    return {name for place, name in enumerate(names) if place < end or (home and name.startswith(home))}


def layers_named(
    model: nn.Module, names: Sequence[str], layers: Sequence[str] = (), numbers: Sequence[int] = ()
) -> set[str]:
    """Those of `names` that are among `layers`, or in modules of such a name, or in the stages of these numbers.

    Stages of blocks count from 1; what precedes the blocks belongs to the first. ValueError for what there is not.
    """
    groups = [tuple(f"{name}." for name in stage) for stage in stages(model)]
    unknown = [f"stage {number}" for number in numbers if not 1 <= number <= len(groups)]
    unknown += [given for given in layers if not any(f"{name}.".startswith(f"{given}.") for name in names)]
    if unknown:
        raise ValueError(
            f"there is no {', no '.join(unknown)} in {type(model).__name__}: it has {len(groups)} stages, and these "
            f"layers: {', '.join(names)}. Name some of them."
        )
    inside = tuple(f"{given}." for given in layers) + tuple(home for number in numbers for home in groups[number - 1])
    anywhere = tuple(home for group in groups for home in group)
    stem = next((place for place, name in enumerate(names) if name.startswith(anywhere)), 0) if 1 in numbers else 0
    return {name for place, name in enumerate(names) if place < stem or f"{name}.".startswith(inside)}
