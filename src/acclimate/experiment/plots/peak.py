"""Error against what backward keeps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from matplotlib.transforms import Bbox

from acclimate.experiment.plots.style import GREY, INK, blank, colours

__all__ = ["Point", "against_peak"]

_FONT = 8.0
_FAR = 2.5
"""A point that is further above the others than this many times their spread stands at the upper edge."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One method: its name, the bytes that it keeps at its peak, its error in percent, what it belongs to."""

    label: str
    peak: float
    error: float
    group: str = ""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.peak) and self.peak >= 0 and math.isfinite(self.error)):
            raise ValueError(
                f"{self.label} keeps {self.peak} bytes with an error of {self.error} %; expected finite numbers, and "
                "no fewer than 0 bytes."
            )


def against_peak(points: Sequence[Point], *, what: str = "bytes that backward keeps at its peak") -> Figure:
    """Error in percent over bytes, on a logarithmic axis in MB; one colour for each group, labels beside the points.

    Who keeps nothing stands in a band of its own at the left. One point far above all others, such as a source model
    that fails, stands at the upper edge with its error in its label. ValueError where there is no point.
    """
    if not points:
        raise ValueError("there is no point to draw; expected at least one method with its bytes and its error.")
    figure, axes = blank(11, 6.6)
    nothing = _horizontal(axes, points)
    ceiling = _vertical(axes, [point.error for point in points])
    groups = list(dict.fromkeys(point.group for point in points))
    palette = colours(groups)
    places: list[tuple[float, float]] = []
    for point in points:
        above = point.error > ceiling
        places.append((point.peak / 1e6 if point.peak else nothing, ceiling if above else point.error))
        axes.scatter(
            *places[-1], s=46, marker="^" if above else "o", color=palette[point.group], edgecolors="white",
            linewidths=0.8, zorder=4, clip_on=False,
        )  # fmt: skip
    for group in groups:
        if group:
            axes.scatter([], [], s=46, color=palette[group], label=group)
    if any(groups):
        axes.legend(
            loc="lower left",
            bbox_to_anchor=(0, 1.0),
            ncols=len(groups),
            frameon=False,
            borderaxespad=0.4,
            handletextpad=0.2,
        )
    axes.set_xlabel(f"MB, {what} (left is better)")
    axes.set_ylabel("error, % (lower is better)")
    axes.grid(axis="both", color="#e3e5e8", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines["bottom"].set_color(GREY)
    _label(figure, axes, points, places, ceiling)
    return figure


def _horizontal(axes: Axes, points: Sequence[Point]) -> float:
    """Lay out the axis of bytes; gives the place of those that keep nothing."""
    sizes = [point.peak / 1e6 for point in points if point.peak] or [1.0]
    low, high = min(sizes) / 1.6, max(sizes) * 2.2
    marks = [
        digit * 10.0**power
        for power, digit in product(range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1), (1, 2, 5))
        if low <= digit * 10.0**power <= high
    ]
    left, nothing = low, low
    if any(not point.peak for point in points):
        width = (high / low) ** 0.14
        left, nothing = low / width, low / width**0.72
        axes.axvspan(left, low, color="#f3f4f6", zorder=0, linewidth=0)
        axes.axvline(low, color=GREY, linewidth=0.8, linestyle=(0, (3, 2)), zorder=1)
        marks = [nothing, *marks]
    axes.set_xscale("log")
    axes.set_xlim(left, high)
    axes.xaxis.set_major_locator(FixedLocator(marks))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: "0" if value < low else f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    return nothing


def _vertical(axes: Axes, errors: Sequence[float]) -> float:
    """Lay out the axis of errors; gives the height above which a point is brought down to the upper edge."""
    ordered = sorted(errors)
    low, top = ordered[0], ordered[-1]
    spread = max(ordered[-2] - low, 0.5) if len(ordered) > 2 else 0.0
    if spread and top - ordered[-2] > _FAR * spread:
        top = ordered[-2] + 0.3 * spread
    room = 0.1 * max(top - low, 0.5)
    axes.set_ylim(low - 1.6 * room, top + room)
    return top


def _label(
    figure: Figure,
    axes: Axes,
    points: Sequence[Point],
    places: Sequence[tuple[float, float]],
    ceiling: float,
) -> None:
    """Write each name where it covers no point and no other name, as near to its point as there is room."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # the layout settles
    renderer, unit = canvas.get_renderer(), figure.dpi / 72
    spots = [tuple(axes.transData.transform(place)) for place in places]
    taken = [Bbox.from_bounds(x - 5 * unit, y - 5 * unit, 10 * unit, 10 * unit) for x, y in spots]
    frame = axes.get_window_extent(renderer)
    for point, place, (x, y) in zip(points, places, spots, strict=True):
        name = f"{point.label}, {point.error:.1f} %" if point.error > ceiling else point.label
        text = axes.annotate(
            name, place, (0, 0), textcoords="offset points", fontsize=_FONT, color=INK, va="center", ha="center"
        )
        size = text.get_window_extent(renderer)
        offset = _free(x, y, size.width + 3 * unit, size.height + unit, unit, frame, taken)
        text.xyann = (offset[0] / unit, offset[1] / unit)
        box = Bbox.from_bounds(x + offset[0] - size.width / 2, y + offset[1] - size.height / 2, size.width, size.height)
        taken.append(box)
        near = (min(max(x, box.x0), box.x1), min(max(y, box.y0), box.y1))
        if math.dist((x, y), near) > 9 * unit:
            axes.annotate(
                "", place, ((near[0] - x) / unit, (near[1] - y) / unit), textcoords="offset points",
                arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 4}, zorder=2,
            )  # fmt: skip


def _free(
    x: float, y: float, width: float, height: float, unit: float, frame: Bbox, taken: Sequence[Bbox]
) -> tuple[float, float]:
    """The offset of a box's middle from its point, in pixels, the nearest one that is free."""
    right, up = width / 2 + 6 * unit, height / 2 + 6 * unit
    sides = ((right, 0.0), (-right, 0.0), (0.0, up), (0.0, -up), (right, up), (right, -up), (-right, up), (-right, -up))
    rings = [(dx, dy + sign * ring * 5 * unit) for ring in range(28) for sign in (1, -1) for dx, dy in sides]

    def gap(offset: tuple[float, float]) -> float:
        return math.hypot(max(abs(offset[0]) - width / 2, 0), max(abs(offset[1]) - height / 2, 0))

    tried = sorted(dict.fromkeys(rings), key=lambda offset: round(gap(offset) / unit))  # the right side first
    for dx, dy in tried:
        box = Bbox.from_bounds(x + dx - width / 2, y + dy - height / 2, width, height)
        inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
        if inside and not any(box.overlaps(other) for other in taken):
            return dx, dy
    return right, 0.0
