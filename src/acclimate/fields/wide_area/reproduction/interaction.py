"""Whether delay makes compression worse than it is by itself: iterations to the target over both."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from acclimate.experiment.plots.heat import count_map
from acclimate.experiment.reproduce.part import Drawing, Grid, Line, Shown
from acclimate.fields.wide_area.policy.conditions import Setting
from acclimate.fields.wide_area.policy.contraction import contraction
from acclimate.fields.wide_area.policy.noise import NOISE
from acclimate.fields.wide_area.reproduction.contenders import Contender
from acclimate.fields.wide_area.reproduction.places import Place
from acclimate.fields.wide_area.reproduction.trials import Told, Trial, courses

__all__ = ["RATIOS", "STALENESSES", "amplification", "fitted", "interaction", "unexplained"]

Floats = NDArray[np.float64]

STALENESSES = (0, 1, 2, 4, 8)
RATIOS = (1.0, 0.1, 0.03, 0.01, 0.003)

_PLACE = Place(trace="constant", dense=1, away=0.4)


def interaction(
    folder: Path,
    *,
    workload: str = "digits",
    rates: Sequence[float] = (0.1, 0.025),
    seeds: Sequence[int] = (0, 1),
    limit: int = 4000,
    jobs: int = 1,
    told: Told | None = None,
) -> Shown:
    """Iterations to the target for fixed settings, and how well each form of their dependence fits.

    No time enters. Forms: the sum or the product of what staleness does at full gradients and what the ratio does
    without delay, both taken from the margins of the grid, nothing fitted; and `c + d phi` for each phi of `NOISE`,
    c and d by least squares of relative errors.

    Arguments: `rates`, step sizes, the same for all settings; `seeds`; `limit`, of iterations; `jobs`, at once.
    """
    grids: list[Grid] = []
    drawings: list[Drawing] = []
    notes: list[str] = []
    stale_names, ratio_names = [f"staleness {each}" for each in STALENESSES], [f"{100 * each:g} %" for each in RATIOS]
    for rate in rates:
        trials = [
            Trial(
                workload=workload,
                place=_PLACE,
                contender=f"fixed:{staleness}:{ratio:g}",
                rate=rate,
                seed=seed,
                limit=limit,
            )
            for staleness in STALENESSES
            for ratio in RATIOS
            for seed in seeds
        ]
        found = courses(folder, trials, jobs=jobs, told=told, named=fixed)
        means = [
            _mean([each.iterations for each in found[k : k + len(seeds)]]) for k in range(0, len(found), len(seeds))
        ]
        counts = np.array(means).reshape(len(STALENESSES), len(RATIOS))
        key = f"interaction-{rate:g}"
        lines = [
            Line("measured", name, [_told(value) for value in row])
            for name, row in zip(stale_names, counts, strict=True)
        ]
        grids.append(Grid(key=key, head=ratio_names, lines=lines, title=f"{workload}: iterations, step size {rate:g}"))
        drawings.append(
            Drawing(key=key, figure=count_map(counts, stale_names, ratio_names), alternative="iterations to the target")
        )
        errors = ", ".join(f"{name} {100 * error:.0f} %" for name, error in unexplained(counts).items())
        notes.append(
            f"Step size {rate:g}: root mean square of what a form does not explain, of settings with both delay and "
            f"compression: {errors}. Iterations over those that the product of both margins foretells, at the most of "
            f"both that was learned: {amplification(counts):.2f}."
        )
    return Shown(
        title="Delay and compression together",
        protocol=(
            f"{workload}, four workers, fixed settings, the same step size for all; "
            f"seeds {', '.join(map(str, seeds))}; mean iterations to the target, "
            f"a dash where a seed did not come to it within {limit}"
        ),
        grids=grids,
        drawings=drawings,
        notes=notes,
    )


def fixed(name: str) -> Contender:
    """`fixed:STALENESS:RATIO`."""
    _, staleness, ratio = name.split(":")
    setting = Setting(int(staleness), float(ratio))
    return Contender(key=name, title=name, steer=lambda _: setting)


def unexplained(counts: Floats) -> Mapping[str, float]:
    """Root mean square of log(count / form) where staleness and compression meet, for each form of `fitted`."""
    met = np.isfinite(counts)
    met[0] = met[:, 0] = False
    return {
        name: float(np.sqrt(np.mean(np.log(counts[met] / values[met]) ** 2))) if met.any() else math.nan
        for name, values in fitted(counts).items()
    }


def amplification(counts: Floats) -> float:
    """Counts over the product form, at the largest staleness and the smallest ratio that were learned."""
    known = np.argwhere(np.isfinite(counts))
    row, column = max((tuple(each) for each in known), key=lambda each: (min(each), sum(each)))
    return float(counts[row, column] / fitted(counts)["product"][row, column])


def fitted(counts: Floats) -> Mapping[str, Floats]:
    """What each form foretells, `[staleness, ratio]`."""
    delay, compression, both = counts[:, :1], counts[:1], counts[0, 0]
    forms = {"sum": delay + compression - both, "product": delay * compression / both}
    return forms | {f"phi {name}": _by(noise, counts) for name, noise in NOISE.items()}


def _by(noise: Callable[[float, int], float], counts: Floats) -> Floats:
    """`c + d phi` of the share of entries that is sent, by least squares of relative errors, reweighted."""
    phi = np.array([[noise(contraction(ratio), staleness) for ratio in RATIOS] for staleness in STALENESSES])
    known = np.isfinite(counts) & np.isfinite(phi)
    design = np.stack([np.ones(known.sum()), phi[known]], 1)
    expected = counts[known]
    solution = np.zeros(2)
    for _ in range(20):
        solution = np.linalg.lstsq(design / expected[:, None], counts[known] / expected, rcond=None)[0]
        expected = np.maximum(design @ solution, 1.0)
    return np.maximum(solution[0] + solution[1] * phi, 1.0)


def _mean(values: Sequence[int | None]) -> float:
    known = [value for value in values if value is not None]
    return fmean(known) if len(known) == len(values) else math.nan


def _told(value: float) -> str | None:
    return None if math.isnan(value) else f"{value:.0f}"
