"""What `acclimate cells train` leaves: an encoder, a classifier, when to doubt it, and what it has learned from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from acclimate.core.storage import atomic_write
from acclimate.fields.cells.classify.arrays import Array
from acclimate.fields.cells.classify.classifiers import Classifier
from acclimate.fields.cells.classify.unsure import Temperature, Threshold
from acclimate.fields.cells.desk.calibration import promise
from acclimate.fields.cells.pipeline import CellEncoder

__all__ = ["CellModel", "digests"]

_RECORD, _CLASSIFIER, _FORMAT = "cells.json", "classifier.safetensors", 2

_TAUGHT = ("laboratories", "held_out", "never_held_out", "notes")


def digests(images: Tensor) -> list[str]:
    """Sixteen hexadecimal digits for each picture, uint8 `[N, 3, S, S]`: whether one was seen before."""
    return [hashlib.sha256(each.tobytes()).hexdigest()[:16] for each in images.contiguous().numpy()]


@dataclass(frozen=True, eq=False, slots=True)
class CellModel:
    """From pictures to answers.

    Arguments:
        encoder: pictures to codes.
        classifier: codes to labels that count in `classes`.
        classes: names.
        temperature: makes its probabilities as certain as they are right.
        threshold: below which a cell is unsure.
        taught: what it was trained on, as JSON values: `laboratories`, `held_out`, `never_held_out`, `notes`.
        fitted, held_out: digests of the labelled pictures that the classifier saw, and of those kept back.
    """

    encoder: CellEncoder
    classifier: Classifier
    classes: tuple[str, ...]
    temperature: Temperature
    threshold: Threshold
    taught: dict[str, Any]
    fitted: frozenset[str]
    held_out: frozenset[str]

    @property
    def promise(self) -> str:
        """What can be relied on, in words."""
        return promise(self.threshold, self.taught["never_held_out"])

    def probabilities(self, codes: Array) -> NDArray[np.float32]:
        """Of each class, float32 `[N, C]`."""
        return self.temperature.apply(self.classifier.probabilities(codes, len(self.classes)))

    def save(self, folder: str | Path) -> Path:
        """Write all of it into a folder; the record comes last, so that a folder with one is whole."""
        folder = Path(folder).expanduser()
        (folder / _RECORD).unlink(missing_ok=True)
        self.encoder.save(folder)
        self.classifier.save(folder / _CLASSIFIER)
        record = {
            "format": _FORMAT,
            "classes": list(self.classes),
            "classifier": self.classifier.name,
            **self.temperature.to_dict(),
            "threshold": self.threshold.to_dict(),
            **self.taught,
            "pictures": {"fitted": sorted(self.fitted), "held_out": sorted(self.held_out)},
        }
        atomic_write(folder / _RECORD, json.dumps(record, indent=1).encode())
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> CellModel:
        """What `save` wrote. FileNotFoundError where it wrote nothing; ValueError for what is damaged, or lacks a part,
        or was written by another version."""
        folder = Path(folder).expanduser()
        path = folder / _RECORD
        if not path.is_file():
            found = "but an unfinished training: finish it" if (folder / "stages").is_dir() else "expected one: make it"
            raise FileNotFoundError(
                f"there is no trained model in {folder}, {found} with acclimate cells train FOLDER... --out {folder}."
            )
        try:
            return cls._read(folder, json.loads(path.read_text(encoding="utf-8")))
        except (KeyError, TypeError, ValueError, AttributeError, FileNotFoundError, RecursionError) as error:
            told = f"{type(error).__name__} {error}" if isinstance(error, KeyError) else f"{error}".rstrip(".")
            raise ValueError(
                f"model folder {folder} is damaged: {told}. Restore it from a copy, or train it anew: the same command "
                "takes up what is in its stages."
            ) from error

    @classmethod
    def _read(cls, folder: Path, record: Any) -> CellModel:
        if not isinstance(record, dict):
            raise ValueError(f"{_RECORD} holds no record of a model")
        told: dict[str, Any] = record
        if told["format"] != _FORMAT:
            raise ValueError(f"{_RECORD} has format {told['format']}, expected {_FORMAT}, that of this version")
        classes, classifier = _checked_classes(told), Classifier.load(folder / _CLASSIFIER)
        classifier.check_classes(len(classes))
        return cls(
            CellEncoder.load(folder),
            classifier,
            classes,
            Temperature.from_dict(told),
            Threshold.from_dict(told["threshold"]),
            {key: told[key] for key in _TAUGHT},
            *(frozenset[str](told["pictures"][kind]) for kind in ("fitted", "held_out")),
        )


def _checked_classes(record: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of classes; ValueError unless they are those of every laboratory that was learned from."""
    classes = record["classes"]
    odd = [each["name"] for each in record["laboratories"] if list(each["classes"]) != classes]
    if len(set(classes)) < 2 or odd:
        raise ValueError(
            f"{_RECORD} names the classes {', '.join(map(str, classes)) or 'none'}, expected those that it counts the "
            f"cells of {', '.join(map(str, odd))} in"
        )
    return tuple(classes)
