"""Methods x streams x source models: what mixing domains does to each, as gains over the unadapted model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import numpy as np

from acclimate.core.method import methods
from acclimate.core.normalization import normalizations
from acclimate.experiment.domains import forgotten
from acclimate.experiment.plots import gain_map
from acclimate.experiment.reproduce.part import Cell, Drawing, Grid, Line, Part, Shown, average
from acclimate.experiment.reproduce.request import MIXING, MODERN, PAPER, Kind, Request
from acclimate.experiment.reproduce.store import Outcome, Store
from acclimate.experiment.reproduce.trial import Trial
from acclimate.normalization.alpha import AlphaStatistics

__all__ = ["Mixing", "Rival"]

_MIXED: tuple[Kind, ...] = MIXING
_FEW = ("tent", "eata", "sar", "deyo", "rotta", "lame", "palm:default", "datta", "datta:reference", "moetta", "nctta")
"""Methods of the table on data sets that take their time; all there are on the digits."""

_FEW_STATISTICS = ("batch", "alpha", "find", "find-selective")
_BLENDS = (0.6, 0.85)
"""Source weights of the two normalisations that DATTA chooses from."""

_OWN_STATISTICS = ("source", "learned", "robust")
"""Not shown under `bn`: the source itself, and statistics that follow only what a method learns from."""


@dataclass(frozen=True, kw_only=True)
class Rival:
    """One row: a method, or batch norm's statistics re-estimated in one way and nothing learned."""

    name: str
    method: str
    changes: Mapping[str, Any] = field(default_factory=dict[str, Any], hash=False)

    def trials(self, request: Request, kind: Kind, network: str) -> list[Trial]:
        return request.trials(self.method, kind, network, **self.changes)


def _rivals(request: Request) -> list[Rival]:
    """The unadapted model, batch norm's statistics in every way, then methods."""
    everything = request.benchmark.name == "digits"
    statistics = [name for name in normalizations.classes() if name not in _OWN_STATISTICS]
    if not everything:
        statistics = [name for name in _FEW_STATISTICS if name in statistics]
    told: list[tuple[str, str, Mapping[str, Any]]] = [("source", "source", {})]
    told += [(f"bn, {name}", "bn", {"normalization": name}) for name in statistics]
    told += [(f"bn, alpha {w:g}", "bn", {"normalization": AlphaStatistics(source_weight=w)}) for w in _BLENDS]
    known = methods.classes()
    old = [name for name in (*PAPER, *MODERN) if name.partition(":")[0] in known]
    new = [name for name in known if name not in {each.partition(":")[0] for each in old}]
    names = [*old, *new] if everything else [name for name in _FEW if name.partition(":")[0] in known]
    told += [(name, name, {}) for name in (*names, *request.others) if name not in ("source", "bn")]
    chosen = {
        name: Rival(name=name, method=method, changes=changes)
        for name, method, changes in told
        if method.partition(":")[0] not in request.without and method not in request.without
    }
    asked = request.methods
    return [rival for rival in chosen.values() if not asked or rival.name == "source" or rival.method in asked]


Table = dict[tuple[str, str, str], list[Outcome]]
"""Outcomes over seeds by rival, stream and network."""


class Mixing(Part):
    """Gains of every method on every stream and network, how often it is below the source, and forgetting."""

    key = "table-mixed"

    def wanted(self, request: Request, store: Store, failed: Mapping[str, str]) -> list[Trial]:
        pairs = [(rival, network) for network in request.networks for rival in _rivals(request)]
        unfit = {
            pair
            for pair in pairs
            if any(trial.key in failed for trial in pair[0].trials(request, "continual", pair[1]))
        }
        return [
            trial
            for rival, network in pairs
            for kind in (_MIXED if (rival, network) not in unfit else ("continual",))
            for trial in rival.trials(request, kind, network)
        ]

    def show(self, request: Request, store: Store, failed: Mapping[str, str]) -> Shown:
        rivals, table = _rivals(request), Table()
        for network in request.networks:
            for rival in rivals:
                for kind in _MIXED:
                    found = store.all(rival.trials(request, kind, network))
                    if found is not None:
                        table[rival.name, kind, network] = found
        names = [rival.name for rival in rivals]
        grids: list[Grid] = []
        drawings: list[Drawing] = []
        for network in request.networks:
            gains = {name: [_gain(table, name, kind, network) for kind in _MIXED] for name in names}
            known = [name for name in names if any(value is not None for value in gains[name])]
            if known:
                grids.append(_gains(known, gains, table, network))
            if len(known) > 1:
                values = np.array([[np.nan if v is None else v for v in gains[name]] for name in known[1:]])
                drawings.append(
                    Drawing(
                        key=f"mixed-{network}",
                        figure=gain_map(values, known[1:], list(_MIXED)),
                        alternative=f"Points of error below the unadapted model on {network}, method by stream",
                    )
                )
        grids += [_counts(names, table, request), _forgetting(names, table, request)]
        notes = [
            "Gains are points of error below the unadapted model on the same stream, so more is better; its own line "
            "has its error in percent. Cells below the source are marked. Errors are pooled over all images of a "
            "stream; `continual` has one domain after another, `mixed` all of them shuffled, `correlated` labels that "
            "come in clusters inside each domain (Dirichlet), `dynamic` pieces of random length of random domains, "
            "`potpourri+` all of them with images of the source among them. Forgotten are points of error on source "
            "images above the unadapted model's: on those in the stream, and after it on others, held out.",
            *(f"{name} is not there: {reason}" for name, reason in request.absent.items()),
            *_reasons(rivals, request, failed),
        ]
        return Shown(
            title=f"When domains mix, on {request.benchmark.name}: gain over the unadapted model in points",
            protocol=_protocol(request, table),
            grids=[grid for grid in grids if grid.lines],
            drawings=drawings,
            notes=notes,
        )


def _error(outcomes: Sequence[Outcome] | None) -> float | None:
    return average(outcomes, lambda outcome: outcome.mean_error())


def _gain(table: Table, name: str, kind: str, network: str) -> float | None:
    """Points below the source; of the source its error."""
    mine, source = _error(table.get((name, kind, network))), _error(table.get(("source", kind, network)))
    if mine is None or source is None:
        return None
    return mine if name == "source" else source - mine


def _gains(names: Sequence[str], gains: Mapping[str, Sequence[float | None]], table: Table, network: str) -> Grid:
    lines: list[Line] = []
    for name in names:
        known = [value for value in gains[name] if value is not None]
        mean = sum(known) / len(known) if len(known) == len(_MIXED) else None
        cells: list[Cell] = [*gains[name], mean]
        lines.append(Line("measured", f"{name}, error" if name == "source" else name, cells))
    head = [*_MIXED, "mean"]
    return Grid(key=f"table-mixed-{network}", head=head, lines=lines, title=network, gains=True)


def _counts(names: Sequence[str], table: Table, request: Request) -> Grid:
    """How many cells of a method are below the source, and the worst of them."""
    lines: list[Line] = []
    for name in names[1:]:
        found = {
            (kind, network): gain
            for kind in _MIXED
            for network in request.networks
            if (gain := _gain(table, name, kind, network)) is not None
        }
        if not found:
            continue
        below = sum(gain < 0 for gain in found.values())
        (kind, network), worst = min(found.items(), key=lambda item: item[1])
        mean = sum(found.values()) / len(found)
        lines.append(Line("measured", name, [f"{below} of {len(found)}", mean, worst, f"{kind}, {network}"]))
    head = ["cells below the source", "mean gain", "worst", "where"]
    return Grid(key="table-mixed-counts", head=head, lines=lines, title="Cells below the source", gains=True)


def _forgetting(names: Sequence[str], table: Table, request: Request) -> Grid:
    """The stream with source samples, domain by domain in short."""
    lines: list[Line] = []
    for network in request.networks:
        for name in names:
            outcomes = table.get((name, "potpourri+", network))
            if outcomes is None:
                continue
            unadapted = table.get(("source", "potpourri+", network))
            during, after = (
                forgotten(_fact(outcomes, key), _fact(unadapted, key)) for key in ("source_error", "held_out_error")
            )
            domains = [_domains(outcomes, fmean), _domains(outcomes, max), _fact(outcomes, "source_error")]
            cells: list[Cell] = [_error(outcomes), *domains, during, after]
            lines.append(Line("measured", f"{name} on {network}", cells))
    head = ["pooled", "domains", "worst domain", "source samples", "forgotten", "forgotten after"]
    return Grid(
        key="table-mixed-forgetting",
        head=head,
        lines=lines,
        title="potpourri+: errors over all images, as mean of domains and in the worst of them, and what was forgotten",
    )


def _fact(outcomes: Sequence[Outcome] | None, key: str) -> float | None:
    return average(outcomes, lambda outcome: outcome.facts.get(key))


def _domains(outcomes: Sequence[Outcome], what: Callable[[Iterable[float]], float]) -> float | None:
    """Mean or largest error of the domains."""

    def number(outcome: Outcome) -> float | None:
        known = [error for error in outcome.facts.get("domains", {}).values() if error is not None]
        return what(known) if known else None

    return average(outcomes, number)


def _reasons(rivals: Sequence[Rival], request: Request, failed: Mapping[str, str]) -> list[str]:
    told: dict[str, list[str]] = {}
    for network in request.networks:
        for rival in rivals:
            found = [failed[t.key] for kind in _MIXED for t in rival.trials(request, kind, network) if t.key in failed]
            if found:
                told.setdefault(f"{network}: {found[0].partition('. ')[0]}", []).append(rival.name)
    return [f"{', '.join(names)} did not run on {reason}." for reason, names in told.items()]


def _protocol(request: Request, table: Table) -> str:
    stream = request.stream("mixed")
    digests = {
        kind: str(outcomes[0].facts["stream"])[:12]
        for (_, kind, _), outcomes in table.items()
        if "stream" in outcomes[0].facts
    }
    told = ", ".join(f"{kind} {digest}" for kind, digest in digests.items())
    networks = ", ".join(f"{name} ({digest[:12]})" for name, digest in request.networks.items())
    images = stream.size or request.benchmark.images
    return (
        f"{networks}; {request.benchmark.dataset}, {images:,} images of each domain, batch {stream.batch_size}; never "
        f"reset, shifts not announced; answers from before the update; seeds {', '.join(map(str, request.seeds))}; "
        f"streams {told}"
    )
