"""Table 5: which share of the parameters is adapted."""

from __future__ import annotations

from collections.abc import Mapping

from acclimate.experiment.reproduce.part import Cell, Grid, Line, Part, Shown, average
from acclimate.experiment.reproduce.published import SHARE
from acclimate.experiment.reproduce.request import Request
from acclimate.experiment.reproduce.store import Outcome, Store
from acclimate.experiment.reproduce.trial import Trial

__all__ = ["Share"]


class Share(Part):
    """PALM's selected set against all that it could select, and CoTTA, which moves everything."""

    key = "table-5"

    def _trials(self, request: Request) -> dict[str, list[Trial]]:
        names = ["palm", *(["cotta"] if "cotta" in request.chosen(["cotta"]) else [])]
        return {name: request.trials(name) for name in names}

    def wanted(self, request: Request, store: Store, failed: Mapping[str, str]) -> list[Trial]:
        return [trial for trials in self._trials(request).values() for trial in trials]

    def show(self, request: Request, store: Store, failed: Mapping[str, str]) -> Shown:
        published = SHARE.get(request.published, {})
        lines: list[Line] = []
        for name, trials in self._trials(request).items():
            outcomes = store.all(trials)
            cells: list[Cell] = [average(outcomes, _share), published.get(name)]
            of = average(outcomes, lambda outcome: outcome.facts["adapted"])
            lines.append(Line("measured", name, [*cells, None if of is None else f"{of:,.0f}"]))
        return Shown(
            title="Table 5: adapted parameters, percent",
            protocol=request.protocol(),
            grids=[Grid(key=self.key, head=["share", "published", "of"], lines=lines)],
            notes=[
                "The share is of the tensors that pass PALM's threshold, averaged over the batches of a corruption and "
                "then over corruptions. It counts the selected set: tensors selected earlier move on at their last "
                "rate. The threshold suits one network and batch size, so the share is a property of both.",
                request.elsewhere(),
                *self.reasons(self.wanted(request, store, failed), failed),
            ],
        )


def _share(outcome: Outcome) -> float | None:
    share = outcome.mean_value("parameter_share")
    if share is None:
        share = outcome.facts["adapted"] / outcome.facts["parameters"]
    return 100 * share
