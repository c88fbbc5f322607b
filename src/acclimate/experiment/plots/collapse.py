"""Misalignment of features over severity, before and after adaptation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from acclimate.experiment.collapse import Estimate, Level
from acclimate.experiment.plots.style import GREY, blank, colours
from acclimate.experiment.results import SOURCE

__all__ = ["misalignment_over_severity"]

_BEFORE = "before adaptation"


def _named(label: str) -> str:
    return _BEFORE if label == SOURCE else label


def _line(axes: Axes, levels: Sequence[Level], what: Callable[[Level], Estimate], colour: str, **look: object) -> None:
    """A line with the band of its intervals."""
    places = [level.severity for level in levels]
    found = [what(level) for level in levels]
    axes.fill_between(
        places, [each.low for each in found], [each.high for each in found], color=colour, alpha=0.15, linewidth=0
    )
    axes.plot(places, [each.mean for each in found], color=colour, marker="o", markersize=4, **look)  # pyright: ignore[reportArgumentType]


def _finish(axes: Axes, title: str, severities: Sequence[int], ylabel: str) -> None:
    axes.set_title(title, loc="left")
    axes.set_xlabel("severity")
    axes.set_ylabel(ylabel)
    axes.set_xticks(severities)
    axes.grid(axis="y", color="#e3e5e8", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(length=0)


def misalignment_over_severity(levels: Sequence[Level]) -> Figure:
    """Three panels over severity: distance of all answers from their true class, of right and wrong ones from the true
    and the answered class, and the error. Bands are 95 % intervals over images; the unadapted model is grey.
    """
    labels = list(dict.fromkeys(level.label for level in levels))
    severities = sorted({level.severity for level in levels})
    palette = colours(labels)
    figure, first = blank(13.5, 4.6)
    first.remove()
    everyone, groups, errors = figure.subplots(1, 3, width_ratios=(1, 1.25, 1))
    for label in labels:
        own = sorted((level for level in levels if level.label == label), key=lambda level: level.severity)
        colour = palette[label]
        _line(everyone, own, lambda level: level.truth["all"], colour, label=_named(label), linewidth=2)
        _line(groups, own, lambda level: level.truth["wrong"], colour, linewidth=1.8)
        _line(groups, own, lambda level: level.answer["wrong"], colour, linewidth=1.4, linestyle=(0, (4, 2)))
        _line(groups, own, lambda level: level.truth["right"], colour, linewidth=1.4, linestyle=(0, (1, 1.5)))
        errors.plot(
            [each.severity for each in own], [each.error for each in own], color=colour, marker="o", linewidth=2
        )
    _finish(everyone, "All answers", severities, "distance from the row of the true class (G-FCA)")
    _finish(groups, "Right and wrong answers", severities, "distance from a row of the classifier")
    _finish(errors, "Error", severities, "error, %")
    errors.set_ylim(0, None)
    everyone.legend(frameon=False, loc="upper left")
    for text, style in (
        ("wrong answers, from the true class (G-FCA)", "solid"),
        ("wrong answers, from the answered class (P-FCA)", (0, (4, 2))),
        ("right answers (G-FCA = P-FCA)", (0, (1, 1.5))),
    ):
        groups.plot([], [], color=GREY, linestyle=style, linewidth=1.6, label=text)
    groups.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.13), fontsize=8)
    return figure
