"""Table 6: PALM against optimisers that set rates by themselves."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite

from acclimate.experiment.reproduce.part import Grid, Line, Part, Shown, average, spread
from acclimate.experiment.reproduce.published import OPTIMIZERS
from acclimate.experiment.reproduce.request import Kind, Request
from acclimate.experiment.reproduce.store import Store
from acclimate.experiment.reproduce.trial import Trial

__all__ = ["RATES", "Optimizers"]

RATES: Mapping[str, tuple[float, ...]] = {
    "lars": (0.01, 0.03, 0.1, 0.3, 1.0, 3.0),
    "prodigy": (0.1, 1.0, 10.0, 100.0),
    "adafactor": (1e-5, 1e-4, 1e-3, 1e-2),
}
"""The rates that are tried on the validation stream, since the published ones are unknown."""


class Optimizers(Part):
    """The rate of each optimiser is chosen on the validation stream, then run once on the test stream."""

    key = "table-6"

    def _trials(self, request: Request, optimizer: str, rate: float, kind: Kind) -> list[Trial]:
        return request.trials("palm", kind, score="none", adam="persistent", optimizer=optimizer, learning_rate=rate)

    def _validation(self, request: Request, store: Store, optimizer: str) -> dict[float, float | None]:
        return {
            rate: average(
                store.all(self._trials(request, optimizer, rate, "validation")), lambda outcome: outcome.mean_error()
            )
            for rate in RATES[optimizer]
        }

    def _chosen(self, request: Request, store: Store, failed: Mapping[str, str], optimizer: str) -> float | None:
        """The rate with the lowest validation error, once all of them ran or could not be run."""
        errors = self._validation(request, store, optimizer)
        for rate, error in errors.items():
            trials = self._trials(request, optimizer, rate, "validation")
            if error is None and not any(trial.key in failed for trial in trials):
                return None
        known = {rate: error for rate, error in errors.items() if error is not None and isfinite(error)}
        return min(known, key=lambda rate: known[rate]) if known else None

    def wanted(self, request: Request, store: Store, failed: Mapping[str, str]) -> list[Trial]:
        trials = [*request.trials("palm"), *request.trials("palm", "validation")]
        for optimizer, rates in RATES.items():
            for rate in rates:
                trials += self._trials(request, optimizer, rate, "validation")
            chosen = self._chosen(request, store, failed, optimizer)
            if chosen is not None:
                trials += self._trials(request, optimizer, chosen, "continual")
        return trials

    def show(self, request: Request, store: Store, failed: Mapping[str, str]) -> Shown:
        published = OPTIMIZERS.get(request.published, {})
        head = ["mean", "published", "± seeds", "rate", "validation"]
        palm = store.all(request.trials("palm"))
        mean = average(palm, lambda outcome: outcome.mean_error())
        own = average(store.all(request.trials("palm", "validation")), lambda outcome: outcome.mean_error())
        lines = [Line("measured", "palm", [mean, published.get("palm"), spread(palm), "as published", own])]
        swept: list[Line] = []
        for optimizer in RATES:
            chosen = self._chosen(request, store, failed, optimizer)
            errors = self._validation(request, store, optimizer)
            outcomes = None
            if chosen is not None:
                outcomes = store.all(self._trials(request, optimizer, chosen, "continual"))
            mean = average(outcomes, lambda outcome: outcome.mean_error())
            rate, error = (None, None) if chosen is None else (f"{chosen:g}", errors[chosen])
            lines.append(Line("measured", optimizer, [mean, published.get(optimizer), spread(outcomes), rate, error]))
            swept += [
                Line("measured", f"{optimizer} {rate:g}{' (chosen)' if rate == chosen else ''}", [error])
                for rate, error in errors.items()
            ]
        return Shown(
            title="Table 6: optimisers, error in percent",
            protocol=f"{request.protocol()}. Rates were chosen on {request.protocol('validation')}",
            grids=[
                Grid(key=self.key, head=head, lines=lines),
                Grid(key=f"{self.key}-rates", head=["validation"], lines=swept, title="Rates on the validation stream"),
            ],
            notes=[
                "Neither code nor rates of the paper's table are published. Here: PALM's loss without its first stage, "
                "one persistent optimiser over all convolution and normalisation tensors, one step a batch; the rate "
                "with the lowest validation error. A rate at the end of its grid may not be the best there is.",
                request.elsewhere(),
                *self.reasons(self.wanted(request, store, failed), failed),
            ],
        )
