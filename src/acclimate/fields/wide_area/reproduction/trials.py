"""Courses that a comparison needs: run once each, side by side, and kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path

import torch

from acclimate.core.storage import atomic_write
from acclimate.experiment.side_by_side import side_by_side
from acclimate.fields.wide_area.reproduction.contenders import CONTENDERS, Contender
from acclimate.fields.wide_area.reproduction.hooks import Job, lay, read, train, written
from acclimate.fields.wide_area.reproduction.places import Place
from acclimate.fields.wide_area.reproduction.simulate import Course, simulate
from acclimate.fields.wide_area.workloads import WORKLOADS
from acclimate.fields.wide_area.workloads.workload import Workload

__all__ = ["Told", "Trial", "courses"]

Told = Callable[[int, int, str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """Arguments: `workload`, of `WORKLOADS`; `place`; `contender`, of `CONTENDERS`; `rate`, the step size; `seed`;
    `limit`, of iterations."""

    workload: str
    place: Place
    contender: str
    rate: float
    seed: int = 0
    limit: int = 2500

    def path(self, folder: Path) -> Path:
        """Where its course is kept."""
        return folder / "trials" / f"{self.workload}-{self.contender.replace(':', '-')}-{_digest(self)}.json"


def courses(
    folder: Path,
    trials: Sequence[Trial],
    *,
    jobs: int = 1,
    told: Told | None = None,
    named: Callable[[str], Contender] | None = None,
) -> list[Course]:
    """These courses, in this order; what is missing is run, `jobs` at a time, each with one thread.

    Arguments: `named`, the contender of a name, of `CONTENDERS` by default; picklable where `jobs` is more than 1.
    """
    missing = list(dict.fromkeys(each for each in trials if not each.path(folder).is_file()))
    for done, trial in enumerate(side_by_side(partial(make, folder, named or listed), missing, jobs), 1):
        if told is not None:
            told(done, len(missing), f"{trial.workload}, {trial.place.named()}: {trial.contender}, {trial.rate:g}")
    return [Course(**json.loads(each.path(folder).read_text(encoding="utf-8"))) for each in trials]


def listed(name: str) -> Contender:
    """One of `CONTENDERS`."""
    return CONTENDERS[name]


def make(folder: Path, named: Callable[[str], Contender], trial: Trial) -> None:
    """Run a trial and keep its course."""
    workload, contender = _workload(trial.workload), named(trial.contender)
    if contender.hook is not None:
        course = _hooked(folder, trial, contender.hook)
    else:
        course = simulate(
            workload,
            trial.place,
            contender,
            lambda parameters: workload.base(parameters, trial.rate),
            seed=trial.seed,
            limit=trial.limit,
        )
    atomic_write(trial.path(folder), json.dumps(asdict(course)).encode())


def _hooked(folder: Path, trial: Trial, hook: str) -> Course:
    """The course of a training that is kept as well, since it serves other places."""
    workload, place = _workload(trial.workload), trial.place
    job = Job(
        workload=trial.workload,
        hook=hook,
        rate=trial.rate,
        workers=place.workers,
        shards=place.shards,
        seed=trial.seed,
        limit=trial.limit,
    )
    path = folder / "trials" / f"{trial.workload}-{hook}-trained-{_digest(job)}.json"
    if not path.is_file():
        atomic_write(path, written(train(job)))
    dense_bits = 32.0 * sum(parameter.numel() for parameter in workload.build(trial.seed).parameters())
    return lay(read(path), place, dense_bits=dense_bits, target=workload.target, seed=trial.seed)


def _digest(asked: Trial | Job) -> str:
    return hashlib.sha256(json.dumps(asdict(asked), sort_keys=True).encode()).hexdigest()[:16]


@lru_cache(maxsize=1)
def _workload(name: str) -> Workload:
    torch.set_num_threads(1)
    return WORKLOADS[name]()
