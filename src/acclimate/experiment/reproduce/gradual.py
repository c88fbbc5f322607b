"""Table 4: strength rises and falls under each corruption; the mean over all 135 segments."""

from __future__ import annotations

from collections.abc import Mapping

from acclimate.experiment.reproduce.part import Grid, Line, Part, Shown, average, spread
from acclimate.experiment.reproduce.published import GRADUAL
from acclimate.experiment.reproduce.request import PAPER, Request
from acclimate.experiment.reproduce.store import Store
from acclimate.experiment.reproduce.trial import Trial

__all__ = ["Gradual"]


class Gradual(Part):
    """The methods of the paper's table, or those asked for."""

    key = "table-4"

    def _names(self, request: Request) -> list[str]:
        if request.methods:
            return request.ordered()
        return [name for name in request.chosen(PAPER) if name in GRADUAL["cifar10-c"]]

    def wanted(self, request: Request, store: Store, failed: Mapping[str, str]) -> list[Trial]:
        return [trial for name in self._names(request) for trial in request.trials(name, "gradual")]

    def show(self, request: Request, store: Store, failed: Mapping[str, str]) -> Shown:
        published = GRADUAL.get(request.published, {})
        lines: list[Line] = []
        for name in self._names(request):
            outcomes = store.all(request.trials(name, "gradual"))
            mean = average(outcomes, lambda outcome: outcome.mean_error())
            hard = average(outcomes, lambda outcome: outcome.mean_error(5))
            lines.append(Line("measured", name, [mean, published.get(name), spread(outcomes), hard]))
        return Shown(
            title="Table 4: gradual, mean error over all severities, percent",
            protocol=request.protocol("gradual"),
            grids=[Grid(key=self.key, head=["mean", "published", "± seeds", "mean at 5"], lines=lines)],
            notes=[
                request.elsewhere(),
                "The mean is over all segments, as the paper's table; mean at 5 is over the segments of full strength.",
                *self.reasons(self.wanted(request, store, failed), failed),
            ],
        )
