"""DeCo-SGD with one thing changed at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from acclimate.experiment.reproduce.part import Grid, Line, Shown
from acclimate.fields.wide_area.network.estimator import Estimator
from acclimate.fields.wide_area.policy.controller import Controller
from acclimate.fields.wide_area.policy.deco import DeCo
from acclimate.fields.wide_area.policy.guard import Guard
from acclimate.fields.wide_area.reproduction.contenders import CONTENDERS, MOST_STALE, Contender, Scene
from acclimate.fields.wide_area.reproduction.places import Place
from acclimate.fields.wide_area.reproduction.trials import Told, Trial, courses
from acclimate.fields.wide_area.wire.entries import Entries

__all__ = ["VARIANTS", "ablations", "variant"]


class _ByQueues(Estimator):
    """Without spreads: from messages that waited for others, and the difference of sizes."""

    def observe(
        self, submitted: float, bits: float, delivered: float, spread: float = math.nan, copies: float = 1.0
    ) -> None:
        super().observe(submitted, bits, delivered)


def _variant(
    key: str,
    title: str,
    *,
    rule: Mapping[str, Any] | None = None,
    cadence: Mapping[str, Any] | None = None,
    options: Callable[[], Mapping[str, Any]] = dict,
) -> Contender:
    def steer(scene: Scene) -> Controller:
        policy = replace(DeCo(most_stale=MOST_STALE), **(rule or {}))
        return Controller(policy, scene.dense_bits, guard=Guard(), **(cadence or {}))

    return Contender(key=key, title=title, steer=steer, options=options)


VARIANTS: Mapping[str, Contender] = {
    each.key: each
    for each in (
        CONTENDERS["deco"],
        _variant("noise:note", "noise as in the reading note", rule={"noise": "note"}),
        _variant("noise:tight", "noise that adds up", rule={"noise": "tight"}),
        _variant("ratio-only", "staleness at most 1: the ratio alone adapts", rule={"most_stale": 1}),
        CONTENDERS["delayed"],
        _variant("every:5", "decisions every 5 iterations", cadence={"every": 5}),
        _variant("every:20", "decisions every 20 iterations, jumps of 30 %", cadence={"every": 20, "jump": 0.3}),
        _variant("every:100", "decisions every 100 iterations, whatever jumps", cadence={"every": 100, "jump": 1e9}),
        _variant("queues", "bandwidth from queues, not from spreads", options=lambda: {"estimator": _ByQueues()}),
        _variant("forgetful", "no error feedback", options=lambda: {"feedback": False}),
        _variant("half", "values in float16", options=lambda: {"entries": Entries(values="float16")}),
    )
}
"""By key: the method as it is, then what is changed."""


def variant(name: str) -> Contender:
    """One of `VARIANTS`."""
    return VARIANTS[name]


def ablations(
    folder: Path,
    *,
    workload: str = "digits",
    places: Sequence[Place] = (Place(trace="sine"), Place(trace="markov"), Place(trace="drop")),
    rates: Sequence[float] = (0.2, 0.1),
    seeds: Sequence[int] = (0, 1, 2),
    limit: int = 2500,
    jobs: int = 1,
    told: Told | None = None,
) -> Shown:
    """Seconds to the target for each variant, mean over seeds, at the best of the step sizes at each place."""
    head = [place.named() for place in places]
    lines: list[Line] = []
    for name, contender in VARIANTS.items():
        cells: list[str | None] = []
        for place in places:
            means: list[float] = []
            for rate in rates:
                trials = [
                    Trial(workload=workload, place=place, contender=name, rate=rate, seed=seed, limit=limit)
                    for seed in seeds
                ]
                found = [each.seconds for each in courses(folder, trials, jobs=jobs, told=told, named=variant)]
                known = [each for each in found if each is not None]
                means.append(fmean(known) if len(known) == len(found) else math.inf)
            cells.append(f"{min(means):.1f}" if math.isfinite(min(means)) else None)
        lines.append(Line("measured", contender.title, cells))
    return Shown(
        title="One thing changed",
        protocol=(
            f"{workload}, virtual clock; mean seconds to the target over seeds {', '.join(map(str, seeds))} at the "
            f"best of {len(rates)} step sizes; a dash where a seed did not come to it"
        ),
        grids=[Grid(key="ablations", head=head, lines=lines)],
    )
