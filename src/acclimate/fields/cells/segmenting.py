"""The segmenter of a plan: trained on made-up cells or published, then on the masks of real ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from torch import nn

from acclimate.core.storage import fingerprint
from acclimate.fields.cells.data.laboratory import Laboratory
from acclimate.fields.cells.data.made_up import made_up
from acclimate.fields.cells.plan import Plan
from acclimate.fields.cells.sam.identity import content
from acclimate.fields.cells.sam.learning import MaskTraining, train_segmenter, with_masks
from acclimate.fields.cells.sam.segmenter import Segmenter
from acclimate.fields.cells.sam.sizes import SIZES
from acclimate.models.files import read_tensors
from acclimate.models.run import Progress

__all__ = ["Stage", "filled", "told", "train_masks"]

Stage = Callable[[str, int, int], None]
"""Progress: what is done, how much of it, of how much."""

_PALETTES, _MADE_UP = 16, 32


def train_masks(
    laboratories: Sequence[Laboratory],
    plan: Plan,
    folder: str | Path,
    *,
    published: Segmenter | None = None,
    progress: Stage | None = None,
) -> Segmenter:
    """The segmenter of a plan, trained on the cells whose masks are known, or as it was left in `folder`.

    Where the plan has a `start`, an encoder for it is trained on made-up cells first and kept in the folder, too; else
    `published` is trained, and changed. Laboratories are taken in the order of their names; labels have no part in it,
    so that a cell that is labelled anew leaves it as it is. Raises ValueError as `train_encoder`.
    """
    folder = Path(folder).expanduser()
    with_masks(laboratories, SIZES[plan.size].image)
    model = _started(plan, folder, progress) if published is None else _fitting(published, plan)
    pairs = sorted((((each.name, content(each)), each) for each in laboratories), key=lambda pair: pair[0])
    ordered = {print_: each for (_, print_), each in pairs}
    names = [*ordered] if published is None else [*ordered, fingerprint(published)]
    kept = folder / f"masks-{plan.digest('start', 'parts', 'rank', 'masks', *names)}.safetensors"
    _trained(model, list(ordered.values()), plan.masks, kept, plan.seed, told("masks", progress))
    return model.eval()


def _started(plan: Plan, folder: Path, progress: Stage | None) -> Segmenter:
    """Trained on made-up cells, with fresh adapters."""
    if plan.start is None:
        raise ValueError(
            "found a plan without start and no published encoder, expected one of them. Pass published="
            'load_sam("facebook/sam-vit-base", parts=plan.parts, rank=plan.rank).'
        )
    size = SIZES[plan.size]
    model = Segmenter(size, parts=plan.parts, rank=0, seed=plan.seed)
    cells = made_up(_MADE_UP, plan.seed, palettes=_PALETTES, size=size.image)
    kept = folder / f"start-{plan.digest('start', 'parts')}.safetensors"
    _trained(model, list(cells.values()), plan.start, kept, plan.seed, told("made-up cells", progress))
    model.adapt(plan.rank, seed=plan.seed + 1)
    return model


def _fitting(model: Segmenter, plan: Plan) -> Segmenter:
    found = {"start": None, "size": model.size.told(), "parts": model.parts, "rank": model.rank}
    wrong = [f"{name} = {getattr(plan, name)!r}" for name, value in found.items() if value != getattr(plan, name)]
    if wrong:
        raise ValueError(f"the plan has {', '.join(wrong)}, expected {found} for this encoder. Change either.")
    return model


def _trained(
    model: Segmenter,
    laboratories: Sequence[Laboratory],
    training: MaskTraining,
    kept: Path,
    seed: int,
    progress: Progress | None,
) -> None:
    if kept.is_file():
        filled(model, kept)
    else:
        train_segmenter(model, laboratories, training, kept, seed=seed, progress=progress)


def filled(model: nn.Module, path: Path) -> None:
    """Take the weights of a stage from its file. ValueError for a damaged one or those of another model."""
    try:
        tensors = read_tensors(path)[0]
    except ValueError as error:
        raise ValueError(f"{error} Or remove {path}: the stage is then done anew.") from error
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"{path} holds another model than the plan names. Remove it, or train anew.") from error


def told(what: str, progress: Stage | None) -> Progress | None:
    """Progress of a training as that of a stage."""
    return None if progress is None else lambda epoch, epochs, loss, right: progress(what, epoch, epochs)
