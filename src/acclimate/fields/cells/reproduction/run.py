"""Everything of the comparison, resumable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from acclimate.experiment.reproduce.part import Shown
from acclimate.experiment.reproduce.write import write_all
from acclimate.fields.cells.classify.classifiers import CLASSIFIERS
from acclimate.fields.cells.plan import Plan
from acclimate.fields.cells.reproduction.bridging import bridged, encoders_of
from acclimate.fields.cells.reproduction.gathering import gathered
from acclimate.fields.cells.reproduction.material import Material
from acclimate.fields.cells.reproduction.rows import chosen_rows
from acclimate.fields.cells.reproduction.tables import shown, shown_published
from acclimate.fields.cells.reproduction.trials import Trial, tried

__all__ = ["reproduce_cells"]

_BRIDGED = {"SAM features": "none", "BC-SAM": "bcsam", "DoRL": "dorl"}
_CLASSIFIERS = ("forest", "boosting", "svm", "neural", "logistic")

Progress = Callable[[int, int, str], None]


def reproduce_cells(
    folder: str | Path,
    *,
    data: str | Path | None = None,
    model: str | Path | None = None,
    methods: Sequence[str] = (),
    classifiers: Sequence[str] = _CLASSIFIERS,
    seeds: Sequence[int] = (0,),
    plan: Plan | None = None,
    progress: Progress | None = None,
) -> tuple[Path, Path]:
    """Compare features on several laboratories, classifiers trained in each and tested in all; tables, one page.

    By default the four laboratories of the shared archives: neutrophils, lymphocytes, monocytes and eosinophils;
    basophils are too few. The segmenter is trained on the masks of two of them, autoencoders on the pictures of all
    four without labels, for each seed anew. Where `data` holds folders `matek` and `acevedo`, these are compared as in
    the papers, on published weights of SAM.

    Arguments: `folder`, for what is trained, trials and tables; `data`, where archives or folders are, the shared
    folder by default; `model`, SAM's weights for the papers' data, see `load_sam`; `methods`, keys of `ROWS`, all by
    default; `classifiers`, of `CLASSIFIERS`: matrices are of "logistic", or else of the last one; `seeds`, of the
    autoencoders; `plan`, the small or the papers' by default, whose settings go to the autoencoders that have them.

    The page is written when all trials are done and, with all rows, once more when a model of each laboratory has
    adapted to the others' streams.

    Returns the paths of the Markdown and the HTML page.
    Raises ValueError for unknown rows or classifiers and settings that fit no autoencoder, before anything is trained,
    and FileNotFoundError where there is no data.
    """
    folder = Path(folder).expanduser()
    unknown = [name for name in classifiers if name not in CLASSIFIERS]
    if unknown or not classifiers or not seeds or len(set(seeds)) != len(seeds):
        raise ValueError(
            f"found classifiers {list(classifiers)} and seeds {list(seeds)}, expected some of {', '.join(CLASSIFIERS)} "
            "and seeds that differ."
        )
    chosen = chosen_rows(methods)
    trials: dict[str, list[Trial]] = {}
    total = sum(len(seeds) if row.seeded else 1 for row in chosen)
    note = ""

    def tell(what: str, done: int, of: int) -> None:
        if progress is not None:
            progress(sum(map(len, trials.values())), total, f"{note}: {what}, {done} of {of}")

    material = gathered(folder, data, model, plan)
    material.progress = tell
    with torch.device("meta"):
        for row in chosen:
            material.plan_of(row, seeds[0]).autoencoder()
    for row in chosen:
        for seed in seeds if row.seeded else seeds[:1]:
            note = f"{row.title}, seed {seed}"
            if progress is not None:
                progress(sum(map(len, trials.values())), total, note)
            trials.setdefault(row.key, []).append(tried(material, row, seed, classifiers))
    classes = next(iter(material.laboratories.values())).classes
    page = shown(chosen, trials, classifiers, classes, _protocol(material, seeds))
    written = _write(folder, page)
    if not methods:
        grid = bridged(material, encoders_of(material, _BRIDGED, seeds[0]), seed=seeds[0])
        written = _write(folder, replace(page, grids=[*page.grids, grid]))
    return written


def _write(folder: Path, page: Shown) -> tuple[Path, Path]:
    return write_all(folder, "Blood cells across laboratories", "acclimate reproduce cells", [page, shown_published()])


def _protocol(material: Material, seeds: Sequence[int]) -> str:
    told = ", ".join(f"{name} {len(each)}" for name, each in material.laboratories.items())
    plan = material.plan
    return (
        f"cells: {told}; {plan.size} segmenter, {plan.sides} sides; five folds of the source, each fit tested on all "
        f"of the other laboratories; seeds {', '.join(map(str, seeds))}"
    )
