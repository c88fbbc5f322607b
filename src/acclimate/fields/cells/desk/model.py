"""What `acclimate cells train` leaves: an encoder, a classifier, when to doubt it, and what it has learned from."""

from __future__ import annotations

import hashlib
import json
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
from acclimate.fields.cells.pipeline import CellEncoder

__all__ = ["CellModel", "digests"]

_RECORD, _CLASSIFIER, _FORMAT = "cells.json", "classifier.safetensors", 1


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
        taught: what it was trained on, as JSON values: `laboratories`, `held_out`, `notes`.
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
        """What `save` wrote. FileNotFoundError where it wrote nothing; ValueError for what is damaged."""
        folder = Path(folder).expanduser()
        path = folder / _RECORD
        if not path.is_file():
            found = "but an unfinished training: finish it" if (folder / "stages").is_dir() else "expected one: make it"
            raise FileNotFoundError(
                f"there is no trained model in {folder}, {found} with acclimate cells train FOLDER... --out {folder}."
            )
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            if record["format"] != _FORMAT:
                raise ValueError(f"format {record['format']}, expected {_FORMAT}")
            return cls(
                CellEncoder.load(folder),
                Classifier.load(folder / _CLASSIFIER),
                tuple(record["classes"]),
                Temperature.from_dict(record),
                Threshold.from_dict(record["threshold"]),
                {key: record[key] for key in ("laboratories", "held_out", "notes")},
                *(frozenset[str](record["pictures"][kind]) for kind in ("fitted", "held_out")),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"the model in {folder} is damaged ({error}). Restore it from a copy.") from error
