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

import torch

from acclimate.core.method import Method, methods
from acclimate.core.normalization import Normalization, normalizations
from acclimate.methods.auto import Auto
from acclimate.methods.bn import BN
from acclimate.methods.cotta import CoTTA
from acclimate.methods.datta import DATTA
from acclimate.methods.deyo import DeYO
from acclimate.methods.ecotta import EcoTTA
from acclimate.methods.eta import ETA
from acclimate.methods.foa import FOA
from acclimate.methods.law import LAW
from acclimate.methods.moetta import MoETTA
from acclimate.methods.nctta import NCTTA
from acclimate.methods.palm import PALM
from acclimate.methods.rdumb import RDumb
from acclimate.methods.roid import ROID
from acclimate.methods.sar import SAR
from acclimate.methods.t3a import T3A
from acclimate.methods.tent import Tent
from acclimate.normalization.decaying import DecayingStatistics
from acclimate.normalization.diversity import DiversityStatistics
from acclimate.normalization.learned_mixture import LearnedMixture
from acclimate.normalization.shallow import ShallowStatistics
from acclimate.parts.diversity.quantile import Quantile

from .models import images

__all__ = ["DECLARATIONS", "DEFAULT", "Declaration", "normalization_specs", "subjects"]


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

_LABELLED = (torch.cat([images(number) for number in range(50, 53)]), torch.arange(24) % 5)

_FEW_COPIES = DecayingStatistics(copies=2, samples=20)  # enough for two batches and a half
_LEARNED_MIXTURE = LearnedMixture(source=_LABELLED, epochs=1, batch_size=8)

DECLARATIONS: dict[str, Declaration] = {
    "bn": Declaration(
        variants=(
            BN(normalization="instance"),
            BN(normalization="trimmed"),
            BN(normalization="unmix"),
            BN(normalization="tema"),
            BN(normalization=_FEW_COPIES),
        )
    ),
    "auto": Declaration(
        settings={"limit": 2.0, "rows": 1.0, "learner": PALM(consistency=0.0, margin=1.5)},  # none cluster so much
        variants=(
            Auto(limit=2.0, rows=1.0, learner="tent", normalization=ShallowStatistics(groups="always", follow=True)),
        ),
    ),
    "surgical": Declaration(model="residual"),
    "cotta": Declaration(
        settings={"threshold": 1.0, "copies": 4},  # the gate open
        variants=(CoTTA(threshold=0.32, copies=3, rows_at_once=16, normalization="ema"),),
    ),
    "datta": Declaration(
        settings={"discriminator": Quantile(warm_up=2, share=1.0)},  # mixed at first, then one domain
        variants=(
            DATTA(
                discriminator=Quantile(warm_up=2, share=1.0),
                normalization=DiversityStatistics(single="ema", multiple="instance_aware", kept=3),
            ),
            DATTA(discriminator=Quantile(warm_up=2, share=1.0), normalization=DiversityStatistics(soft=True)),
            DATTA(discriminator=Quantile(warm_up=2, share=1.0), normalization="batch", steps=2),
        ),
    ),
    "dss": Declaration(settings={"threshold": 1.0, "copies": 4}),
    "memo": Declaration(settings={"copies": 3}),
    "law": Declaration(variants=(LAW(carry_gradients=True),)),
    "note": Declaration(settings={"capacity": 8, "update_every": 8}),
    "rotta": Declaration(settings={"capacity": 8, "update_every": 8}),
    "eata": Declaration(settings={"source": torch.cat([images(number) for number in range(50, 53)])}),
    "ecotta": Declaration(
        model="residual",
        settings={"source": _LABELLED, "parts": 2, "warm_up_epochs": 2, "warm_up_batch": 8},
        variants=(EcoTTA(source=_LABELLED, two_step=False, margin=1.0, warm_up_epochs=0, normalization="ema"),),
    ),
    "foa": Declaration(
        model="class_token_vit",
        settings={"source": torch.cat([images(number) for number in range(50, 53)]), "population": 5},
        variants=(FOA(source=images(50), population=6, prompts=2, leading=0, rows_at_once=16),),
    ),
    "nctta": Declaration(
        variants=(NCTTA(entropy_coeff=0.95, alignment="cosine_l2", detach_target=True, normalization="source"),)
    ),
    "eta": Declaration(variants=(ETA(margin=0.92, diversity=0.999, normalization="source"),)),
    "sar": Declaration(variants=(SAR(margin=0.95, recovery=0.5, normalization="source"),)),
    "deyo": Declaration(
        settings={"drop": 0.05}, variants=(DeYO(margin=0.95, drop=0.01, destroy="pixel", normalization="source"),)
    ),
    "roid": Declaration(variants=(ROID(prior="none", batch_size=16),)),
    "moetta": Declaration(
        model="residual",
        variants=(MoETTA(experts=8, active=2, route_penalty=0.01, randomness=0.1, normalization="ema"),),
    ),
    "t3a": Declaration(variants=(T3A(filter_size=2),)),
    "adacontrast": Declaration(settings={"queue_size": 20, "warm_up": 12}),
    "rdumb": Declaration(variants=(RDumb(reset_every=2, diversity=0.9),)),
    "tent": Declaration(
        variants=(
            Tent(normalization="ema"),
            Tent(steps=2, episodic=True, optimizer="sgd"),
            Tent(normalization=_LEARNED_MIXTURE),
            Tent(episodic=True, normalization=_FEW_COPIES),
        )
    ),
    "palm": Declaration(
        variants=(
            PALM(threshold=1e9, normalization="ema"),
            PALM(threshold=1e9, granularity="element", consistency=0.0, margin=1.5, weight_decay=0.01),
            PALM(score="none", adam="persistent", optimizer="lars", learning_rate=0.1, consistency=0.1),
            PALM(score="none", adam="persistent", optimizer="prodigy", learning_rate=1.0, consistency=0.1),
        )
    ),
}


def normalization_specs() -> dict[str, str | Normalization]:
    """Every normalisation by name, ready to be built: with source images where it measures them."""
    given: dict[str, str | Normalization] = {"ttn": _LEARNED_MIXTURE, "dua": _FEW_COPIES}
    return {name: given.get(name, name) for name in normalizations.classes()}


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
