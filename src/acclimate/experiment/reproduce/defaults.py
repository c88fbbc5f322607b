"""How PALM's default was chosen: settings beside other methods, on validation streams."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from acclimate.experiment.reproduce.part import Grid, Line, Part, Shown, average, spread
from acclimate.experiment.reproduce.request import Request
from acclimate.experiment.reproduce.store import Outcome, Store
from acclimate.experiment.reproduce.trial import Trial

__all__ = ["Defaults"]

_OTHERS = ("bn", "tent", "law")
_GRID: tuple[dict[str, float], ...] = (
    *({"learning_rate": 5e-4, "temperature": 50.0, "alpha": alpha} for alpha in (0.1, 0.3, 0.5)),
    *({"learning_rate": 5e-4, "temperature": 75.0, "alpha": alpha} for alpha in (0.1, 0.3)),
    *({"learning_rate": rate, "temperature": 50.0, "alpha": 0.3} for rate in (2.5e-4, 1e-3, 2e-3)),
    {"learning_rate": 1e-3, "temperature": 50.0, "alpha": 0.5},
)


class Defaults(Part):
    """On validation streams only: this table is for choosing, so it must not see the test stream."""

    key = "table-defaults"

    def _trials(self, request: Request) -> dict[str, list[Trial]]:
        fixed = {name: request.trials(name, "validation") for name in (*_OTHERS, "palm:default")}
        return fixed | {
            ", ".join(f"{name}={value:g}" for name, value in change.items()): request.trials(
                "palm:default", "validation", **change
            )
            for change in _GRID
        }

    def wanted(self, request: Request, store: Store, failed: Mapping[str, str]) -> list[Trial]:
        return [trial for trials in self._trials(request).values() for trial in trials]

    def show(self, request: Request, store: Store, failed: Mapping[str, str]) -> Shown:
        lines: list[Line] = []
        for name, trials in self._trials(request).items():
            outcomes = store.all(trials)
            mean = average(outcomes, lambda outcome: outcome.mean_error())
            share = average(outcomes, lambda outcome: outcome.mean_value("parameter_share"))
            rounds = [average(outcomes, lambda outcome, at=at: _round(outcome, at)) for at in (0, -1)]
            lines.append(
                Line("measured", name, [mean, spread(outcomes), *rounds, None if share is None else 100 * share])
            )
        return Shown(
            title="PALM's default beside other methods, error in percent",
            protocol=request.protocol("validation"),
            grids=[
                Grid(
                    key=self.key,
                    head=["mean", "± seeds", "first round", "last round", "share, %"],
                    lines=lines,
                    fine=frozenset({"mean", "± seeds", "first round", "last round"}),
                )
            ],
            notes=[
                '`palm:default` is what acclimate.adapt(net, "palm") does; the other lines change settings of it. The '
                "threshold stays at 1, and stage 1 scales with 1 / T^2, so a higher temperature selects more. On the "
                "validation stream; nothing of this kind is published.",
                *self.reasons(self.wanted(request, store, failed), failed),
            ],
        )


def _round(outcome: Outcome, at: int) -> float | None:
    """The mean error of the first (0) or last (-1) round of the four extra corruptions."""
    length = len({name for name, _ in outcome.segments})
    errors: list[Any] = list(outcome.errors)
    known = [error for error in (errors[:length] if at == 0 else errors[-length:]) if error is not None]
    return sum(known) / len(known) if known else None
