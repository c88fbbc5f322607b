"""The autoencoder of a plan: trained on what a segmenter sees, or found finished."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from acclimate.core.storage import fingerprint
from acclimate.fields.cells.data.laboratory import Laboratory
from acclimate.fields.cells.embedding.autoencoder import Autoencoder
from acclimate.fields.cells.embedding.learning import train_autoencoder
from acclimate.fields.cells.embedding.views import Views, look
from acclimate.fields.cells.plan import Plan
from acclimate.fields.cells.sam.identity import content
from acclimate.fields.cells.sam.segmenter import Segmenter
from acclimate.fields.cells.segmenting import Stage, filled, told

__all__ = ["looked", "room_of", "train_codes"]


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
    options: dict[str, Any] = {"sides": plan.sides, "picture": plan.picture, "own_colours": plan.own}
    seen = look(segmenter, laboratory, **options, room=room, progress=progress)
    return seen.standard() if plan.own else seen
