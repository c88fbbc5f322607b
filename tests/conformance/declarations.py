"""Which model and stream each method is tested on: the one place to touch when a method is added.

A method without an entry runs on `DEFAULT`, a small batch-norm network on images of 8 x 8, with its default
settings and each of its presets. To test it on another model, or with settings that reach code the presets do
not, or that it cannot do without, add one line to `DECLARATIONS`:

    "mine": Declaration(model="vit", variants=(Mine(every=2),)),

Presets with the settings of an earlier one are run once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from acclimate.core.method import Method, methods
from acclimate.methods.palm import PALM
from acclimate.methods.rdumb import RDumb
from acclimate.methods.tent import Tent

__all__ = ["DECLARATIONS", "DEFAULT", "Declaration", "subjects"]


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """`model` names one of `models.MODELS`; `variants` are further settings to test.

    `settings` replace those of the method and of each preset: source images, or banks and intervals small enough
    for streams of a few batches.
    """

    model: str = "batch_norm"
    variants: tuple[Method, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)


DEFAULT = Declaration()

DECLARATIONS: dict[str, Declaration] = {
    "rdumb": Declaration(variants=(RDumb(reset_every=2, diversity=0.9),)),
    "tent": Declaration(variants=(Tent(normalization="ema"), Tent(steps=2, episodic=True, optimizer="sgd"))),
    "palm": Declaration(
        variants=(
            PALM(threshold=1e9, normalization="ema"),
            PALM(threshold=1e9, granularity="element", consistency=0.0, weight_decay=0.01),
        )
    ),
}


def subjects() -> dict[str, tuple[str | Method, Declaration]]:
    """Every method, preset and variant to test, by a readable name."""
    found: dict[str, tuple[str | Method, Declaration]] = {}
    seen: list[dict[str, object]] = []
    for name, cls in methods.classes().items():
        declared = DECLARATIONS.get(name, DEFAULT)
        named = [name, *(f"{name}:{preset}" for preset in cls.presets)]
        specs: dict[str, str | Method] = {
            label: dataclasses.replace(methods.build(label), **declared.settings) if declared.settings else label
            for label in named
        }
        specs |= {f"{name}-{number}": variant for number, variant in enumerate(declared.variants)}
        for label, spec in specs.items():
            if (config := methods.build(spec).config()) not in seen:
                seen.append(config)
                found[label] = (spec, declared)
    return found
