"""From pictures of several laboratories to codes that look past the laboratory: training in resumable stages."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from acclimate.core.storage import atomic_write
from acclimate.fields.cells.coding import looked, measured, room_of, train_codes
from acclimate.fields.cells.data.laboratory import Laboratory
from acclimate.fields.cells.embedding.autoencoder import Autoencoder
from acclimate.fields.cells.embedding.learning import codes, level, means
from acclimate.fields.cells.embedding.views import Views
from acclimate.fields.cells.plan import Plan
from acclimate.fields.cells.sam.files import load_adapter, load_segmenter, save_adapter, save_segmenter
from acclimate.fields.cells.sam.segmenter import Segmenter
from acclimate.fields.cells.segmenting import Stage, filled, train_masks
from acclimate.models.files import write_tensors

__all__ = ["CellEncoder", "Stage", "train_codes", "train_encoder", "train_masks"]

_WHOLE, _ADAPTER = "segmenter.safetensors", "adapter.safetensors"


@dataclass(frozen=True, eq=False, slots=True)
class CellEncoder:
    """A trained pipeline: pictures of a laboratory to codes. What it sees depends a little on which cells come together
    where the plan has each laboratory's `own` colours."""

    plan: Plan
    segmenter: Segmenter
    autoencoder: Autoencoder | None

    def look(self, laboratory: Laboratory, progress: Callable[[int, int], None] | None = None) -> Views:
        """Masks and feature maps, as the autoencoder takes them if there is one."""
        return looked(self.segmenter, self.plan, laboratory, progress)

    def codes(self, views: Views) -> Tensor:
        """Float32 `[N, code]`, of cells of one laboratory that `look` has seen."""
        found = measured(views) if self.plan.measured else self.plain(views.features)
        return level(found) if self.plan.own else found

    def plain(self, features: Tensor) -> Tensor:
        """Codes of feature maps `[V, N, D, g, g]`, not brought to the means and deviations of others. ValueError for
        hand-made features, which are not made of them."""
        if self.plan.measured:
            raise ValueError(
                "method is 'hand-made': its codes are measured on masks, not made of feature maps, so they have no "
                "gradient and no model from pixels to logits can be made of them. For one that adapts, train an "
                "encoder with method 'bcsam', 'dorl' or 'none'; to classify with this one, take CellEncoder.codes."
            )
        return means(features) if self.autoencoder is None else codes(self.autoencoder, features)

    def save(self, folder: str | Path) -> Path:
        """Write plan and weights into a folder; of a segmenter that came trained only what was learned beside it."""
        folder = Path(folder).expanduser()
        whole, adapter = folder / _WHOLE, folder / _ADAPTER
        if self.plan.start is None:
            save_adapter(self.segmenter, adapter)
        else:
            save_segmenter(self.segmenter, whole)
        (whole if self.plan.start is None else adapter).unlink(missing_ok=True)
        if self.autoencoder is not None:
            write_tensors(folder / "autoencoder.safetensors", self.autoencoder.state_dict(), {})
        atomic_write(folder / "plan.json", json.dumps(self.plan.told(), indent=1).encode())
        return folder

    @classmethod
    def load(cls, folder: str | Path, *, published: Segmenter | None = None) -> CellEncoder:
        """What `save` wrote.

        Arguments: `published`, for a plan without `start`, the segmenter that training began with, from `load_sam` with
        the plan's numbers; it is filled in and becomes the encoder's.

        Raises FileNotFoundError and ValueError as usual, and ValueError for a `published` that is missing, of other
        weights, or of no use.
        """
        folder = Path(folder).expanduser()
        if not (folder / "plan.json").is_file():
            raise FileNotFoundError(
                f"there is no plan.json in {folder}, expected a folder that CellEncoder.save wrote."
            )
        try:
            plan = Plan.of(json.loads((folder / "plan.json").read_text(encoding="utf-8")))
            autoencoder = plan.autoencoder()
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{folder / 'plan.json'} holds no plan that can be read ({error}). Train anew.") from error
        if autoencoder is not None:
            filled(autoencoder, folder / "autoencoder.safetensors")
            autoencoder.eval()
        return cls(plan, _segmenter(folder, plan, published), autoencoder)


def _segmenter(folder: Path, plan: Plan, published: Segmenter | None) -> Segmenter:
    if not (folder / _ADAPTER).is_file():
        if published is not None:
            raise ValueError(f"{folder} holds all of its segmenter, expected no published=. Leave it out.")
        return load_segmenter(folder / _WHOLE)
    if published is None:
        raise ValueError(
            f"{folder} holds what was learned beside published weights, and these were not given. Pass the ones it was "
            f'trained on: published=load_sam("facebook/sam-vit-base", parts={plan.parts}, rank={plan.rank}).'
        )
    return load_adapter(published, folder / _ADAPTER)


def train_encoder(
    laboratories: Sequence[Laboratory],
    plan: Plan,
    folder: str | Path,
    *,
    published: Segmenter | None = None,
    progress: Stage | None = None,
) -> CellEncoder:
    """Train all of a plan on laboratories, at least one of which has masks; no label is used.

    What a stage has learned is kept in `folder` and taken from there the next time, and an interrupted stage goes on.

    Arguments: `published`, from `load_sam`, for a plan without `start`: the segmenter whose adapters are trained.

    Raises ValueError for pictures of another size than the segmenter's, where no mask is known, and for a plan without
    `start` or `published`, with both, or with other numbers than `published`; and where features are hand-made and no
    mask shows a nucleus.
    """
    autoencoder = plan.autoencoder()
    if plan.measured:
        _check_nuclei(laboratories)
    segmenter = train_masks(laboratories, plan, folder, published=published, progress=progress)
    room = room_of(plan, folder)

    def seen() -> list[Views]:
        told = [_counted(f"seeing {each.name}", progress) for each in laboratories]
        return [looked(segmenter, plan, *each, room) for each in zip(laboratories, told, strict=True)]

    if autoencoder is not None:
        train_codes(autoencoder, segmenter, laboratories, plan, folder, seen, progress=progress)
    return CellEncoder(plan, segmenter, autoencoder)


def _check_nuclei(laboratories: Sequence[Laboratory]) -> None:
    masks = [each.masks[each.masked] for each in laboratories if each.masks is not None]
    if any(map(len, masks)) and not any(bool((each == 2).any()) for each in masks):
        raise ValueError(
            f"{', '.join(each.name for each in laboratories)}: no mask shows a nucleus, and hand-made features measure "
            "it. Draw masks with 0 background, 128 cytoplasm and 255 nucleus for some cells, add laboratories that "
            "have such (wbc:jtsc wbc:cellavision), or take method dorl, bcsam or none."
        )


def _counted(what: str, progress: Stage | None) -> Callable[[int, int], None] | None:
    return None if progress is None else lambda done, total: progress(what, done, total)
