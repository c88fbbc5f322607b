"""What the results come to, in sentences."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

from acclimate.experiment.paired import paired_difference
from acclimate.experiment.results import SOURCE, Results

__all__ = ["Cell", "best_method", "verdict", "worst_cell"]


@dataclass(frozen=True, slots=True)
class Cell:
    """One method under one corruption, and how many points it gains over the source there."""

    method: str
    corruption: str
    gain: float


def worst_cell(results: Results) -> Cell | None:
    """Where a method loses most against the source, or gains least; None without a method to compare."""
    cells = [
        Cell(label, name, gain)
        for label in results.others
        for name, gain in results.corruption_gains(label).items()
        if isfinite(gain)
    ]
    return min(cells, key=lambda cell: cell.gain, default=None)


def best_method(results: Results) -> str | None:
    """The method with the lowest mean error, the source aside."""
    known = [label for label in results.others if isfinite(results.mean_error(label))]
    return min(known, key=results.mean_error, default=None)


def verdict(results: Results) -> str:
    """One or two sentences: what the best method gains at what price, and the worst that happens."""
    if not isfinite(results.mean_error(results.methods[0])):
        return "Nothing was scored: the stream has no labels."
    best = best_method(results)
    if best is None or SOURCE not in results.methods:
        errors = ", ".join(f"{label} {results.mean_error(label):.2f} %" for label in results.methods)
        return f"Mean error: {errors}."
    source, mine = results.mean_error(SOURCE), results.mean_error(best)
    gap = paired_difference(results, best, SOURCE)
    if gap.real and gap.mean < 0:
        does = f"lowers the mean error from {source:.1f} % (source) to {mine:.1f} %"
    elif gap.real:
        does = f"is the best method and still worse than the source: {mine:.1f} % instead of {source:.1f} %"
    else:
        does = f"does not differ from the source for sure: {mine:.1f} % and {source:.1f} %"
    interval = f"{gap.mean:+.1f} points, 95 % interval {gap.low:+.1f} to {gap.high:+.1f}"
    ratio = results.ratio(best)
    price = f", at {ratio:.1f} times the source's time a batch" if ratio else ""
    return f"{best} {does} ({interval}){price}. {_worst(results)}"


def _worst(results: Results) -> str:
    cell = worst_cell(results)
    if cell is None:
        return ""
    where = f"{cell.method} on {cell.corruption.replace('_', ' ')}"
    if cell.gain < 0:
        return f"The worst cell is {where}: {-cell.gain:.1f} points more error than the source."
    shift = "domain" if results.mixed else "corruption"
    return f"No method loses to the source on any {shift}; the least gain is {where}: {cell.gain:.1f} points."
