"""What was measured of collapse, as tables, a figure and words."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from acclimate.core.storage import atomic_write
from acclimate.experiment.collapse import GROUPS, TABLE, Estimate, Level
from acclimate.experiment.neural_collapse import NeuralCollapse
from acclimate.experiment.plots.collapse import misalignment_over_severity
from acclimate.experiment.reproduce.part import Cell, Drawing, Grid, Line, Shown
from acclimate.experiment.reproduce.write import write_all
from acclimate.experiment.results import SOURCE

__all__ = ["collapse_reading", "level_grid", "write_collapse"]

_HEAD = ("error, %", "G-FCA", "±", "change", "± of change", "G-FCA, right", "G-FCA, wrong", "P-FCA, wrong")
_NOTES = (
    "Distances are between a feature and a row of the classifier, both at length 1, from 0 (the same direction) to 2: "
    "G-FCA from the row of the true class, P-FCA from that of the class answered; for right answers the two are one. "
    "change: of G-FCA against the unadapted model on the same images. ± is half of a 95 % interval, from drawing whole "
    "images with replacement. Groups of fewer than ten answers are left out.",
    "Every answer is measured as the model gives it on the arriving batch, after what it learned from earlier batches "
    "and before the step on this one.",
)


def _number(value: float) -> str | None:
    return f"{value:.3f}" if math.isfinite(value) else None


def _spread(found: Estimate | None) -> str | None:
    return None if found is None else _number((found.high - found.low) / 2)


def level_grid(levels: Sequence[Level]) -> Grid:
    """A line for each severity and model."""
    lines: list[Line] = []
    for level in levels:
        truth, changed = level.truth, level.change
        cells: list[Cell] = [
            level.error,
            _number(truth["all"].mean),
            _spread(truth["all"]),
            None if changed is None else f"{changed.mean:+.3f}",
            _spread(changed),
            _number(truth["right"].mean),
            _number(truth["wrong"].mean),
            _number(level.answer["wrong"].mean),
        ]
        lines.append(Line("measured", f"severity {level.severity}, {level.label}", cells))
    return Grid(key="collapse", head=_HEAD, lines=lines)


def _source_grid(found: NeuralCollapse) -> Grid:
    names = ("nc1", "nc2_norms", "nc2_angles", "nc3", "nc4", "nc3_plus")
    head = ("NC1", "NC2, norms", "NC2, angles", "NC3", "NC4", "NC3+", "images")
    cells: list[Cell] = [*(f"{getattr(found, name):.3f}" for name in names), str(found.samples)]
    title = "The source model on images of its source (0: collapsed)"
    return Grid(key="source-collapse", head=head, lines=[Line("measured", SOURCE, cells)], title=title)


def _trend(levels: Sequence[Level], label: str) -> tuple[Level, Level]:
    own = sorted((level for level in levels if level.label == label), key=lambda level: level.severity)
    return own[0], own[-1]


def collapse_reading(levels: Sequence[Level]) -> str:
    """What the numbers say, in sentences, whichever way they point."""
    low, high = _trend(levels, SOURCE)
    before, after = low.truth["all"].mean, high.truth["all"].mean
    way = "grows" if after > before else "does not grow"
    said = [
        f"Without adaptation the mean distance from the true class {way}: {before:.3f} at severity {low.severity}, "
        f"{after:.3f} at severity {high.severity}."
    ]
    if math.isfinite(high.truth["wrong"].mean):
        said.append(
            f"There, wrong answers lie {high.truth['wrong'].mean:.3f} from their own class and "
            f"{high.answer['wrong'].mean:.3f} from the class they chose, right ones {high.truth['right'].mean:.3f}."
        )
    for label in dict.fromkeys(level.label for level in levels if level.label != SOURCE):
        _, worst = _trend(levels, label)
        change = worst.change
        assert change is not None
        way = "closer" if change.high < 0 else "further" if change.low > 0 else "neither closer nor further"
        said.append(
            f"With {label}, features at severity {worst.severity} are {way} ({change.mean:+.3f}, 95 % interval "
            f"{change.low:+.3f} to {change.high:+.3f}), and the error is {worst.error:.1f} % instead of "
            f"{high.error:.1f} %."
        )
    return " ".join(said)


def write_collapse(
    folder: str | Path,
    levels: Sequence[Level],
    *,
    source: NeuralCollapse | None = None,
    protocol: str = "",
    about: str = "",
    facts: Mapping[str, Any] | None = None,
) -> tuple[Path, Path]:
    """Write collapse.md, collapse.html, collapse.json, tables as CSV and JSON, and the figure as PNG.

    Returns the markdown and the HTML file.
    """
    folder = Path(folder).expanduser()
    what = "Three panels over severity: distance from the true class, right and wrong answers apart, and the error."
    shown = Shown(
        title="Alignment of features with the classifier, by severity",
        protocol=protocol,
        grids=[level_grid(levels), *([] if source is None else [_source_grid(source)])],
        drawings=[Drawing(key="collapse", figure=misalignment_over_severity(levels), alternative=what)],
        notes=[collapse_reading(levels), *_NOTES],
    )
    whole = {
        **(facts or {}),
        "protocol": protocol,
        "source": None if source is None else dataclasses.asdict(source),
        "levels": [_plain(level) for level in levels],
    }
    text = json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    atomic_write(folder / TABLE, text.encode())
    (folder / TABLE).chmod(0o644)
    return write_all(folder, "Neural collapse under shift", about, [shown], name="collapse")


def _plain(level: Level) -> dict[str, Any]:
    def told(found: Estimate | None) -> dict[str, float] | None:
        return dataclasses.asdict(found) if found is not None and math.isfinite(found.mean) else None

    return {
        "label": level.label,
        "severity": level.severity,
        "error": level.error,
        "samples": level.samples,
        "truth": {name: told(level.truth[name]) for name in GROUPS},
        "answer": {name: told(level.answer[name]) for name in GROUPS},
        "change": told(level.change),
        "kept": level.kept,
    }
