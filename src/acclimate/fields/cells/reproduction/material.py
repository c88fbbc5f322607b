"""Laboratories, and the features of their cells by row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from acclimate.core.storage import fingerprint
from acclimate.fields.cells.classify.pixels import raw_pixels
from acclimate.fields.cells.coding import measured, room_of, train_codes
from acclimate.fields.cells.data.laboratory import Laboratory
from acclimate.fields.cells.embedding.learning import level, means
from acclimate.fields.cells.embedding.views import Views, look
from acclimate.fields.cells.pipeline import CellEncoder
from acclimate.fields.cells.plan import Plan
from acclimate.fields.cells.reproduction.rows import Row
from acclimate.fields.cells.sam.identity import content
from acclimate.fields.cells.sam.low_rank import without_adapters
from acclimate.fields.cells.sam.segmenter import Segmenter
from acclimate.fields.cells.segmenting import Stage, train_masks

__all__ = ["Material"]


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
    given: list[str] = field(init=False)
    """Digests of what is neither in the plan nor in the laboratories, taken before any of it is trained."""

    def __post_init__(self) -> None:
        self.given = [] if self.published is None else [fingerprint(self.published)]
        self.given += [content(each) for each in self.teachers]

    @cached_property
    def segmenter(self) -> Segmenter:
        """Trained on the masks there are."""
        labs = self.teachers or list(self.laboratories.values())
        return train_masks(labs, self.plan, self.folder, published=self.published, progress=self.progress)

    @cached_property
    def views(self) -> dict[str, Views]:
        """By laboratory, as they are seen."""
        return {name: self._look(each) for name, each in self.laboratories.items()}

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
        kind, _, how = row.key.partition(":")
        if kind in ("pixels", "hand-made"):
            found = self._measured(kind)
            return {name: level(each) for name, each in found.items()} if how else found
        if row.key == "sam:start":
            with without_adapters(self.segmenter):
                return {name: means(self._look(each).features) for name, each in labs.items()}
        if row.key == "sam":
            return {name: means(each.features) for name, each in self.views.items()}
        encoder = self.encoder(self.plan_of(row, seed))
        return {name: encoder.codes(each) for name, each in self.standard.items()}

    def _measured(self, kind: str) -> dict[str, Tensor]:
        if kind == "hand-made":
            return {name: measured(each) for name, each in self.views.items()}
        return {name: torch.as_tensor(raw_pixels(each.images)) for name, each in self.laboratories.items()}

    def encoder(self, plan: Plan) -> CellEncoder:
        """With the autoencoder of a plan that differs from the own one in that alone, trained."""
        autoencoder = plan.autoencoder()
        if autoencoder is not None:
            labs = list(self.laboratories.values())
            train_codes(
                autoencoder,
                self.segmenter,
                labs,
                plan,
                self.folder,
                lambda: list(self.standard.values()),
                progress=self.progress,
            )
        return CellEncoder(plan, self.segmenter, autoencoder)

    def _look(self, laboratory: Laboratory) -> Views:
        def tell(done: int, total: int) -> None:
            if self.progress is not None:
                self.progress(f"seeing {laboratory.name}", done, total)

        plan = self.plan
        return look(
            self.segmenter,
            laboratory,
            sides=plan.sides,
            picture=plan.picture,
            own_colours=plan.own,
            room=room_of(plan, self.folder),
            progress=tell,
        )
