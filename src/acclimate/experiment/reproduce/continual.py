"""Tables 1 to 3: every method under fifteen corruptions, one after the other, at full strength."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from statistics import fmean

from acclimate.core.method import methods
from acclimate.experiment.reproduce.part import Cell, Grid, Line, Part, Shown, average, spread
from acclimate.experiment.reproduce.published import CONTINUAL, CORRUPTIONS, LIBRARY
from acclimate.experiment.reproduce.request import MODERN, PAPER, Request
from acclimate.experiment.reproduce.store import Outcome, Store
from acclimate.experiment.reproduce.trial import Trial
from acclimate.experiment.tabulate import abbreviation

__all__ = ["Continual", "corruption_error"]

_HEAD = [*map(abbreviation, CORRUPTIONS), "mean", "± seeds", "library", "passes"]


class Continual(Part):
    """The paper's methods in one block, what any comparison needs today in another."""

    key = "table-1"

    def _blocks(self, request: Request) -> dict[str, list[str]]:
        return {
            "The paper's methods": request.chosen(PAPER),
            "What any comparison needs today": [*request.chosen(MODERN), *request.others],
        }

    def wanted(self, request: Request, store: Store, failed: Mapping[str, str]) -> list[Trial]:
        blocks = self._blocks(request).values()
        return [trial for names in blocks for name in names for trial in request.trials(name)]

    def show(self, request: Request, store: Store, failed: Mapping[str, str]) -> Shown:
        grids: list[Grid] = []
        means: dict[str, float] = {}
        for number, (title, names) in enumerate(self._blocks(request).items()):
            lines: list[Line] = []
            for name in names:
                outcomes = store.all(request.trials(name))
                lines += _lines(name, outcomes, request)
                if outcomes is not None:
                    means[name] = fmean(outcome.mean_error() for outcome in outcomes)
            if lines:
                key = self.key if not number else f"{self.key}-today"
                grids.append(Grid(key=key, head=_HEAD, lines=lines, title=title))
        missing = [name for name in (*PAPER, *MODERN) if name.partition(":")[0] not in methods.classes()]
        notes = [
            request.elsewhere(),
            "Published rows are PALM's table; the column library has the benchmark library's means over five seeds, "
            "the fairer mark for baselines. Passes are forwards + backwards a batch, as counted.",
            _order(means, request),
        ]
        if missing and not request.methods:
            notes.append(f"Not in this version: {', '.join(missing)}.")
        if request.without:
            notes.append(f"Left out: {', '.join(request.without)}.")
        notes += self.reasons(self.wanted(request, store, failed), failed)
        return Shown(
            title=f"Table {request.benchmark.continual}: continual, severity 5, error in percent",
            protocol=request.protocol(),
            grids=grids,
            notes=[note for note in notes if note],
        )


def _lines(name: str, outcomes: Sequence[Outcome] | None, request: Request) -> list[Line]:
    cells: list[Cell] = [None] * len(_HEAD)
    if outcomes is not None:
        cells = [corruption_error(outcomes, corruption) for corruption in CORRUPTIONS]
        passes = [average(outcomes, lambda o, kind=kind: o.facts[kind]) or 0.0 for kind in ("forwards", "backwards")]
        mean = average(outcomes, lambda outcome: outcome.mean_error())
        cells += [mean, spread(outcomes), None, " + ".join(f"{each:.3g}" for each in passes)]
    lines = [Line("measured", name, cells)]
    published = CONTINUAL.get(request.published, {}).get(name)
    library = LIBRARY.get(request.published, {}).get(name)
    if published is not None or library is not None:
        row: Sequence[Cell] = published or [None] * (len(CORRUPTIONS) + 1)
        lines.append(Line("published", f"{name}, published", [*row, None, library, None]))
    return lines


def corruption_error(outcomes: Sequence[Outcome], corruption: str) -> float | None:
    """Error under one corruption, mean over seeds."""

    def number(outcome: Outcome) -> float | None:
        pairs = zip(outcome.segments, outcome.errors, strict=True)
        return next((error for (name, _), error in pairs if name == corruption), None)

    return average(outcomes, number)


def _order(means: Mapping[str, float], request: Request) -> str:
    """How many pairs of methods stand in the published order."""
    published = {name: row[-1] for name, row in CONTINUAL.get(request.published, {}).items()}
    both = [(means[name], value) for name, value in published.items() if name in means and value is not None]
    pairs = [(a, b) for a, b in combinations(both, 2) if a[1] != b[1]]
    agree = sum((a[0] - b[0]) * (a[1] - b[1]) > 0 for a, b in pairs)
    ties = sum(a[0] == b[0] for a, b in pairs)
    tied = f", {ties} are level here" if ties else ""
    return f"{agree} of {len(pairs)} pairs of methods stand in the published order{tied}." if pairs else ""
