"""Everything of the comparison, resumable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from acclimate.core.config import one_of
from acclimate.experiment.reproduce.part import Drawing, Grid, Shown
from acclimate.experiment.reproduce.write import write_all
from acclimate.fields.diffusion.quality import frechet_distance
from acclimate.fields.diffusion.reproduction.costs import costs_shown, loopback_grid
from acclimate.fields.diffusion.reproduction.drawings import course_figure, error_figure, image_figure, quality_figure
from acclimate.fields.diffusion.reproduction.loopback import Job, loopback
from acclimate.fields.diffusion.reproduction.measure import Outcome
from acclimate.fields.diffusion.reproduction.rows import GROUPS, Row, chosen_rows
from acclimate.fields.diffusion.reproduction.tables import quality_grid
from acclimate.fields.diffusion.reproduction.trials import Told, Trial, exact, images_of, judge_of, outcomes
from acclimate.fields.diffusion.tiny import DIFFUSION, load_dit

__all__ = ["reproduce_compactfusion"]

_DRAWN = ("whole", "stale", "direct:one_bit", "open:one_bit", "one_bit", "two_bit", "low_rank:8", "of_every:8")
_TITLES = {
    "table": "the paper's comparison", "codecs": "more codecs", "warm-up": "w evaluations sent whole at the start",
    "ablations": "other choices",
}  # fmt: skip


def reproduce_compactfusion(
    folder: str | Path,
    *,
    models: Sequence[str] = ("digits-dit",),
    methods: Sequence[str] = (),
    devices: Sequence[int] = (2, 4),
    seeds: Sequence[int] = (0, 1, 2, 3),
    count: int = 16,
    steps: int = 28,
    loopback_seconds: float | None = 8.0,
    jobs: int = 1,
    progress: Told | None = None,
) -> tuple[Path, Path]:
    """Images of a compressed exchange against those without one, bytes and seconds; tables, figures, one page.

    Models are small and trained here; devices are simulated in one process, bit for bit as between several. Every
    trial is kept, and a second call goes on where the first stopped.

    Arguments:
        folder: for trials, tables, figures and pages.
        models: of `DIFFUSION`, trained.
        methods: keys of `ROWS`, all by default.
        devices: how many share the sequence.
        seeds: of the noise, each for one batch.
        count: images of a batch.
        steps: evaluations for one image.
        loopback_seconds: what everything whole is to take on the slow link between real processes, as many as
            `devices`; None for no processes.
        jobs: trials at once.
        progress: called after each trial.

    Returns the paths of the Markdown and the HTML page. Raises ValueError for unknown names, and FileNotFoundError for
    a model that is not trained yet, before anything is sampled.
    """
    folder, rows = Path(folder).expanduser(), chosen_rows(methods)
    for name in models:
        one_of(*DIFFUSION, model=name)
        load_dit(name)
    shown: list[Shown] = []
    for name in models:
        grids: list[Grid] = []
        drawings: list[Drawing] = []
        for size in devices:
            trials = {
                row.key: [
                    Trial(model=name, row=row.key, devices=size, seed=seed, count=count, steps=steps) for seed in seeds
                ]
                for row in rows
            }
            flat = outcomes(folder, [each for group in trials.values() for each in group], jobs=jobs, told=progress)
            found = {row.key: flat[n * len(seeds) : (n + 1) * len(seeds)] for n, row in enumerate(rows)}
            grids += _grids(folder, name, size, rows, trials, found)
            drawings += _drawings(folder, name, size, trials, found)
        protocol = (
            f"{count} images of each of {len(seeds)} seeds, {steps} Euler steps, labels 0 to 9 in turn, one whole "
            "evaluation at the start unless told otherwise; float32; own block exact"
        )
        shown.append(Shown(title=name, protocol=protocol, grids=grids, drawings=drawings, notes=_NOTES))
    shown.append(costs_shown())
    if loopback_seconds is not None:
        shown.append(_loopback(folder, models[0], devices, loopback_seconds, progress))
    return write_all(folder, "Compressed exchange in diffusion", "acclimate reproduce compactfusion", shown)


def _grids(
    folder: Path,
    name: str,
    size: int,
    rows: Sequence[Row],
    trials: Mapping[str, Sequence[Trial]],
    found: Mapping[str, Sequence[Outcome]],
) -> list[Grid]:
    apart = {key: _apart(folder, name, each) for key, each in trials.items()}
    grids: list[Grid] = []
    for group in GROUPS:
        inside = [row for row in rows if row.group == group]
        if inside:
            title = f"{size} devices: {_TITLES[group]}"
            grids.append(quality_grid(f"{name}-{size}-{group}", title, inside, found, apart))
    return grids


def _apart(folder: Path, name: str, trials: Sequence[Trial]) -> float:
    """Fréchet distance of what the classifier sees, over all seeds."""
    judge = judge_of(name)
    ours = torch.cat([images_of(folder, each) for each in trials])
    others = torch.cat([exact(name, each.seed, each.count, each.steps).course[-1] for each in trials])
    return float(frechet_distance(judge.vectors(ours), judge.vectors(others)).clamp_min(0))


def _drawings(
    folder: Path,
    name: str,
    size: int,
    trials: Mapping[str, Sequence[Trial]],
    found: Mapping[str, Sequence[Outcome]],
) -> list[Drawing]:
    key, told = f"{name}-{size}", f"{name} on {size} devices"
    drawn = {row: found[row] for row in _DRAWN if row in found}
    if not drawn:
        return []
    first = next(iter(trials.values()))[0]
    images = {row: images_of(folder, trials[row][0]) for row in drawn if row != "whole"}
    base = exact(name, first.seed, first.count, first.steps).course[-1]
    table = {row: each for row, each in found.items() if "/" not in row}
    return [
        Drawing(key=f"{key}-quality", figure=quality_figure(table), alternative=f"Quality over bytes, {told}"),
        Drawing(key=f"{key}-errors", figure=error_figure(drawn), alternative=f"Errors over evaluations, {told}"),
        Drawing(key=f"{key}-course", figure=course_figure(drawn), alternative=f"Deviation of the sample, {told}"),
        Drawing(key=f"{key}-images", figure=image_figure(base, images), alternative=f"Images and differences, {told}"),
    ]


def _loopback(folder: Path, model: str, devices: Sequence[int], seconds: float, progress: Told | None) -> Shown:
    grids: list[Grid] = []
    for number, size in enumerate(devices, 1):
        job = Job(model=model, devices=size, seconds=seconds)
        found = loopback(
            folder, job, told=None if progress is None else lambda note, n=number: progress(n, len(devices), note)
        )
        grids.append(loopback_grid(size, found))
    return Shown(
        title="Between processes, over a slow link",
        protocol=(
            f"{model}, batches of 16, 28 steps; gloo on one machine, one thread for each process, the link emulated at "
            f"the sender so that everything whole takes {seconds:g} s of sending"
        ),
        grids=grids,
        notes=[
            "`predicted` is the time without a limit plus bytes over bandwidth, headers included. The stale exchange "
            "sends while it computes and may take less."
        ],
    )


_NOTES = [
    "`PSNR` is over a batch, mean over seeds, range 2; `span` from the worst of them to the best, "
    "`worst` of a single image. `seen`: the mean squared difference of normalised features of the library's own "
    "classifier; `Fréchet`: that of Gaussians fitted to what its head is fed, over all seeds, so not comparable with "
    "FID. `named`: how often the classifier names the class that was asked for. `error`: mean relative error of what "
    "devices know of each other's keys and values after the warm-up; of the stale exchange the mean change of one "
    "step. `bytes`: sent, of those without compression, the warm-up included.",
]
