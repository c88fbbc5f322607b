"""Tables 7 and 8: PALM with one setting changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from acclimate.experiment.reproduce.part import Grid, Line, Part, Shown, average, spread
from acclimate.experiment.reproduce.published import LAMBDA, PSEUDO_LABEL
from acclimate.experiment.reproduce.request import Request
from acclimate.experiment.reproduce.store import Store
from acclimate.experiment.reproduce.trial import Trial

__all__ = ["Consistency", "Score"]


class _Setting(Part):
    """One setting, the values it takes, and the published error of each."""

    setting: str
    title: str
    note: str
    published: Mapping[str, Mapping[Any, float]]

    def _trials(self, request: Request) -> dict[Any, list[Trial]]:
        values = next(iter(self.published.values()))
        return {value: request.trials("palm", "continual", **{self.setting: value}) for value in values}

    def wanted(self, request: Request, store: Store, failed: Mapping[str, str]) -> list[Trial]:
        return [trial for trials in self._trials(request).values() for trial in trials]

    def show(self, request: Request, store: Store, failed: Mapping[str, str]) -> Shown:
        published = self.published.get(request.published, {})
        lines: list[Line] = []
        for value, trials in self._trials(request).items():
            outcomes = store.all(trials)
            mean = average(outcomes, lambda outcome: outcome.mean_error())
            share = average(outcomes, lambda outcome: outcome.mean_value("parameter_share"))
            shown = None if share is None else 100 * share
            lines.append(
                Line("measured", f"{self.setting}={value}", [mean, published.get(value), spread(outcomes), shown])
            )
        return Shown(
            title=self.title,
            protocol=request.protocol(),
            grids=[Grid(key=self.key, head=["mean", "published", "± seeds", "share, %"], lines=lines)],
            notes=[self.note, request.elsewhere(), *self.reasons(self.wanted(request, store, failed), failed)],
        )


class Score(_Setting):
    """Table 7: what tensors are selected by."""

    key = "table-7"
    setting = "score"
    title = "Table 7: selection by the model's own label, and by divergence from the uniform answer; error in percent"
    note = (
        "The paper gives no threshold of its own for the pseudo-label score; the benchmark's is kept, so the share of "
        "selected parameters differs too."
    )
    published = PSEUDO_LABEL


class Consistency(_Setting):
    """Table 8: the weight of the consistency loss."""

    key = "table-8"
    setting = "consistency"
    title = "Table 8: weight lambda of the consistency loss; error in percent"
    note = "Lambda is the paper's axis; the released code, and so palm, multiplies it by the number of classes."
    published = LAMBDA
