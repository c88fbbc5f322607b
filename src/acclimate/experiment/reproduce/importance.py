"""Figure 2: how far each layer is moved under two corruptions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

from matplotlib.figure import Figure

from acclimate.experiment.plots.style import GREY, blank
from acclimate.experiment.reproduce.part import Drawing, Part, Shown
from acclimate.experiment.reproduce.request import Request
from acclimate.experiment.reproduce.store import Outcome, Store
from acclimate.experiment.reproduce.trial import Trial

__all__ = ["Importance", "by_layer"]

SHOWN = {"glass_blur": "#0072b2", "snow": "#d55e00"}


def by_layer(outcomes: Sequence[Outcome], corruption: str) -> dict[str, float]:
    """The learning-rate factor of each layer: mean over its tensors, the corruption's batches and the seeds."""
    layers: dict[str, list[float]] = {}
    for outcome in outcomes:
        place = [name for name, _ in outcome.segments].index(corruption)
        for tensor, values in outcome.importance.items():
            known = [value for value in values[place : place + 1] if value is not None]
            layers.setdefault(tensor.rpartition(".")[0], []).extend(known)
    return {layer: fmean(values) if values else math.nan for layer, values in layers.items()}


class Importance(Part):
    """From PALM's trial of the continual table."""

    key = "figure-2"

    def wanted(self, request: Request, store: Store, failed: Mapping[str, str]) -> list[Trial]:
        return request.trials("palm")

    def show(self, request: Request, store: Store, failed: Mapping[str, str]) -> Shown:
        outcomes = store.all(request.trials("palm"))
        drawings: list[Drawing] = []
        if outcomes is not None and outcomes[0].importance:
            words = "Learning-rate factor of every layer under glass blur and snow"
            drawings.append(Drawing(key=self.key, figure=_draw(outcomes), alternative=words))
        return Shown(
            title="Figure 2: learning-rate factor of each layer",
            protocol=request.protocol(),
            drawings=drawings,
            notes=[
                "The factor r of PALM's rate, learning_rate x r, averaged over the batches of the corruption within "
                "the continual stream and over the tensors of a layer; 0 is a layer that was never selected. "
                "The paper draws this for its own network, without numbers.",
                *self.reasons(self.wanted(request, store, failed), failed),
            ],
        )


def _draw(outcomes: Sequence[Outcome]) -> Figure:
    dimensions: Mapping[str, int] = outcomes[0].facts.get("dimensions", {})
    layers = list(by_layer(outcomes, next(iter(SHOWN))))
    wide = {tensor.rpartition(".")[0] for tensor, count in dimensions.items() if count > 1}
    figure, axes = blank(max(7.0, 2 + 0.23 * len(layers)), 4.6)
    for corruption, colour in SHOWN.items():
        factors = by_layer(outcomes, corruption)
        for kind, style, face in ((True, "solid", colour), (False, (0, (3, 2)), "white")):
            places = [number for number, layer in enumerate(layers) if (layer in wide) == kind]
            label = f"{corruption.replace('_', ' ')}, {'convolutions' if kind else 'normalisations'}"
            axes.plot(
                places, [factors[layers[place]] for place in places], color=colour, linewidth=1.3 if kind else 0.9,
                linestyle=style, marker="o", markersize=5.5, markerfacecolor=face, label=label,
            )  # fmt: skip
    axes.set_xticks(range(len(layers)), layers, rotation=90, fontsize=7.5)
    axes.set_xlim(-0.8, len(layers) - 0.2)
    axes.set_ylim(0, None)
    axes.set_ylabel("learning-rate factor")
    axes.grid(axis="y", color="#e3e5e8", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines["bottom"].set_color(GREY)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=4, frameon=False, borderaxespad=0.2)
    return figure
