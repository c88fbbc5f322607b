"""Answers and codes as files that other programs read."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from acclimate.core.storage import atomic_write
from acclimate.fields.cells.data.laboratory import UNKNOWN, Laboratory
from acclimate.fields.cells.desk.answering import Answers
from acclimate.fields.cells.desk.seeing import Sighted

__all__ = ["check_suffix", "write_answers", "write_codes"]


def check_suffix(path: str | Path, *suffixes: str) -> Path:
    """The path of a file to be written; ValueError for another suffix, or a folder."""
    found = Path(path).expanduser()
    if found.suffix.lower() not in suffixes or found.is_dir():
        raise ValueError(f"--out is {path}; expected a file name that ends in {' or '.join(suffixes)}.")
    return found


def write_answers(found: Sequence[Answers], classes: Sequence[str], path: Path) -> None:
    """A line for each picture: key, laboratory, class and its probability, that of each class, unsure, problem.

    A picture that could not be read has its problem and no answer. Pictures stand in the order of their keys.
    """
    head = ["key", "laboratory", "class", "probability", *(f"p({name})" for name in classes), "unsure", "problem"]
    _written(path, head, (row for each in found for row in _rows(each, classes)))


def _rows(found: Answers, classes: Sequence[str]) -> list[list[str]]:
    laboratory = found.laboratory
    said: dict[str, str] = {}
    for problem in found.problems:
        said[problem.key] = "; ".join(filter(None, [said.get(problem.key), problem.what]))
    rows = [
        [
            key,
            laboratory.name,
            str(classes[answer]),
            *[f"{value:.6f}" for value in (each[answer], *each)],
            "yes" if unsure else "no",
            said.get(key, ""),
        ]
        for key, answer, each, unsure in zip(
            laboratory.keys, found.predicted.tolist(), found.probabilities.tolist(), found.unsure.tolist(), strict=True
        )
    ]
    nothing = [""] * (len(classes) + 3)
    rows += [[each.key, laboratory.name, *nothing, said[each.key]] for each in found.unread]
    return sorted(rows)


def write_codes(laboratories: Sequence[Laboratory], sights: Sequence[Sighted], path: Path) -> None:
    """Codes with what is known of their cells.

    An `.npz` holds `codes` float32 `[N, D]`, `keys` and `laboratories` `[N]`, `labels` int64 `[N]` (-1 where the class
    is not known) and `classes`; nothing in it is pickled. A `.csv` has a line for each cell.
    """
    codes = torch.cat([each.codes for each in sights]).numpy()
    keys = [key for each in laboratories for key in each.keys]
    names = [each.name for each in laboratories for _ in each.keys]
    labels = torch.cat([each.labels for each in laboratories]).numpy()
    classes = laboratories[0].classes
    if path.suffix.lower() == ".npz":
        kept = io.BytesIO()
        np.savez(
            kept,
            codes=codes,
            keys=np.array(keys),
            laboratories=np.array(names),
            labels=labels,
            classes=np.array(classes),
        )
        atomic_write(path, kept.getvalue())
        return
    told = ["" if label == UNKNOWN else classes[label] for label in labels.tolist()]
    head = ["key", "laboratory", "class", *(f"code {place}" for place in range(codes.shape[1]))]
    lines = zip(keys, names, told, codes, strict=True)
    _written(path, head, ([*words, *(f"{value:.9g}" for value in code)] for *words, code in lines))


def _written(path: Path, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([head, *rows])
    atomic_write(path, text.getvalue().encode())
