"""What the courses show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from matplotlib.figure import Figure

from acclimate.experiment.plots.style import blank, colours
from acclimate.experiment.reproduce.part import Grid, Line
from acclimate.fields.wide_area.reproduction.contenders import CONTENDERS
from acclimate.fields.wide_area.reproduction.places import Place
from acclimate.fields.wide_area.reproduction.simulate import Course

__all__ = ["Row", "curves", "place_grid", "settings_figure"]

Row = tuple[float, Sequence[Course]]
"""The step size that was chosen, and a course for each seed."""


def place_grid(key: str, workload: str, place: Place, rows: Mapping[str, Row]) -> Grid:
    """Time to the target at a place, with gains over D-SGD and over the static setting tuned for the mean."""
    base, static = (_seconds(rows[name][1]) if name in rows else None for name in ("dsgd", "static:mean"))
    lines: list[Line] = []
    for name, (rate, courses) in rows.items():
        seconds = _seconds(courses)
        learned = [each for each in courses if each.seconds is not None]
        cells = [
            f"{len(learned)} of {len(courses)}",
            None if seconds is None else f"{seconds:.1f}",
            None if seconds is None else f"{fmean(each.iterations or 0 for each in learned):.0f}",
            _gain(base, seconds),
            _gain(static, seconds),
            f"{rate:g}",
            f"{fmean(each.bits for each in courses) / 8e6:.1f}",
            f"{100 * fmean(each.stalled for each in courses):.0f}",
        ]
        lines.append(Line("measured", CONTENDERS[name].title, cells))
    head = [
        "learned", "seconds", "iterations", "x over D-SGD", "x over static at the mean", "step size", "MB sent by one",
        "stalled, %",
    ]  # fmt: skip
    return Grid(key=key, head=head, lines=lines, title=f"{workload}: {place.named()}")


def curves(rows: Mapping[str, Row], target: float) -> Figure:
    """Scores of the first seed over virtual time."""
    figure, axes = blank(7.5, 4.0)
    palette = colours(list(rows))
    longest = max((each.seconds or 0.0 for _, courses in rows.values() for each in courses[:1]), default=1.0) or 1.0
    for name, (_, courses) in rows.items():
        points = courses[0].curve
        axes.plot([t for t, _, _ in points], [score for _, _, score in points], label=CONTENDERS[name].title,
                  color=palette[name], linewidth=1.3)  # fmt: skip
    axes.axhline(target, color="#8a8f98", linewidth=0.8, linestyle=":")
    axes.set_xscale("log")
    axes.set_xlim(longest / 300, longest)
    axes.set_xlabel("virtual seconds")
    axes.set_ylabel("held-out score")
    axes.legend(frameon=False, fontsize=7.5)
    return figure


def settings_figure(place: Place, dense_bits: float, course: Course, seed: int = 0) -> Figure:
    """Bandwidth, ratio and staleness of a course over time."""
    figure, axes = blank(7.5, 3.4)
    end = course.curve[-1][0] if course.curve else course.settings[-1][0] + 1.0
    trace = place.link(dense_bits, seed=seed)
    times = [end * step / 400 for step in range(401)]
    scale = place.bandwidth(dense_bits)
    axes.plot(times, [trace.bandwidth(t) / scale for t in times], color="#8a8f98", label="bandwidth over its mean")
    begins = [t for t, _, _ in course.settings] + [end]
    axes.step(begins, [8 * ratio for _, _, ratio in course.settings] + [8 * course.settings[-1][2]], where="post",
              color="#0072b2", label="8 x ratio")  # fmt: skip
    axes.step(begins, [stale / 4 for _, stale, _ in course.settings] + [course.settings[-1][1] / 4], where="post",
              color="#d55e00", label="staleness / 4")  # fmt: skip
    axes.set_xlabel("virtual seconds")
    axes.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    return figure


def _seconds(courses: Sequence[Course]) -> float | None:
    """Mean time to the target; None where a seed did not come to it."""
    found = [each.seconds for each in courses]
    known = [each for each in found if each is not None]
    return fmean(known) if known and len(known) == len(found) else None


def _gain(base: float | None, seconds: float | None) -> str | None:
    return None if base is None or seconds is None else f"{base / seconds:.2f}"
