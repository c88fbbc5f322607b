"""Everything of the comparison, resumable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from acclimate.experiment.reproduce.part import Drawing, Grid, Line, Shown
from acclimate.experiment.reproduce.write import write_all
from acclimate.fields.recommendation.data.sets import SETS, known_set, load_set
from acclimate.fields.recommendation.data.splits import Split
from acclimate.fields.recommendation.models.scaling import kinds_of
from acclimate.fields.recommendation.reproduction.budgets import equal_line, points, scaling_grid
from acclimate.fields.recommendation.reproduction.comparing import Judge, added
from acclimate.fields.recommendation.reproduction.drifting import drift_figure, drift_grid
from acclimate.fields.recommendation.reproduction.figures import budget_figure, diversity_figure, seeds_figure
from acclimate.fields.recommendation.reproduction.members import Member, Stock
from acclimate.fields.recommendation.reproduction.merges import (
    best_four,
    controls,
    merged_grid,
    models_grid,
    trained_as_one,
)
from acclimate.fields.recommendation.reproduction.streams import drifted, planted_drift
from acclimate.fields.recommendation.reproduction.study import Scaled, Study

__all__ = ["reproduce_scaling"]

Progress = Callable[[int, int, str], None]


def reproduce_scaling(
    folder: str | Path,
    *,
    data: str | Path | None = None,
    methods: Sequence[str] = (),
    sets: Sequence[str] = (),
    seeds: Sequence[int] = (0, 1, 2, 3),
    study: Study | None = None,
    jobs: int = 1,
    progress: Progress | None = None,
) -> tuple[Path, Path]:
    """Merging against larger models on the sets at hand; tables, figures, one page.

    For each set: all models, from several seeds; their merging in several ways; bases made wider, deeper, and with
    wider embeddings, each at the learning rate that validation rows prefer; the merged four against each of them with
    as many multiply-adds; controls; and a stream that drifts. Members are trained once and kept.

    Arguments: `folder`, for what is trained, tables and page; `data`, where the sets' files are, `data/ctr` of the
    shared folder by default; `methods`, models, the paper's eight by default; `sets`, of `SETS`, by default those
    whose files are there; `seeds`, two or more; `study`, all other choices; `jobs`, trainings at once.

    Returns the paths of the Markdown and the HTML page. Raises ValueError for unknown names and FileNotFoundError where
    there is no data.
    """
    folder = Path(folder).expanduser()
    chosen = replace(study or Study(), seeds=tuple(seeds), jobs=jobs)
    if methods:
        bases = tuple(name for name in chosen.bases if name in methods) or tuple(methods[:1])
        chosen = replace(chosen, models=tuple(methods), bases=bases)
    for name in sets:
        known_set(name)
    shown: list[Shown] = []
    for name, split in ({name: load_set(name, data) for name in sets} or _at_hand(data)).items():
        shown += _one_set(Stock(folder, name, split), chosen, progress)
    shown.append(_planted(folder, chosen, progress))
    return write_all(folder, "Test-time scaling for recommendation", "acclimate reproduce scaling", shown)


def _at_hand(data: str | Path | None) -> dict[str, Split]:
    found: dict[str, Split] = {}
    missing: FileNotFoundError | None = None
    for name in SETS:
        try:
            found[name] = load_set(name, data)
        except FileNotFoundError as error:
            missing = error
    if not found and missing is not None:
        raise missing
    return found


def _one_set(stock: Stock, study: Study, told: Progress | None) -> list[Shown]:
    name, split = stock.name, stock.split
    judge = Judge.of(split)
    members = study.members(stock, told)
    four = best_four(members, judge)
    groups = trained_as_one(stock, study, four, told)
    enlarged = study.enlarged(stock, told)
    protocol = (
        f"{len(split.train)} training, {len(split.validation)} validation and {len(split.test)} test rows, "
        f"{len(split.train.fields)} fields; small presets; seeds {', '.join(map(str, study.seeds))}; learning rates "
        f"{_listed(study.rates)} and weight decays {_listed(study.decays)}, chosen by validation log loss at the first "
        f"seed; batch normalisation: {study.options.get('bn', False)}; 95 % "
        "paired bootstrap intervals over test rows, 1000 draws; ± is the sample deviation over seeds, or over "
        "subsets of seeds that are merged"
    )
    merged = merged_grid(name, members, judge, groups)
    merging = Shown(
        title=f"{name}: merging",
        protocol=protocol,
        grids=[models_grid(name, members, judge), merged, controls(name, stock, members, judge)],
        drawings=[
            *(
                Drawing(
                    key=f"{name}-seeds-{key}",
                    figure=seeds_figure(members, judge, number),
                    alternative=f"{number} against seeds merged",
                )
                for key, number in _NUMBERS.items()
            ),
            Drawing(
                key=f"{name}-diversity", figure=diversity_figure(members, judge), alternative="gain against correlation"
            ),
        ],
        notes=[_MERGED],
    )
    found = points(stock, members, enlarged, study.bases, judge)
    scaling = Shown(
        title=f"{name}: compute",
        protocol=protocol,
        grids=[scaling_grid(name, found, judge), _equal(stock, study, members, four, judge, told)],
        drawings=[
            Drawing(
                key=f"{name}-{model}-{key}",
                figure=budget_figure(found, model, number),
                alternative=f"{number} of {model} against multiply-adds",
            )
            for model in study.bases
            for key, number in _NUMBERS.items()
        ],
        notes=[_SCALED],
    )
    stream = drifted(stock, study, members, four, told)
    drift = Shown(
        title=f"{name}: a stream that drifts",
        protocol=f"{protocol}; weights: rate 1, fixed share 0.03, bias rate 0.1, batches of 64",
        grids=[drift_grid(name, stream)],
        drawings=[Drawing(key=f"{name}-drift", figure=drift_figure(stream), alternative="weights along the stream")],
        notes=[_DRIFTED],
    )
    return [merging, scaling, drift]


def _equal(
    stock: Stock, study: Study, members: dict[str, list[Member]], four: list[str], judge: Judge, told: Progress | None
) -> Grid:
    """The four against each of them that has layers, widened to their sum."""
    spent = added([members[model][0] for model in four])
    lines: list[Line] = []
    for model in [each for each in four if "width" in kinds_of(each)]:
        asked = spent / added(members[model][:1])
        order, factor = study.scaled(stock, model, "width", asked)
        wide = study.seeded(stock, [order], told)[0]
        lines.append(equal_line(members, four, Scaled(model, "width", asked, factor, tuple(wide)), judge))
    head = [
        "compute of the four over it",
        "its AUC",
        "its log loss",
        "AUC of the four over it",
        "log loss of the four over it",
        "seeds better in both",
    ]
    return Grid(
        key=f"{stock.name}-equal",
        head=head,
        lines=lines,
        title=f"{stock.name}: the four merged against each of them widened to the same multiply-adds (mean gains, 95 % "
        "intervals of that mean)",
    )


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _planted(folder: Path, study: Study, told: Progress | None) -> Shown:
    stream, bayes = planted_drift(folder, study, told)
    return Shown(
        title="Planted clicks that drift",
        protocol="made rows whose chances are known; each member, an FNN without dropout and batch normalisation, "
        "learned from another stretch of the past, at the rate and decay that its validation rows prefer",
        grids=[drift_grid("planted", stream)],
        drawings=[Drawing(key="planted-drift", figure=drift_figure(stream), alternative="weights along the stream")],
        notes=[f"Log loss of the true chances on this stream: {bayes:.4f}."],
    )


_NUMBERS = {"auc": "AUC", "log-loss": "log loss"}
_MERGED = (
    "`four`: the models of the least mean validation log loss. The gain in AUC is over the member of the best "
    "validation AUC, that in log loss over the member of the least validation log loss, each seed by itself. That a "
    "merged model's log loss is at most the members' mean is no finding: log loss is convex in the logit. The four "
    "trained as one had the same choice of learning rates and weight decays as each alone."
)
_SCALED = (
    "Every larger model had the same choice of learning rates and weight decays as the base. Merged ones are of "
    "members as they are."
)
_DRIFTED = (
    "Test rows in a drawn order: a third as they are; a third in which one field is no longer delivered; a third in "
    "which it is again, and half of the rows that were not clicked are missing. One member was trained without that "
    "field, at a rate and decay of its own."
)
