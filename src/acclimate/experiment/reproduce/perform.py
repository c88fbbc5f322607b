"""Run one trial."""

from __future__ import annotations

import math
from collections import defaultdict
from functools import lru_cache
from statistics import fmean, median
from typing import Any

import torch
from torch import nn

from acclimate import Adapted, adapt
from acclimate.experiment.domains import DomainTally
from acclimate.experiment.poison.attack import Attack, attacks
from acclimate.experiment.poison.stream import PoisonedStream
from acclimate.experiment.reproduce.fitting import fitted
from acclimate.experiment.reproduce.holding import Holding
from acclimate.experiment.reproduce.pictures import PictureTally
from acclimate.experiment.reproduce.site import Site
from acclimate.experiment.reproduce.store import Outcome
from acclimate.experiment.reproduce.trial import StreamChoice, Trial
from acclimate.experiment.rows import BatchRow
from acclimate.experiment.unit import Unit
from acclimate.streams import Stream

__all__ = ["perform"]

_DETAILED = 20
"""Streams of more segments than this leave no detail for each tensor."""


@lru_cache(maxsize=4)
def _source(site: Site, network: str) -> nn.Module:
    return site.source(network)


@lru_cache(maxsize=2)
def _poisoned(site: Site, network: str, choice: StreamChoice, seed: int, attack: Attack) -> Stream:
    """Kept, since its rows take longer to make than to answer."""
    return PoisonedStream(site.stream(choice, seed), site.training(), attack, _source(site, network), seed=seed)


def perform(trial: Trial, site: Site) -> Outcome:
    """Answer the trial's stream; the same trial gives the same errors wherever it is run on the same machine.

    Raises:
        ValueError: a method that cannot adapt this model, or lacks something.
    """
    torch.set_num_threads(site.threads)
    model, stream = _source(site, trial.network), site.stream(trial.stream, trial.seed)
    if trial.attack is not None:
        stream = _poisoned(site, trial.network, trial.stream, trial.seed, attacks.build(trial.attack))
    method, found = fitted(trial, site, model, stream)
    adapted = site.compiled(adapt(model, method, seed=trial.seed, guard=trial.guard))
    tally = DomainTally(stream.domains, stream.source)
    unit = Unit(trial.method, trial.seed, adapted, site.device, tally=tally)
    rows: list[list[BatchRow]] = [[] for _ in stream.segments]
    detailed = len(rows) <= _DETAILED
    importance = [defaultdict[str, list[float | None]](list) for _ in rows]
    holding = Holding(adapted, model) if trial.measured else None
    pictures = PictureTally() if trial.pictures else None
    asked: list[float] = []
    for batch in stream:
        place = stream.place_of(batch.position)
        looking = holding if not rows[place] else None
        with site.forwards():
            if looking is not None:
                looking.before(batch.images.to(site.device))
            rows[place].append(unit.answer(batch))
        if looking is not None:
            looking.after()
        if pictures is not None:
            pictures.add(batch, rows[place][-1])
        if adapted.last is not None and adapted.last.guard is not None:
            asked.append(adapted.last.guard.forwards)
        if detailed and adapted.last is not None:
            for name, value in adapted.last.detail("importance").items():
                importance[place][name].append(value)
    with site.forwards():
        held_out = unit.probe(stream.held_out())
    return Outcome(
        segments=[[segment.name, segment.severity] for segment in stream.segments],
        errors=[_error(group) for group in rows],
        values=_values(rows),
        importance={name: [_mean(each[name]) for each in importance] for name in importance[0]},
        facts=_facts(rows, adapted, site)
        | found
        | _by_domain(tally, held_out)
        | {"stream": stream.fingerprint()}
        | ({} if holding is None else holding.facts())
        | ({} if pictures is None else {"pictures": pictures.facts()})
        | ({} if trial.attack is None else {"course": [[row.errors, row.scored] for group in rows for row in group]})
        | ({} if trial.guard is None else {"guard": _watched(rows, adapted, asked)}),
    )


def _watched(rows: list[list[BatchRow]], adapted: Adapted, asked: list[float]) -> dict[str, Any]:
    """What the guard did: share of answers held at the source, steps undone, and the forwards that it took itself."""
    every = [row for group in rows for row in group]
    share = adapted.tally.get("held", 0) / max(1, sum(row.samples for row in every))
    return {"held_share": share, **adapted.tally, "forwards": fmean(asked) if asked else 0.0}


def _by_domain(tally: DomainTally, held_out: dict[str, int]) -> dict[str, Any]:
    """Error of each domain in percent, of the source's samples in the stream, and of those held out after it."""
    found: dict[str, Any] = {"domains": tally.percent()}
    if tally.source is not None:
        found["source_error"] = tally.source_error
    if held_out.get("scored"):
        found["held_out_error"] = 100 * held_out["errors"] / held_out["scored"]
    return found


def _error(rows: list[BatchRow]) -> float | None:
    scored = sum(row.scored for row in rows)
    return 100 * sum(row.errors for row in rows) / scored if scored else None


def _values(rows: list[list[BatchRow]]) -> dict[str, list[float | None]]:
    names = dict.fromkeys(name for group in rows for row in group for name in row.values)
    return {name: [_mean([row.values.get(name) for row in group]) for group in rows] for name in names}


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None and math.isfinite(value)]
    return fmean(known) if known else None


def _facts(rows: list[list[BatchRow]], adapted: Adapted, site: Site) -> dict[str, Any]:
    every = [row for group in rows for row in group]
    chosen = sum(weight.numel() for weight in adapted.state.weights.values())
    total = sum(parameter.numel() for parameter in adapted.unwrap().parameters())
    return {
        "batches": len(every),
        "updated": sum(row.updated for row in every),
        "milliseconds": median(row.ms for row in every),
        "forwards": fmean(row.forwards for row in every),
        "backwards": fmean(row.backwards for row in every),
        "state_bytes": max(row.state_bytes for row in every),
        "adapted": chosen,
        "parameters": total,
        "seconds": round(sum(row.ms for row in every) / 1e3, 2),
        "dimensions": {name: weight.ndim for name, weight in adapted.state.weights.items()},
        "environment": site.environment(),
    }
