"""What the trials show, drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

import torch
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from torch import Tensor

from acclimate.experiment.plots.style import INK, blank, colours
from acclimate.fields.diffusion.reproduction.measure import Outcome
from acclimate.fields.diffusion.reproduction.rows import ROWS
from acclimate.fields.diffusion.reproduction.tables import mean_psnr, pictures_of

__all__ = ["course_figure", "error_figure", "image_figure", "quality_figure"]

_KINDS = {"fed": "o", "open": "v", "direct": "x", "stale": "s"}
_MOST = 10
_GAP = 1


def quality_figure(found: Mapping[str, Sequence[Outcome]]) -> Figure:
    """PSNR over the share of bytes that is sent, both of all seeds: colours are codecs, marks the ways to use them."""
    figure, axes = blank(9.5, 4.4)
    palette = colours(list(dict.fromkeys(ROWS[key].codec for key in found)))
    for key, outcomes in found.items():
        psnr, row = mean_psnr(outcomes), ROWS[key]
        if psnr is not None:
            share = 100 * fmean(outcome.sent / outcome.whole for outcome in outcomes)
            mark = _KINDS[_kind(key)]
            axes.plot([share], [psnr], mark, color=palette[row.codec], markersize=7, label=row.title)
    axes.set_xscale("log")
    _plain(axes.xaxis, " %")
    axes.set_xlabel("bytes sent, of those without compression")
    axes.set_ylabel("PSNR against no exchange, dB")
    axes.grid(color="#e3e5e8", linewidth=0.7)
    axes.legend(frameon=False, fontsize=7.5, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _kind(key: str) -> str:
    first = key.partition(":")[0]
    return first if first in _KINDS else "fed"


def _plain(axis: Axis, unit: str = "") -> None:
    """Numbers of a logarithmic axis as one writes them."""
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:g}{unit}"))
    axis.set_minor_locator(NullLocator())


def error_figure(found: Mapping[str, Sequence[Outcome]]) -> Figure:
    """Relative error of keys and values over evaluations, and how much they change from one to the next."""
    known = {key: outcomes for key, outcomes in found.items() if outcomes[0].errors}
    lines = {ROWS[key].title: [each.errors for each in outcomes] for key, outcomes in known.items()}
    if "whole" in found:
        lines[_CHANGE] = [[float("nan"), *each.changes[1:]] for each in found["whole"]]
        lines.pop(ROWS["whole"].title, None)
    return _over_steps(lines, "relative error of keys and values")


def course_figure(found: Mapping[str, Sequence[Outcome]]) -> Figure:
    """How far the sample is from the one without an exchange, step by step."""
    lines = {ROWS[key].title: [each.course for each in outcomes] for key, outcomes in found.items() if key != "whole"}
    return _over_steps(lines, "relative deviation of the sample")


_CHANGE = "change from one evaluation to the next"


def _over_steps(lines: Mapping[str, Sequence[Sequence[float]]], label: str) -> Figure:
    figure, axes = blank(7.5, 4.2)
    palette = colours(list(lines))
    for title, rows in lines.items():
        mean = [fmean(column) for column in zip(*rows, strict=True)]
        places = [number for number, value in enumerate(mean) if value > 0]
        style = ":" if title == _CHANGE else "-"
        colour = INK if title == _CHANGE else palette[title]
        axes.plot(places, [mean[place] for place in places], style, color=colour, linewidth=1.4, label=title)
    axes.set_yscale("log")
    _plain(axes.yaxis)
    axes.set_xlabel("evaluation")
    axes.set_ylabel(label)
    axes.grid(axis="y", color="#e3e5e8", linewidth=0.7)
    axes.legend(frameon=False, fontsize=7.5, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.set_figwidth(10)
    return figure


def image_figure(exact: Tensor, images: Mapping[str, Tensor], *, magnified: int = 4) -> Figure:
    """The first ten images of each row under those without an exchange, and their differences, magnified.

    Arguments: both `[B, C, H, W]` in [-1, 1], the latter by key of row.
    """
    strips = {"no exchange": exact} | {ROWS[key].title: each for key, each in images.items()}
    figure, axes = blank(11.5, 0.48 * len(strips) + 0.4)
    shown = torch.cat([_strip(pictures_of(each[:_MOST])) for each in strips.values()])
    apart = [magnified * (each[:_MOST] - exact[:_MOST]).abs() - 1 for each in strips.values()]
    differences = torch.cat([_strip(pictures_of(each)) for each in apart])
    both = torch.cat([shown, torch.ones(len(shown), 4, 3), differences], 1)
    axes.imshow(both.numpy(), interpolation="nearest", aspect="equal")
    side = exact.shape[-1] + _GAP
    axes.set_yticks([side * (row + 0.5) for row in range(len(strips))], list(strips), fontsize=7.5)
    axes.set_xticks([shown.shape[1] / 2, 1.5 * shown.shape[1]], ["images", f"differences, {magnified} x"])
    axes.spines[:].set_visible(False)
    return figure


def _strip(pictures: Tensor) -> Tensor:
    """`[B, H, W, 3]` in a line `[H, B W, 3]`, with white between."""
    framed = torch.nn.functional.pad(pictures, (0, 0, 0, _GAP, 0, _GAP), value=1.0)
    return torch.cat(list(framed), 1)
