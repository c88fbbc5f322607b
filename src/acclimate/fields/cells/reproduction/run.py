"""Everything of the comparison, resumable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from acclimate.experiment.reproduce.write import write_all
from acclimate.fields.cells.classify.classifiers import CLASSIFIERS
from acclimate.fields.cells.data.classes import FOUR
from acclimate.fields.cells.data.wbc import laboratories
from acclimate.fields.cells.plan import Plan
from acclimate.fields.cells.reproduction.rows import Material, chosen_rows
from acclimate.fields.cells.reproduction.tables import shown
from acclimate.fields.cells.reproduction.trials import Trial, tried
from acclimate.fields.cells.sam.sizes import SIZES

__all__ = ["reproduce_cells"]

_CLASSIFIERS = ("forest", "boosting", "svm", "neural", "logistic")

Progress = Callable[[int, int, str], None]


def reproduce_cells(
    folder: str | Path,
    *,
    data: str | Path | None = None,
    methods: Sequence[str] = (),
    classifiers: Sequence[str] = _CLASSIFIERS,
    seeds: Sequence[int] = (0,),
    plan: Plan | None = None,
    progress: Progress | None = None,
) -> tuple[Path, Path]:
    """Compare features on four laboratories, classifiers trained in each and tested in all; tables, one page.

    Neutrophils, lymphocytes, monocytes and eosinophils; basophils are too few. The segmenter is trained on the masks of
    two laboratories, autoencoders on the pictures of all four without labels, for each seed anew.

    Arguments: `folder`, for what is trained, trials and tables; `data`, where the archives are, the shared folder by
    default; `methods`, keys of `ROWS`, all by default; `classifiers`, of `CLASSIFIERS`; `seeds`, of the autoencoders;
    `plan`, the small one by default.

    Returns the paths of the Markdown and the HTML page.
    Raises ValueError for unknown rows or classifiers, FileNotFoundError where the archives are not.
    """
    folder, plan = Path(folder).expanduser(), plan or Plan()
    unknown = [name for name in classifiers if name not in CLASSIFIERS]
    if unknown or not classifiers or not seeds or len(set(seeds)) != len(seeds):
        raise ValueError(
            f"found classifiers {list(classifiers)} and seeds {list(seeds)}, expected some of {', '.join(CLASSIFIERS)} "
            "and seeds that differ."
        )
    chosen = chosen_rows(methods)
    labs = {name: each.of_classes(FOUR) for name, each in laboratories(SIZES[plan.size].image, data).items()}
    trials: dict[str, list[Trial]] = {}
    total = sum(len(seeds) if row.seeded else 1 for row in chosen)
    note = ""

    def tell(what: str, done: int, of: int) -> None:
        if progress is not None:
            progress(sum(map(len, trials.values())), total, f"{note}: {what}, {done} of {of}")

    material = Material(labs, plan, folder, progress=tell)
    for row in chosen:
        for seed in seeds if row.seeded else seeds[:1]:
            note = f"{row.title}, seed {seed}"
            if progress is not None:
                progress(sum(map(len, trials.values())), total, note)
            trials.setdefault(row.key, []).append(tried(material, row, seed, classifiers))
    told = ", ".join(f"{name} {len(each)}" for name, each in labs.items())
    protocol = (
        f"{told} cells of four classes; {plan.size} segmenter, {plan.sides} sides; five folds of the source, each fit "
        f"tested on all of the other laboratories; seeds {', '.join(map(str, seeds))}"
    )
    page = shown(chosen, trials, classifiers, protocol)
    return write_all(folder, "Blood cells across laboratories", "acclimate reproduce cells", [page])
