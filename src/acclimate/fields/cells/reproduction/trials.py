"""A row under one seed: how classifiers of each laboratory do in all, kept as a file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from acclimate.core.storage import atomic_write
from acclimate.fields.cells.classify.protocol import cross_laboratory
from acclimate.fields.cells.classify.separability import separability
from acclimate.fields.cells.reproduction.material import Material
from acclimate.fields.cells.reproduction.rows import Row

__all__ = ["Trial", "classified", "shown_of", "tried"]

_SHOWN = "logistic"

_NUMBERS = ("macro_f1", "accuracy", "balanced_accuracy")


@dataclass(frozen=True, slots=True)
class Trial:
    """Arguments: `origin`, separability of laboratories by a linear classifier; `cross` and `within`, by number and
    classifier, means over pairs of laboratories and within them; `matrix`, of the classifier that `shown_of` names, by
    "source>target": macro-F1, its interval, and the confusion matrix of all fits together; `notes`."""

    origin: float
    cross: dict[str, dict[str, float]]
    within: dict[str, dict[str, float]]
    matrix: dict[str, dict[str, Any]]
    notes: list[str]


def shown_of(classifiers: Sequence[str]) -> str:
    """The classifier whose whole matrix is kept and shown: logistic regression, or else the last."""
    return _SHOWN if _SHOWN in classifiers else classifiers[-1]


def tried(material: Material, row: Row, seed: int, classifiers: Sequence[str]) -> Trial:
    """Classify by these features, or read what was found before."""
    labs = material.laboratories
    chosen = [row.key, seed, list(classifiers), material.plan_of(row, seed).told()]
    prints = [each.fingerprint() for each in labs.values()]
    # Named only where it is not as usual, so that trials from before there was a choice keep their names.
    told = [*material.given, *([row.revision] if row.revision else [])]
    told += [] if shown_of(classifiers) == _SHOWN else [shown_of(classifiers)]
    digest = hashlib.sha256(json.dumps([chosen, prints, *told], sort_keys=True).encode()).hexdigest()[:16]
    path = material.folder / "trials" / f"{row.key.replace(':', '-')}-{seed}-{digest}.json"
    if path.is_file():
        return Trial(**json.loads(path.read_text(encoding="utf-8")))
    labels = {name: each.labels for name, each in labs.items()}
    classes = len(next(iter(labs.values())).classes)
    found = classified(material.features(row, seed), labels, classes, classifiers)
    atomic_write(path, json.dumps({name: getattr(found, name) for name in Trial.__slots__}).encode())
    return found


def classified(
    features: dict[str, Tensor], labels: dict[str, Tensor], classes: int, classifiers: Sequence[str]
) -> Trial:
    """The papers' protocol: five folds of the source, each fit tested on the fold held out and on all other places."""
    cross: dict[str, dict[str, float]] = {number: {} for number in _NUMBERS}
    within: dict[str, dict[str, float]] = {number: {} for number in _NUMBERS}
    matrix: dict[str, dict[str, Any]] = {}
    notes: list[str] = []
    for name in classifiers:
        found = cross_laboratory(features, labels, name, classes=classes)
        notes += [note for note in found.notes if note not in notes]
        for number in _NUMBERS:
            cross[number][name], within[number][name] = found.cross(number), found.within(number)
        if name == shown_of(classifiers):
            for source in features:
                for target in features:
                    matrix[f"{source}>{target}"] = {
                        "macro_f1": float(found.fits(source, target, "macro_f1").mean()),
                        "interval": list(found.interval(source, target, "macro_f1")),
                        "confusion": found.confusion(source, target).tolist(),
                    }
    return Trial(separability(features), cross, within, matrix, notes)
