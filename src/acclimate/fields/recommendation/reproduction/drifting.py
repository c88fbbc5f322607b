"""Merging weights that learn on line, against frozen ones, on a stream that drifts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from torch import Tensor

from acclimate.experiment.plots.style import blank, colours
from acclimate.experiment.reproduce.part import Grid, Line
from acclimate.fields.recommendation.measuring.paired import paired_gain
from acclimate.fields.recommendation.measuring.scores import scores
from acclimate.fields.recommendation.merging.merged import merge
from acclimate.fields.recommendation.online.progressive import progressive
from acclimate.fields.recommendation.online.weights import OnlineMerge

__all__ = ["Drifted", "drift_figure", "drift_grid"]


@dataclass(frozen=True, slots=True)
class Drifted:
    """Attributes: `names` of members, their logits `each` `[M, N]` on the stream in its order, `labels`, `[N]`, and
    `weights` fitted on validation rows, `[M]`."""

    names: Sequence[str]
    each: Tensor
    labels: Tensor
    weights: Tensor


def drift_grid(name: str, found: Drifted, delays: Sequence[int] = (0, 500, 2000)) -> Grid:
    """Frozen and learned weights on the stream, labels coming late by so many rows: delays within the stream only."""
    labels = found.labels.double()
    frozen = found.each.mean(0)
    rows: dict[str, Tensor] = {f"{member} alone": each for member, each in zip(found.names, found.each, strict=True)}
    rows["merged, equal weights"] = frozen
    rows["merged, weights fitted on validation rows"] = found.weights @ found.each
    for delay in [each for each in delays if each < len(labels)]:
        rows[f"on line, labels after {delay} rows"] = progressive(
            _online(found), found.each, labels, delay=delay
        ).logits
    lines: list[Line] = []
    for row, logits in rows.items():
        told = scores(logits.numpy(), labels.numpy())
        gain = paired_gain(logits.numpy(), frozen.numpy(), labels.numpy())
        cells = [f"{told.auc:.4f}", f"{told.log_loss:.4f}", f"{told.ratio:.3f}"]
        cells += ["-", "-"] if logits is frozen else [str(gain.auc), str(gain.log_loss)]
        lines.append(Line("measured", row, cells))
    head = [
        "AUC",
        "log loss",
        "mean probability over share clicked",
        "AUC over equal weights",
        "log loss over equal weights",
    ]
    title = f"{name}: a stream that drifts, {len(labels)} rows, progressive validation"
    return Grid(key=f"{name}-drift", head=head, lines=lines, title=title)


def drift_figure(found: Drifted, delay: int = 500) -> Figure:
    """Weights of members along the stream; labels come at once where it is shorter than the delay."""
    delay = delay if delay < len(found.labels) else 0
    told = progressive(_online(found), found.each, found.labels.double(), delay=delay)
    figure, axes = blank(7.5, 3.2)
    palette = colours(list(found.names))
    for place, name in enumerate(found.names):
        axes.plot(told.weights[:, place], label=name, color=palette[name])
    axes.set_xlabel("rows answered")
    axes.set_ylabel("weight")
    axes.set_title(f"labels after {delay} rows")
    axes.legend(frameon=False, fontsize=8, ncols=3)
    return figure


def _online(found: Drifted) -> OnlineMerge:
    return OnlineMerge(merge([torch.nn.Identity() for _ in found.names]))
