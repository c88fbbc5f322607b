"""Whose cells are compared: the four laboratories at hand, or the papers' own data."""

from __future__ import annotations

from pathlib import Path

from acclimate.fields.cells.data.classes import FOUR
from acclimate.fields.cells.data.layouts import acevedo, matek
from acclimate.fields.cells.data.wbc import laboratories
from acclimate.fields.cells.plan import PAPER, Plan
from acclimate.fields.cells.reproduction.material import Material
from acclimate.fields.cells.sam.loading import load_sam
from acclimate.fields.cells.sam.sizes import SIZES

__all__ = ["gathered"]

_PAPERS = {"matek": matek, "acevedo": acevedo}
_SAM = "facebook/sam-vit-base"


def gathered(folder: Path, data: str | Path | None, model: str | Path | None, plan: Plan | None) -> Material:
    """What `reproduce_cells` compares, not looked at yet.

    Raises ValueError for `model` without the papers' folders or one of these folders without the other.
    """
    found = [name for name in _PAPERS if data is not None and (Path(data).expanduser() / name).is_dir()]
    if len(found) == len(_PAPERS):
        return _of_papers(folder, Path(data or "").expanduser(), model or _SAM, plan or PAPER["dorl"])
    if found or model is not None:
        raise ValueError(
            f"found {', '.join(found) or 'no folder matek or acevedo'} in {data}, expected both, since model= or one "
            "of them was given. Unpack the other beside it, or leave the four laboratories their own segmenter."
        )
    plan = plan or Plan()
    labs = laboratories(SIZES[plan.size].image, data)
    return Material({name: each.of_classes(FOUR) for name, each in labs.items()}, plan, folder)


def _of_papers(folder: Path, data: Path, model: str | Path, plan: Plan) -> Material:
    """Masks come from the two laboratories of the shared archives that have some; the papers' own are not public."""
    size = SIZES[plan.size].image
    labs = {name: read(data / name, size=size) for name, read in _PAPERS.items()}
    teachers = [each for each in laboratories(size).values() if bool(each.masked.any())]
    sam = load_sam(model, image_size=size, parts=plan.parts, rank=plan.rank, seed=plan.seed)
    return Material(labs, plan, folder, published=sam, teachers=teachers)
