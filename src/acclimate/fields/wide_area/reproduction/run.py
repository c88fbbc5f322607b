"""Everything of the comparison, resumable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from pathlib import Path
from statistics import fmean

from acclimate.core.config import one_of, whole
from acclimate.experiment.reproduce.part import Drawing, Grid, Line, Shown
from acclimate.experiment.reproduce.write import write_all
from acclimate.fields.wide_area.reproduction.ablations import ablations
from acclimate.fields.wide_area.reproduction.contenders import CONTENDERS
from acclimate.fields.wide_area.reproduction.fleets import fleet_grid
from acclimate.fields.wide_area.reproduction.hooks import unavailable
from acclimate.fields.wide_area.reproduction.interaction import interaction
from acclimate.fields.wide_area.reproduction.places import Place
from acclimate.fields.wide_area.reproduction.simulate import Course
from acclimate.fields.wide_area.reproduction.tables import Row, curves, place_grid, settings_figure
from acclimate.fields.wide_area.reproduction.trials import Trial, courses
from acclimate.fields.wide_area.workloads import WORKLOADS

__all__ = ["PLACES", "reproduce_decosgd"]

Progress = Callable[[int, int, str], None]

PLACES: Sequence[Place] = (
    Place(trace="constant", dense=8, away=2),
    Place(trace="sine", dense=8, away=2),
    Place(trace="markov", dense=8, away=2),
    Place(trace="drop", dense=8, away=2),
    Place(trace="constant", dense=16, away=6),
    Place(trace="sine", dense=16, away=6),
    Place(trace="constant", dense=1, away=0.4),
    Place(trace="sine", dense=8, away=2, shards="sorted"),
)
"""From a link that takes eight computing times for a dense gradient to one that hardly slows training."""

_RATES = {"digits": (0.2, 0.1, 0.05), "cifar10": (0.2, 0.1, 0.05), "characters": (3e-3, 1e-3)}
_TRIED = 3
_OTHERS = ("replicas", "ablations", "interaction")
_FEW = {"digits": PLACES, "cifar10": PLACES[1:2], "characters": PLACES[1:2]}


def reproduce_decosgd(
    folder: str | Path,
    *,
    methods: Sequence[str] = (),
    tables: Sequence[str] = ("digits",),
    seeds: Sequence[int] = (0, 1, 2),
    places: Sequence[Place] | None = None,
    limit: int = 2500,
    jobs: int = 1,
    progress: Progress | None = None,
) -> tuple[Path, Path]:
    """Time to accuracy on a virtual clock; tables, figures, one page.

    Each method takes the step size that is fastest to the target in the mean of the first three seeds, of three or two
    step sizes. Trials are kept.
    Torch's own hooks train in processes of their own; without torch.distributed they are left out, with a note.

    Arguments: `folder`, for trials, tables and page; `methods`, of `CONTENDERS`, all by default; `tables`, of
    `WORKLOADS`, or "replicas" that adapt together, "ablations", and the "interaction" of delay and compression;
    `seeds`, 0 or more; `places`, by default `PLACES` for digits and one of them for the others; `limit`, of iterations;
    `jobs`, trials at once.

    Returns the paths of the Markdown and the HTML page. Raises ValueError for unknown names, seeds below 0, or where
    all methods that are asked for had to be left out.
    """
    folder = Path(folder).expanduser()
    for name in methods:
        one_of(*CONTENDERS, method=name)
    for name in tables:
        one_of(*WORKLOADS, *_OTHERS, table=name)
    for seed in seeds:
        whole(0, seeds=seed)
    names, notes = _possible([name for name in CONTENDERS if not methods or name in methods])
    shown: list[Shown] = []
    for workload in (name for name in tables if name in WORKLOADS):
        for number, place in enumerate(_FEW[workload] if places is None else places, 1):
            rows = _rows(folder, workload, place, names, seeds, limit, jobs, progress)
            shown.append(_shown(f"{workload}-{number}", workload, place, rows, seeds, notes))
    if "ablations" in tables:
        shown.append(ablations(folder, seeds=seeds, jobs=jobs, told=progress))
    if "interaction" in tables:
        shown.append(interaction(folder, jobs=jobs, told=progress))
    if "replicas" in tables:
        shown.append(_fleets(progress))
    shown.append(_published())
    return write_all(folder, "Training across slow links", "acclimate reproduce decosgd", shown)


def _possible(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Those that can be run here, and a note on the others."""
    reason = unavailable()
    left_out = [] if reason is None else [name for name in names if CONTENDERS[name].hook is not None]
    kept = [name for name in names if name not in left_out]
    if left_out and not kept:
        raise ValueError(f"{', '.join(left_out)} cannot be run here: {reason}")
    return kept, [f"Left out: {', '.join(CONTENDERS[name].title for name in left_out)}: {reason}"] if left_out else []


def _rows(
    folder: Path,
    workload: str,
    place: Place,
    names: Sequence[str],
    seeds: Sequence[int],
    limit: int,
    jobs: int,
    progress: Progress | None,
) -> dict[str, Row]:
    def trial(name: str, rate: float, seed: int) -> Trial:
        return Trial(workload=workload, place=place, contender=name, rate=rate, seed=seed, limit=limit)

    rates, tried = _RATES[workload], seeds[:_TRIED]
    first = [trial(name, rate, seed) for name in names for rate in rates for seed in tried]
    found = iter(courses(folder, first, jobs=jobs, told=progress))
    best = {
        name: min([([next(found) for _ in tried], rate) for rate in rates], key=lambda each: _slowness(each[0]))[1]
        for name in names
    }
    every = courses(
        folder, [trial(name, best[name], seed) for name in names for seed in seeds], jobs=jobs, told=progress
    )
    count = len(seeds)
    return {name: (best[name], every[k * count : (k + 1) * count]) for k, name in enumerate(names)}


def _slowness(found: Sequence[Course]) -> tuple[float, float]:
    """Mean seconds to the target; where a seed did not come to it, how far all stayed below."""
    mean = fmean(each.seconds or inf for each in found)
    return mean, -fmean(max((score for *_, score in each.curve), default=-1e9) for each in found)


def _shown(
    key: str, workload: str, place: Place, rows: dict[str, Row], seeds: Sequence[int], notes: Sequence[str]
) -> Shown:
    task = WORKLOADS[workload]()
    bits = 32.0 * sum(parameter.numel() for parameter in task.build(0).parameters())
    drawings = [Drawing(key=f"{key}-curves", figure=curves(rows, task.target), alternative="score over virtual time")]
    if "deco" in rows and rows["deco"][1][0].settings:
        figure = settings_figure(place, bits, rows["deco"][1][0], seeds[0])
        drawings.append(Drawing(key=f"{key}-settings", figure=figure, alternative="bandwidth, ratio, staleness"))
    return Shown(
        title=f"{workload}: {place.named()}",
        protocol=(
            f"virtual clock; {place.workers} workers, {place.compute:g} s of computing, batches of {task.batch_size}, "
            f"{place.shards} shards; target {task.target:g}; seeds {', '.join(map(str, seeds))}; each method at its "
            "best step size; indices count; parameter-server links"
        ),
        grids=[place_grid(key, workload, place, rows)],
        drawings=drawings,
        notes=[_NOTE, *notes],
    )


def _fleets(progress: Progress | None) -> Shown:
    return Shown(
        title="Adapting together",
        protocol=(
            "digits-resnet, tent without a guard, digits:continual; virtual clock; a link that takes ten computing "
            "times for what is shared, latency two; seeds 0 and 1"
        ),
        grids=[fleet_grid(told=progress), fleet_grid(batch_size=1, normalization="ema", size=200, told=progress)],
        notes=[
            "Each replica gets its share of every batch. In the first table it normalises by the statistics of that "
            "share; in the second by moving statistics, which are shared like weights."
        ],
    )


def _published() -> Shown:
    lines = [
        Line("published", "over D-SGD, up to", ["5.07"]),
        Line("published", "over the static strategy, up to", ["1.37"]),
    ]
    return Shown(
        title="As published",
        protocol="arXiv 2507.17346: convolutional, vision and GPT-2 models; networks and targets of the tables unknown",
        grids=[Grid(key="published", head=["x in time to accuracy"], lines=lines, title="DeCo-SGD's abstract")],
    )


_NOTE = (
    "A row that a seed did not learn within the limit has no time. `static, tuned for the mean network` is the same "
    "rule, asked once with the mean bandwidth; `true bandwidth known` is asked every iteration with that of the "
    "moment, the others measure it from their own packets. The CocktailSGD-like row keeps as many entries as that "
    "method by plain top-k at full precision, and pays for as many bits as it would, which flatters it. Torch's hooks "
    "are real processes over gloo whose rounds are laid on the clock: half precision has one, PowerSGD two, of which "
    "the second waits for the first; they delay nothing, and pay for no headers."
)
