"""Finished trials, one small file each: what is there need not be run again."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from statistics import fmean
from typing import Any

from acclimate.core.storage import atomic_write
from acclimate.experiment.reproduce.trial import FORMAT, Trial

__all__ = ["Outcome", "Store"]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a trial came to. Lists run over the segments of the stream.

    Arguments:
        segments: name and severity.
        errors: wrong answers in percent; None where nothing was scored.
        values: by name, the mean over the batches of a segment of what the method noted.
        importance: by tensor, the mean over the batches of a segment of its learning-rate factor.
        facts: milliseconds, passes, memory, adapted parameters, what was fitted to the model, environment.
    """

    segments: Sequence[Sequence[Any]]
    errors: Sequence[float | None]
    values: Mapping[str, Sequence[float | None]] = field(default_factory=dict[str, Sequence[float | None]])
    importance: Mapping[str, Sequence[float | None]] = field(default_factory=dict[str, Sequence[float | None]])
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def mean_error(self, severity: int | None = None) -> float:
        """Mean over segments, of all or of one severity; NaN where nothing was scored."""
        pairs = zip(self.segments, self.errors, strict=True)
        known = [error for (_, level), error in pairs if error is not None and severity in (None, level)]
        return fmean(known) if known else math.nan

    def mean_value(self, name: str) -> float | None:
        """Mean over segments of something noted; None where it never was."""
        known = [value for value in self.values.get(name, ()) if value is not None]
        return fmean(known) if known else None


class Store:
    """The folder of a run, with what is finished in it. Broken files count as not finished."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._known: dict[str, Outcome] = {}
        for path in sorted((folder / "trials").glob("*.json")):
            outcome = _read(path)
            if outcome is not None:
                self._known[path.stem] = outcome

    def __contains__(self, trial: Trial) -> bool:
        return trial.key in self._known

    def __len__(self) -> int:
        return len(self._known)

    def get(self, trial: Trial) -> Outcome | None:
        return self._known.get(trial.key)

    def all(self, trials: Sequence[Trial]) -> list[Outcome] | None:
        """The outcomes of all of them, or None while one is missing."""
        found = [outcome for trial in trials if (outcome := self.get(trial)) is not None]
        return found if trials and len(found) == len(trials) else None

    def missing(self, trials: Sequence[Trial]) -> Iterator[Trial]:
        """Those that are not finished, each once."""
        for trial in {trial.key: trial for trial in trials}.values():
            if trial not in self:
                yield trial

    def add(self, trial: Trial, outcome: Outcome) -> None:
        """Write the trial's file, whole or not at all."""
        whole = {"format": FORMAT, "trial": {**trial.identity(), "label": trial.label, "model_name": trial.model}}
        text = json.dumps({**whole, **asdict(outcome)}, allow_nan=False, separators=(",", ":"))
        atomic_write(self.folder / "trials" / f"{trial.key}.json", f"{text}\n".encode())
        self._known[trial.key] = outcome


def _read(path: Path) -> Outcome | None:
    try:
        whole = json.loads(path.read_text(encoding="utf-8"))
        if whole["format"] != FORMAT:
            return None
        return Outcome(**{item.name: whole[item.name] for item in fields(Outcome)})
    except (ValueError, KeyError, TypeError):
        return None
