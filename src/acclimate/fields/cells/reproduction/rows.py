"""What is compared: features of cells, from pixels to codes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from acclimate.fields.cells.classify.hand_made import hand_made
from acclimate.fields.cells.classify.pixels import raw_pixels
from acclimate.fields.cells.data.laboratory import Laboratory
from acclimate.fields.cells.embedding.views import Views, look
from acclimate.fields.cells.pipeline import CellEncoder, train_codes
from acclimate.fields.cells.plan import Plan
from acclimate.fields.cells.sam.low_rank import without_adapters
from acclimate.fields.cells.sam.segmenter import Segmenter
from acclimate.fields.cells.segmenting import Stage, train_masks

__all__ = ["ROWS", "Material", "Row", "chosen_rows"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A kind of features.

    Arguments: `key`, as on the command line; `title`, as in tables; `method`, the autoencoder, if there is one;
    `settings`, of the autoencoder, beside the plan's; `seeded`, whether it differs from seed to seed.
    """

    key: str
    title: str
    method: str = "none"
    settings: tuple[tuple[str, float | str], ...] = ()

    @property
    def seeded(self) -> bool:
        return self.method != "none"


ROWS: Mapping[str, Row] = {
    row.key: row
    for row in (
        Row(key="pixels", title="raw pixels, 16 x 16"),
        Row(key="hand-made", title="hand-made shape and colour, on predicted masks"),
        Row(key="sam:start", title="SAM features, without adapters"),
        Row(key="sam", title="SAM features, without an autoencoder"),
        Row(key="sam:standard", title="the same, standardised in each laboratory"),
        Row(
            key="bcsam:free", title="BC-SAM without its domain loss", method="bcsam", settings=(("domain_weight", 0.0),)
        ),
        Row(key="bcsam", title="BC-SAM", method="bcsam"),
        Row(key="dorl:free", title="DoRL without its domain loss", method="dorl", settings=(("domain_weight", 0.0),)),
        Row(
            key="dorl:map",
            title="DoRL, domain loss on the map as published",
            method="dorl",
            settings=(("aligned", "map"),),
        ),
        Row(key="dorl", title="DoRL", method="dorl"),
    )
}
"""By key, in the order of the tables."""


def chosen_rows(names: Sequence[str] = ()) -> list[Row]:
    """The rows of these keys, all by default. ValueError for another key."""
    unknown = [name for name in names if name not in ROWS]
    if unknown:
        raise ValueError(f"there is no row {unknown[0]!r}, expected some of: {', '.join(ROWS)}.")
    return [row for row in ROWS.values() if not names or row.key in names]


@dataclass(eq=False)
class Material:
    """Laboratories, and what is seen in them once it is asked for."""

    laboratories: Mapping[str, Laboratory]
    plan: Plan
    folder: Path
    published: Segmenter | None = None
    teachers: Sequence[Laboratory] = ()
    """Laboratories that masks are learned from, where they are others."""
    progress: Stage | None = None

    @cached_property
    def segmenter(self) -> Segmenter:
        """Trained on the masks there are."""
        labs = self.teachers or list(self.laboratories.values())
        return train_masks(labs, self.plan, self.folder, published=self.published, progress=self.progress)

    @cached_property
    def views(self) -> dict[str, Views]:
        """By laboratory, as they are seen."""
        return {name: self._look(self.segmenter, each, self.plan.sides) for name, each in self.laboratories.items()}

    @cached_property
    def standard(self) -> dict[str, Views]:
        """By laboratory, as autoencoders take them."""
        return {name: each.standard() if self.plan.own else each for name, each in self.views.items()}

    def plan_of(self, row: Row, seed: int) -> Plan:
        """What a row's features are made by."""
        return replace(self.plan, method=row.method, seed=seed, settings={**self.plan.settings, **dict(row.settings)})

    def features(self, row: Row, seed: int) -> dict[str, Tensor]:
        """Float32 `[N, D]`, by laboratory."""
        labs = self.laboratories
        if row.key == "pixels":
            return {name: torch.as_tensor(raw_pixels(each.images)) for name, each in labs.items()}
        if row.key == "hand-made":
            masks = {name: each.masks for name, each in self.views.items()}
            return {name: torch.as_tensor(hand_made(each.images, masks[name])) for name, each in labs.items()}
        if row.key == "sam:start":
            with without_adapters(self.segmenter):
                return {name: _mean(self._look(self.segmenter, each, 1)) for name, each in labs.items()}
        if row.key == "sam":
            return {name: _mean(each) for name, each in self.views.items()}
        plan = self.plan_of(row, seed)
        autoencoder = plan.autoencoder()
        if autoencoder is not None:
            train_codes(autoencoder, list(self.standard.values()), plan, self.folder, progress=self.progress)
        encoder = CellEncoder(plan, self.segmenter, autoencoder)
        return {name: encoder.codes(each) for name, each in self.standard.items()}

    def _look(self, model: Segmenter, laboratory: Laboratory, sides: int) -> Views:
        def tell(done: int, total: int) -> None:
            if self.progress is not None:
                self.progress(f"seeing {laboratory.name}", done, total)

        plan = self.plan
        return look(model, laboratory, sides=sides, picture=plan.picture, own_colours=plan.own, progress=tell)


def _mean(seen: Views) -> Tensor:
    return torch.stack([each.float().mean((2, 3)) for each in seen.features]).mean(0)
