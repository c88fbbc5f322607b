"""From pictures of several laboratories to codes that look past the laboratory: training in resumable stages."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from acclimate.core.storage import atomic_write
from acclimate.fields.cells.data.laboratory import Laboratory
from acclimate.fields.cells.embedding.autoencoder import Autoencoder
from acclimate.fields.cells.embedding.learning import codes, level, train_autoencoder
from acclimate.fields.cells.embedding.views import Views, look
from acclimate.fields.cells.plan import Plan
from acclimate.fields.cells.sam.files import load_segmenter, save_segmenter
from acclimate.fields.cells.sam.segmenter import Segmenter
from acclimate.fields.cells.segmenting import Stage, filled, told, train_masks
from acclimate.models.files import write_tensors

__all__ = ["CellEncoder", "Stage", "train_codes", "train_encoder", "train_masks"]


@dataclass(frozen=True, eq=False, slots=True)
class CellEncoder:
    """A trained pipeline: pictures of a laboratory to codes. What it sees depends a little on which cells come together
    where the plan has each laboratory's `own` colours."""

    plan: Plan
    segmenter: Segmenter
    autoencoder: Autoencoder | None

    def look(self, laboratory: Laboratory, progress: Callable[[int, int], None] | None = None) -> Views:
        """Masks and feature maps, as the autoencoder takes them."""
        return _looked(self.segmenter, self.plan, laboratory, progress)

    def codes(self, views: Views) -> Tensor:
        """Float32 `[N, code]`, of cells of one laboratory that `look` has seen."""
        if self.autoencoder is None:
            found = views.features.float().mean((0, 3, 4))
        else:
            found = codes(self.autoencoder, views.features)
        return level(found) if self.plan.own else found

    def save(self, folder: str | Path) -> Path:
        """Write plan and weights into a folder."""
        folder = Path(folder).expanduser()
        save_segmenter(self.segmenter, folder / "segmenter.safetensors")
        if self.autoencoder is not None:
            write_tensors(folder / "autoencoder.safetensors", self.autoencoder.state_dict(), {})
        atomic_write(folder / "plan.json", json.dumps(self.plan.told(), indent=1).encode())
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> CellEncoder:
        """What `save` wrote. FileNotFoundError and ValueError as usual."""
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
        return cls(plan, load_segmenter(folder / "segmenter.safetensors"), autoencoder)


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
    `start` or `published`, with both, or with other numbers than `published`.
    """
    autoencoder = plan.autoencoder()
    segmenter = train_masks(laboratories, plan, folder, published=published, progress=progress)
    if autoencoder is not None:
        seen = [_looked(segmenter, plan, each, _counted(f"seeing {each.name}", progress)) for each in laboratories]
        train_codes(autoencoder, seen, plan, folder, progress=progress)
    return CellEncoder(plan, segmenter, autoencoder)


def train_codes(
    autoencoder: Autoencoder, seen: Sequence[Views], plan: Plan, folder: str | Path, *, progress: Stage | None = None
) -> None:
    """Train the autoencoder of a plan on what was seen, or take it from where it was left in `folder`."""
    digest = plan.digest("method", "start", "parts", "rank", "masks", "sides", "picture", "own", "training", "settings")
    kept = Path(folder).expanduser() / f"{plan.method}-{digest}-{_fingerprint(seen)}.safetensors"
    if kept.is_file():
        filled(autoencoder, kept)
    else:
        train_autoencoder(autoencoder, seen, plan.learned, kept, seed=plan.seed, progress=told(plan.method, progress))
    autoencoder.eval()


def _looked(
    segmenter: Segmenter, plan: Plan, laboratory: Laboratory, progress: Callable[[int, int], None] | None
) -> Views:
    seen = look(segmenter, laboratory, sides=plan.sides, picture=plan.picture, own_colours=plan.own, progress=progress)
    return seen.standard() if plan.own else seen


def _counted(what: str, progress: Stage | None) -> Callable[[int, int], None] | None:
    return None if progress is None else lambda done, total: progress(what, done, total)


def _fingerprint(seen: Sequence[Views]) -> str:
    digest = hashlib.sha256()
    for each in seen:
        for tensor in (each.features, each.pictures):
            digest.update(f"{list(tensor.shape)}".encode())
            digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
