"""What there is to choose between pictures of cells and their codes."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from acclimate.core.config import between, one_of, whole
from acclimate.fields.cells.embedding.autoencoder import Autoencoder
from acclimate.fields.cells.embedding.bcsam import BCSAM
from acclimate.fields.cells.embedding.dorl import DoRL
from acclimate.fields.cells.embedding.learning import CodeTraining
from acclimate.fields.cells.sam.learning import MaskTraining
from acclimate.fields.cells.sam.sizes import SIZES

__all__ = ["METHODS", "PAPER", "Plan"]

METHODS = ("dorl", "bcsam", "none", "hand-made")
"""Autoencoders by name; none: the mean of the feature map over places; hand-made: shape and colour, see `hand_made`, on
predicted masks."""

_START = MaskTraining(epochs=8, batch_size=16, learning_rate=1e-3, weight_decay=0.05, stain=0.5, own_colours=True)
_MASKS = MaskTraining(epochs=25, batch_size=16, learning_rate=2e-3, weight_decay=0.05, stain=0.5, own_colours=True)
_CODES = {
    "dorl": CodeTraining(epochs=20, batch_size=32, learning_rate=1e-3),
    "bcsam": CodeTraining(epochs=10, batch_size=64, learning_rate=1e-3),
}
_PUBLISHED = {
    "dorl": CodeTraining(epochs=300, batch_size=64, learning_rate=1e-4),
    "bcsam": CodeTraining(),
}
_SMALLER: Mapping[str, Mapping[str, Any]] = {
    "dorl": {
        "depth": 3,
        "decoder_depth": 1,
        "heads": 4,
        "share": 0.125,
        "pairs": "all",
        "aligned": "code",
        "domain_weight": 10.0,
    },
    "bcsam": {"inner": 128, "share": 0.125, "pairs": "all"},
}
_GIVEN = frozenset({"self", "channels", "grid", "picture", "seed"})
"""Arguments of autoencoders that a plan gives by itself."""

_SETTINGS: Mapping[str, frozenset[str]] = {
    "dorl": frozenset(inspect.signature(DoRL.__init__).parameters) - _GIVEN,
    "bcsam": frozenset(inspect.signature(BCSAM.__init__).parameters) - _GIVEN,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """All choices of a pipeline; those of the papers, on an encoder that comes trained, are `PAPER`.

    Arguments:
        method: one of `METHODS`.
        size: of the segmenter, one of `SIZES`.
        parts: 2, cell and background as published, or 3, the nucleus too.
        rank: of the adapters, 1 to the segmenter's width.
        start: how all weights are trained on made-up cells before any adapter is; None for an encoder that comes
            trained, see `train_encoder`.
        masks: how the masks of real cells are learned.
        sides: from how many sides cells are seen, 1 as published, up to 8; for hand-made features always one.
        picture: pixels of a side of what the autoencoder draws.
        own: whether colours, feature maps, pictures and codes of each laboratory are brought to common means and
            deviations. `own_colours` of `start` and `masks` are made to agree: cells are seen as masks were learned.
        training: of the autoencoder; by default as published, or what suits it at small sizes.
        settings: of the autoencoder, its arguments by name. One that another of `METHODS` has and this one lacks is
            left out, so that one plan serves to compare them.
        seed: of everything.

    Raises ValueError for a number out of range, for a setting that no method has, and for hand-made features without
    the nucleus, which they measure.
    """

    method: str = "dorl"
    size: str = "small"
    parts: int = 3
    rank: int = 4
    start: MaskTraining | None = _START
    masks: MaskTraining = _MASKS
    sides: int = 8
    picture: int = 64
    own: bool = True
    training: CodeTraining | None = None
    settings: dict[str, Any] = field(default_factory=dict[str, Any])
    seed: int = 0

    def __post_init__(self) -> None:
        one_of(*METHODS, method=self.method)
        one_of(*SIZES, size=self.size)
        whole(1, sides=self.sides, picture=self.picture, rank=self.rank)
        between(1, 8, sides=self.sides)
        between(1, SIZES[self.size].width, rank=self.rank)
        one_of(2, 3, parts=self.parts)
        if self.measured and self.parts == 2:
            raise ValueError(
                "method is 'hand-made' and parts is 2, cell and background; hand-made features measure the nucleus, "
                "too. Take parts=3, or method 'dorl', 'bcsam' or 'none'."
            )
        known = frozenset[str]().union(*_SETTINGS.values())
        for name in self.settings:
            if name not in known:
                raise ValueError(
                    f"no autoencoder has a setting {name!r}, expected some of: {', '.join(sorted(known))}."
                )
        object.__setattr__(self, "masks", replace(self.masks, own_colours=self.own))
        if self.start is not None:
            object.__setattr__(self, "start", replace(self.start, own_colours=self.own))

    def autoencoder(self) -> Autoencoder | None:
        """As it is before training."""
        size = SIZES[self.size]
        settings: dict[str, Any] = {"picture": self.picture, "seed": self.seed, **self.chosen}
        if self.method == "bcsam":
            return BCSAM(size.width, **settings)
        return DoRL(size.width, size.grid, **settings) if self.method == "dorl" else None

    @property
    def measured(self) -> bool:
        """Whether codes are hand-made features of pictures and masks, rather than made of feature maps."""
        return self.method == "hand-made"

    @property
    def seen(self) -> int:
        """From how many sides cells are seen: hand-made features are much the same from each."""
        return 1 if self.measured else self.sides

    @property
    def learned(self) -> CodeTraining:
        """How the autoencoder is trained."""
        return self.training or (_PUBLISHED if self.size == "paper" else _CODES).get(self.method, CodeTraining())

    @property
    def chosen(self) -> dict[str, Any]:
        """Settings of the autoencoder, those of its size among them."""
        own = _SETTINGS.get(self.method, frozenset())
        given = {name: value for name, value in self.settings.items() if name in own}
        return {**({} if self.size == "paper" else _SMALLER.get(self.method, {})), **given}

    def told(self) -> dict[str, Any]:
        """As JSON values, with all that is chosen by itself."""
        start = None if self.start is None else self.start.told()
        trainings = {"start": start, "masks": self.masks.told(), "training": asdict(self.learned)}
        return {**asdict(self), **trainings, "sides": self.seen, "settings": self.chosen}

    @classmethod
    def of(cls, told: dict[str, Any]) -> Plan:
        """What `told` gave."""
        trainings = {name: MaskTraining(**told[name]) for name in ("start", "masks") if told[name] is not None}
        given: dict[str, Any] = {**told, **trainings}
        if told["training"] is not None:
            given["training"] = CodeTraining(**told["training"])
        return cls(**given)

    def digest(self, *parts: str) -> str:
        """Sixteen hexadecimal digits that change with what is named and given."""
        chosen = {name: value for name, value in self.told().items() if name in parts or name in ("size", "seed")}
        return hashlib.sha256(json.dumps([chosen, parts], sort_keys=True).encode()).hexdigest()[:16]


PAPER: Mapping[str, Plan] = {
    method: Plan(
        method=method, size="paper", parts=2, start=None, masks=MaskTraining(), sides=1, picture=128, own=False
    )
    for method in ("bcsam", "dorl")
}
"""As published, for SAM ViT-B."""
