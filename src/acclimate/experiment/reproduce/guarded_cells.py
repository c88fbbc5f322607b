"""One cell of the guard's table: a method on a stream and a network, under guard and without, beside the source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from acclimate.experiment.reproduce.pictures import PairedError, paired_error, pooled_error
from acclimate.experiment.reproduce.request import Kind, Request
from acclimate.experiment.reproduce.store import Outcome, Store
from acclimate.experiment.reproduce.trial import Trial

__all__ = ["GuardedCell", "cell_trials", "guarded_cell", "kept_gain", "source_trials"]


@dataclass(frozen=True, kw_only=True)
class GuardedCell:
    """Errors in percent. `margin` is that under guard minus the source's; `held` a share of answers."""

    method: str
    kind: Kind
    network: str
    source: float
    unguarded: float
    guarded: float
    margin: PairedError
    held: float
    undone: float
    forgotten: float

    @property
    def gain(self) -> float:
        """Points below the source, under guard."""
        return self.source - self.guarded

    @property
    def free_gain(self) -> float:
        """Points below the source, without a guard."""
        return self.source - self.unguarded


def source_trials(request: Request, kind: Kind, network: str) -> list[Trial]:
    """The unadapted model."""
    return [replace(trial, pictures=True) for trial in request.trials("source", kind, network)]


def cell_trials(request: Request, method: str, kind: Kind, network: str) -> tuple[list[Trial], list[Trial]]:
    """Without a guard, and under the request's."""
    free = [replace(trial, pictures=True) for trial in request.trials(method, kind, network)]
    return free, [replace(trial, guard=request.guard) for trial in free]


def guarded_cell(request: Request, store: Store, method: str, kind: Kind, network: str) -> GuardedCell | None:
    """What is known of a cell; None while one of its trials is missing."""
    free, guarded = (store.all(trials) for trials in cell_trials(request, method, kind, network))
    source = store.all(source_trials(request, kind, network))
    if free is None or guarded is None or source is None:
        return None
    errors = [pooled_error(outcomes) for outcomes in (source, free, guarded)]
    if None in errors:
        return None
    unadapted, unguarded, kept = (error for error in errors if error is not None)
    return GuardedCell(
        method=method,
        kind=kind,
        network=network,
        source=unadapted,
        unguarded=unguarded,
        guarded=kept,
        margin=paired_error(guarded, source),
        held=_mean(guarded, "held_share"),
        undone=_mean(guarded, "undone"),
        forgotten=_mean(guarded, "forgotten"),
    )


def _mean(outcomes: Sequence[Outcome], what: str) -> float:
    """Of an adaptation that cannot answer otherwise than the source, nothing is watched."""
    return fmean(float(outcome.facts["guard"].get(what, 0)) for outcome in outcomes)


def kept_gain(cells: Sequence[GuardedCell]) -> tuple[float, float] | None:
    """Of the cells that gain without a guard, in percent: guarded over unguarded gain in all, and its mean by cell.

    None where none gains.
    """
    gaining = [cell for cell in cells if cell.free_gain > 0]
    if not gaining:
        return None
    whole = 100 * sum(cell.gain for cell in gaining) / sum(cell.free_gain for cell in gaining)
    return whole, fmean(100 * cell.gain / cell.free_gain for cell in gaining)
