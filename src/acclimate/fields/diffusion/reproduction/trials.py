"""Images of one exchange beside those without: sampled once, measured, and kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path

import torch
from torch import Tensor, nn

from acclimate.core.storage import atomic_write
from acclimate.experiment.side_by_side import side_by_side
from acclimate.fields.diffusion.quality import Judge
from acclimate.fields.diffusion.reproduction.measure import Outcome, measured
from acclimate.fields.diffusion.reproduction.rows import ROWS
from acclimate.fields.diffusion.tiny import DIFFUSION, load_dit, sample, start_noise
from acclimate.models.cache import kept_weights
from acclimate.models.files import read_tensors, write_tensors
from acclimate.models.threads import one_thread

__all__ = ["Exact", "Told", "Trial", "exact", "images_of", "judge_of", "outcomes"]

Told = Callable[[int, int, str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """Arguments: `model`, of `DIFFUSION`; `row`, a key of `ROWS`; `devices`; `seed`, of the noise; `count`, images of a
    batch, labelled 0 to 9 in turn; `steps`, evaluations."""

    model: str
    row: str
    devices: int
    seed: int = 0
    count: int = 16
    steps: int = 28

    def path(self, folder: Path) -> Path:
        """Where its outcome is kept; its images lie beside it."""
        chosen = [asdict(self), ROWS[self.row].config(), kept_weights(DIFFUSION[self.model]).stem]
        digest = hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()[:16]
        name = "".join(letter if letter.isalnum() else "-" for letter in self.row)
        return folder / "trials" / f"{self.model}-{name}-{self.devices}-{digest}.json"


@dataclass(frozen=True, slots=True)
class Exact:
    """Labels `[B]`, noise `[B, C, H, W]`, and the sample after each step, `[steps, B, C, H, W]`; no exchange."""

    labels: Tensor
    noise: Tensor
    course: Tensor


def outcomes(folder: Path, trials: Sequence[Trial], *, jobs: int = 1, told: Told | None = None) -> list[Outcome]:
    """The outcomes of these trials, in this order; what is missing is sampled, `jobs` at a time, one thread each."""
    missing = list(dict.fromkeys(each for each in trials if not each.path(folder).is_file()))
    for done, trial in enumerate(side_by_side(partial(make, folder), missing, jobs), 1):
        if told is not None:
            told(done, len(missing), f"{trial.model} on {trial.devices}: {ROWS[trial.row].title}")
    return [Outcome(**json.loads(each.path(folder).read_text(encoding="utf-8"))) for each in trials]


def make(folder: Path, trial: Trial) -> None:
    """Run a trial; keep its images, then its outcome."""
    with one_thread():
        model, judge = model_of(trial.model), judge_of(trial.model)
        base = exact(trial.model, trial.seed, trial.count, trial.steps)
        row = ROWS[trial.row]
        found, images = measured(model, judge, row, base.labels, base.noise, base.course, trial.devices)
    path = trial.path(folder)
    write_tensors(path.with_suffix(".safetensors"), {"images": images}, {"row": trial.row})
    atomic_write(path, json.dumps(asdict(found)).encode())


def images_of(folder: Path, trial: Trial) -> Tensor:
    """What a trial that has run sampled, `[B, C, H, W]`."""
    return read_tensors(trial.path(folder).with_suffix(".safetensors"))[0]["images"]


@lru_cache(maxsize=8)
def exact(name: str, seed: int, count: int, steps: int) -> Exact:
    """What a trial is compared with."""
    model, labels = model_of(name), torch.arange(count) % 10
    noise, course = start_noise(model, count, seed), list[Tensor]()
    with one_thread():
        sample(model, labels, noise, steps=steps, seen=lambda number, x: course.append(x))
    return Exact(labels, noise, torch.stack(course))


@lru_cache(maxsize=2)
def model_of(name: str) -> nn.Module:
    return load_dit(name)


@lru_cache(maxsize=2)
def judge_of(name: str) -> Judge:
    """The classifier of the data that a model was trained on."""
    return Judge.of(DIFFUSION[name].dataset)
