"""PALM's released code against its paper: presets, and each difference alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from acclimate.experiment.reproduce.part import Grid, Line, Part, Shown, average, spread
from acclimate.experiment.reproduce.request import Request
from acclimate.experiment.reproduce.store import Store
from acclimate.experiment.reproduce.trial import Trial

__all__ = ["Variants"]

_SWITCHES: Mapping[str, Mapping[str, Any]] = {
    "D1 mean over classes": {"reduction": "mean"},
    "D2 divergence from the model": {"direction": "model"},
    "D3 unselected tensors stay": {"freeze": "per_batch"},
    "D4 a rate for each element": {"granularity": "element"},
    "D5 persistent Adam": {"adam": "persistent"},
    "D6 margin 0.4 log C": {"margin_unit": "log_classes"},
    "D7 lambda not times C": {"consistency_unit": "none"},
}
_DECAY = 5e-4


class Variants(Part):
    """On validation streams only: this table is for choosing, so it must not see the test stream."""

    key = "table-variants"

    def _trials(self, request: Request) -> dict[str, list[Trial]]:
        base = request.trials("palm", "validation")  # with the benchmark's preset: the released code
        decay = 0.0 if getattr(base[0].build(), "weight_decay", 0.0) else _DECAY
        switches = {**_SWITCHES, f"D8 weight decay {decay:g}": {"weight_decay": decay}}
        return {
            f"code ({base[0].method})": base,
            "our default (palm)": request.trials("palm:default", "validation"),
            "paper (palm:paper)": request.trials("palm:paper", "validation"),
            "stable (palm:stable)": request.trials("palm:stable", "validation"),
            **{name: request.trials("palm", "validation", **change) for name, change in switches.items()},
        }

    def wanted(self, request: Request, store: Store, failed: Mapping[str, str]) -> list[Trial]:
        return [trial for trials in self._trials(request).values() for trial in trials]

    def show(self, request: Request, store: Store, failed: Mapping[str, str]) -> Shown:
        lines: list[Line] = []
        code: float | None = None
        for number, (name, trials) in enumerate(self._trials(request).items()):
            outcomes = store.all(trials)
            mean = average(outcomes, lambda outcome: outcome.mean_error())
            share = average(outcomes, lambda outcome: outcome.mean_value("parameter_share"))
            code = mean if number == 0 else code
            gap = None if mean is None or code is None or not number else f"{mean - code:+.2f}"
            lines.append(Line("measured", name, [mean, gap, spread(outcomes), None if share is None else 100 * share]))
        return Shown(
            title="PALM: code against paper, error in percent",
            protocol=request.protocol("validation"),
            grids=[Grid(key=self.key, head=["mean", "against code", "± seeds", "share, %"], lines=lines)],
            notes=[
                "The first line is the released code with the benchmark's settings; each line with a number changes "
                "one thing in it, as the paper has it (D8: what the paper does not mention). On the validation stream; "
                "nothing of this kind is published.",
                *self.reasons(self.wanted(request, store, failed), failed),
            ],
        )
