"""Figure 3: PALM's error over alpha and over the temperature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from acclimate.experiment.plots.style import GREY, INK, blank
from acclimate.experiment.reproduce.part import Cell, Drawing, Grid, Line, Part, Shown, average, spread
from acclimate.experiment.reproduce.published import FIGURE_3
from acclimate.experiment.reproduce.request import Request
from acclimate.experiment.reproduce.store import Store
from acclimate.experiment.reproduce.trial import Trial

__all__ = ["ALPHAS", "TEMPERATURES", "Sweeps"]

ALPHAS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
TEMPERATURES = (0.5, 1.0, 10.0, 50.0, 100.0, 200.0, 1000.0)
_GRIDS = {"alpha": ALPHAS, "temperature": TEMPERATURES}


class Sweeps(Part):
    """Each setting alone; the other one, and the threshold, keep the benchmark's value."""

    key = "figure-3"

    def _trials(self, request: Request) -> dict[str, dict[float, list[Trial]]]:
        return {
            setting: {value: request.trials("palm", "continual", **{setting: value}) for value in grid}
            for setting, grid in _GRIDS.items()
        }

    def wanted(self, request: Request, store: Store, failed: Mapping[str, str]) -> list[Trial]:
        grids = self._trials(request).values()
        return [trial for grid in grids for trials in grid.values() for trial in trials]

    def show(self, request: Request, store: Store, failed: Mapping[str, str]) -> Shown:
        base = request.trials("palm")[0].build()
        grids: list[Grid] = []
        drawings: list[Drawing] = []
        for setting, trials in self._trials(request).items():
            lines: list[Line] = []
            for value, each in trials.items():
                outcomes = store.all(each)
                share = average(outcomes, lambda outcome: outcome.mean_value("parameter_share"))
                mean = average(outcomes, lambda outcome: outcome.mean_error())
                cells: list[Cell] = [mean, spread(outcomes), None if share is None else 100 * share]
                lines.append(Line("measured", f"{setting}={value:g}", cells))
            key = f"{self.key}-{setting}"
            grids.append(Grid(key=key, head=["mean", "± seeds", "share, %"], lines=lines))
            points = {
                value: mean
                for value, line in zip(trials, lines, strict=True)
                if isinstance(mean := line.cells[0], float)
            }
            if points:
                drawn = _draw(setting, points, getattr(base, setting))
                words = f"Mean error of PALM over {setting}"
                drawings.append(Drawing(key=key, figure=drawn, alternative=words))
        said = FIGURE_3.get(request.published)
        return Shown(
            title="Figure 3: mean error over alpha and temperature",
            protocol=request.protocol(),
            grids=grids,
            drawings=drawings,
            notes=[
                f"The paper's figure has curves and no numbers; it says: {said}." if said else request.elsewhere(),
                "The ring marks the benchmark's setting. A higher temperature acts as a higher threshold: stage 1 "
                "scales with 1 / T^2, so the share of selected parameters grows with it.",
                *self.reasons(self.wanted(request, store, failed), failed),
            ],
        )


def _draw(setting: str, points: Mapping[float, float], standard: float) -> Figure:
    values, errors = list(points), list(points.values())
    figure, axes = blank(6.4, 3.6)
    axes.plot(values, errors, color="#0072b2", linewidth=1.6, marker="o", markersize=4.5)
    if standard in points:
        axes.scatter([standard], [points[standard]], s=110, facecolors="none", edgecolors=INK, linewidths=1.4, zorder=4)
    if setting == "temperature":
        axes.set_xscale("log")
        axes.set_xticks(values, [f"{value:g}" for value in values])
        axes.minorticks_off()
    else:
        axes.set_xticks(values)
    _room(axes, errors)
    axes.set_xlabel({"alpha": "alpha, weight of the current sensitivity", "temperature": "temperature T"}[setting])
    axes.set_ylabel("mean error, %")
    axes.grid(axis="y", color="#e3e5e8", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines["bottom"].set_color(GREY)
    return figure


def _room(axes: Axes, errors: Sequence[float]) -> None:
    """Half a point above and below at least, so that noise does not fill the picture."""
    low, high = min(errors), max(errors)
    margin = max(0.5, 0.08 * (high - low))
    axes.set_ylim(low - margin, high + margin)
