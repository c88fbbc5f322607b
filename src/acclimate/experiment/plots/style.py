"""One look for all figures."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from acclimate.experiment.results import SOURCE

__all__ = ["GREY", "INK", "PAPER", "blank", "colours", "embedded", "readable", "to_svg"]

INK, GREY, PAPER = "#1f2430", "#8a8f98", "#ffffff"

_PALETTE = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5195", "#b0413e",
    "#3d7c47", "#94651a", "#4059ad", "#c2185b", "#00838f", "#827717", "#5d4037", "#455a64",
)  # fmt: skip

_LOOK: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.edgecolor": "#c9ccd1",
    "axes.labelcolor": INK,
    "axes.titlesize": 10.5,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "svg.fonttype": "path",
    "svg.hashsalt": "acclimate",
}


def colours(labels: Sequence[str]) -> dict[str, str]:
    """A colour for each method, the source grey."""
    others = [label for label in labels if label != SOURCE]
    return {SOURCE: GREY} | {label: _PALETTE[number % len(_PALETTE)] for number, label in enumerate(others)}


def blank(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty figure in inches, with only the axes that carry something."""
    with mpl.rc_context(_LOOK):
        figure = Figure(figsize=(width, height), layout="constrained", facecolor=PAPER)
        axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(length=0)
    return figure, axes


def readable(red: float, green: float, blue: float) -> str:
    """Black or white, whichever can be read on this colour."""
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return INK if luminance > 0.48 else PAPER


def to_svg(figure: Figure) -> str:
    """The figure as an SVG document; the same figure gives the same text."""
    text = io.StringIO()
    with mpl.rc_context(_LOOK):
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def embedded(figure: Figure, alternative: str) -> str:
    """The figure as markup that needs no other file, with what it shows in words."""
    code = base64.b64encode(to_svg(figure).encode()).decode()
    return f'<div class="figure"><img alt="{escape(alternative)}" src="data:image/svg+xml;base64,{code}"></div>'
