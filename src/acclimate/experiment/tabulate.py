"""The table of results: its columns once, for terminal, markdown, CSV and HTML."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import Literal

from acclimate.experiment.results import Results

__all__ = ["Column", "abbreviation", "columns_of", "to_csv", "to_markdown"]

_SHORT = {
    "gaussian_noise": "gauss",
    "shot_noise": "shot",
    "impulse_noise": "impul",
    "speckle_noise": "speck",
    "gaussian_blur": "gblur",
    "defocus_blur": "defoc",
    "glass_blur": "glass",
    "motion_blur": "motn",
    "zoom_blur": "zoom",
    "brightness": "brit",
    "contrast": "contr",
    "elastic_transform": "elast",
    "pixelate": "pixel",
    "jpeg_compression": "jpeg",
    "saturate": "satur",
    "spatter": "spatt",
}


def abbreviation(name: str) -> str:
    """A corruption's name in at most five letters, other names as they are."""
    return _SHORT.get(name, name)


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column: how to get a method's value, how to write it, and which values are good."""

    name: str
    kind: Literal["shift", "mean", "cost"]
    value: Callable[[Results, str], float | None]
    form: str = "{:.1f}"
    better: Literal["low", "high"] | None = None
    unit: str = ""

    def text(self, value: float | None) -> str:
        """The value as shown; a dash where there is none."""
        return "-" if value is None or not isfinite(value) else self.form.format(value)

    def harm(self, value: float | None, source: float | None) -> bool:
        """Whether this error is worse than the source's."""
        if self.better == "high":
            return value is not None and value < -0.05
        return self.better == "low" and value is not None and source is not None and value > source + 0.05


def _shift(name: str) -> Column:
    return Column(
        name=name,
        kind="shift",
        value=lambda results, label: results.corruption_errors(label)[name],
        better="low",
        unit="%",
    )


def _error(name: str, value: Callable[[Results, str], float | None]) -> Column:
    return Column(name=name, kind="mean", value=value, form="{:.2f}", better="low", unit="%")


def _means(results: Results) -> list[Column]:
    """Over segments; where domains mix, over domains, over all answers, and the worst domain."""
    columns = [_error("macro" if results.mixed else "mean", _macro if results.mixed else lambda r, m: r.mean_error(m))]
    if results.gradual and any(level == 5 for _, level in results.segments):
        columns.append(_error("mean at 5", lambda r, m: r.mean_error(m, severity=5)))
    if results.mixed or results.unequal:
        columns.append(_error("pooled", lambda r, m: r.pooled_error(m)))
    if results.mixed:
        columns.append(_error("worst", _worst))
    return columns


def _macro(results: Results, label: str) -> float:
    return results.macro_error(label)


def _worst(results: Results, label: str) -> float | None:
    worst = results.worst_domain(label)
    return None if worst is None else worst[1]


def _held(results: Results, label: str) -> float | None:
    return None if results.guard(label) is None else 100 * results.share(label, "held")


def _forgotten(name: str, value: Callable[[Results, str], float | None]) -> Column:
    return Column(name=name, kind="mean", value=value, form="{:+.2f}", unit="points")


def _forgetting(results: Results) -> list[Column]:
    """Points of accuracy lost on source samples, in the stream and, where some were held out, after it."""
    if not results.forgets:
        return []
    columns = [
        _forgotten("forgets, in stream", lambda r, m: r.forgetting(m)),
        _forgotten("forgets, held out", lambda r, m: r.forgetting_after(m)),
    ]
    return [column for column in columns if any(column.value(results, label) is not None for label in results.methods)]


def columns_of(results: Results) -> list[Column]:
    """Error of each shift, means, forgetting, gain over source, time, and what a paced method missed or a guard held.

    Shifts are corruptions, or domains where these mix. The means: over segments, and in gradual streams over those of
    full severity; where domains mix, over domains (`macro`), over all answers (`pooled`), and the `worst` domain.
    """
    columns = [*map(_shift, results.corruptions), *_means(results)]
    if any(results.spread(label) is not None for label in results.methods):
        columns.append(
            Column(name="± seeds", kind="mean", value=lambda r, m: r.spread(m), form="{:.2f}", unit="points")
        )
    columns += _forgetting(results)
    columns.append(
        Column(name="gain", kind="mean", value=lambda r, m: r.gain(m), form="{:+.2f}", better="high", unit="points")
    )
    columns.append(Column(name="time", kind="cost", value=lambda r, m: r.ratio(m), form="{:.1f}x", unit="x source"))
    if any(record.header.pace is not None for record in results.records):
        columns.append(
            Column(
                name="missed", kind="cost", value=lambda r, m: 100 * r.missed(m), form="{:.0f}%", unit="% of batches"
            )
        )
    if any(results.guard(label) is not None for label in results.methods):
        columns.append(Column(name="held", kind="cost", value=_held, form="{:.0f}%", unit="% of answers"))
    return columns


def to_markdown(results: Results) -> str:
    """The table as GitHub-flavoured markdown, methods down."""
    columns = columns_of(results)
    head = ["error, %", *(column.name.replace("_", " ") for column in columns)]
    lines = [f"| {' | '.join(head)} |", f"|{'|'.join(['---', *(['--:'] * len(columns))])}|"]
    for label in results.methods:
        cells = [column.text(column.value(results, label)) for column in columns]
        lines.append(f"| {' | '.join([label, *cells])} |")
    return "\n".join(lines) + "\n"


def to_csv(results: Results) -> str:
    """The table as CSV with full precision; a missing value is empty. `time` is a multiple of the source's."""
    columns = columns_of(results)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["method", *(column.name for column in columns), "milliseconds"])
    for label in results.methods:
        values = [column.value(results, label) for column in columns] + [results.milliseconds(label)]
        writer.writerow([label, *("" if v is None or not isfinite(v) else repr(v) for v in values)])
    return text.getvalue()
