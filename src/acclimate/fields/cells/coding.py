"""What codes of a plan are made by: what is seen, hand-made features of it, or an autoencoder, trained or found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from acclimate.core.storage import fingerprint
from acclimate.fields.cells.classify.hand_made import hand_made
from acclimate.fields.cells.data.laboratory import Laboratory
from acclimate.fields.cells.embedding.autoencoder import Autoencoder
from acclimate.fields.cells.embedding.learning import train_autoencoder
from acclimate.fields.cells.embedding.views import Views, look
from acclimate.fields.cells.plan import Plan
from acclimate.fields.cells.sam.identity import content
from acclimate.fields.cells.sam.segmenter import Segmenter
from acclimate.fields.cells.segmenting import Stage, filled, told

__all__ = ["looked", "measured", "room_of", "train_codes"]


def room_of(plan: Plan, folder: str | Path) -> Path | None:
    """Where feature maps are kept for as long as they are needed: in the folder at the papers' size, where they are
    gigabytes, and else in memory."""
    return Path(folder).expanduser() if plan.size == "paper" else None


def train_codes(
    autoencoder: Autoencoder,
    segmenter: Segmenter,
    laboratories: Sequence[Laboratory],
    plan: Plan,
    folder: str | Path,
    seen: Callable[[], Sequence[Views]],
    *,
    progress: Stage | None = None,
) -> None:
    """Train the autoencoder of a plan on what `segmenter` sees in laboratories, or take it from `folder`.

    `seen` looks at them, and is called only where nothing finished is found.
    """
    prints = [fingerprint(segmenter), *(content(each, masks=False) for each in laboratories)]
    digest = plan.digest("method", "sides", "picture", "own", "training", "settings", *prints)
    kept = Path(folder).expanduser() / f"{plan.method}-{digest}.safetensors"
    if kept.is_file():
        filled(autoencoder, kept)
    else:
        learned, tell = plan.learned, told(plan.method, progress)
        train_autoencoder(autoencoder, seen(), learned, kept, seed=plan.seed, progress=tell)
    autoencoder.eval()


def looked(
    segmenter: Segmenter,
    plan: Plan,
    laboratory: Laboratory,
    progress: Callable[[int, int], None] | None,
    room: Path | None = None,
) -> Views:
    """What is seen of a laboratory, as the autoencoder takes it if there is one; no more than the plan's codes need."""
    options: dict[str, Any] = {"sides": plan.seen, "picture": plan.picture, "own_colours": plan.own}
    seen = look(segmenter, laboratory, **options, room=room, progress=progress)
    return seen.standard() if plan.own and not plan.measured else seen


def measured(views: Views) -> Tensor:
    """Hand-made features of the pictures as they are, on the predicted masks: float32 `[N, 16]`, see `hand_made`; 0 for
    a cell whose mask is empty."""
    return torch.from_numpy(hand_made(views.images, views.masks))
