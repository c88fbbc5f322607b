"""Answers and codes as files that other programs read."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from acclimate.core.storage import atomic_write
from acclimate.fields.cells.data.laboratory import UNKNOWN
from acclimate.fields.cells.desk.answering import Answers
from acclimate.fields.cells.desk.problems import Failed, of_failed

__all__ = ["beside", "check_suffix", "write_answers", "write_codes"]


def check_suffix(path: str | Path, *suffixes: str) -> Path:
    """The path of a file to be written; ValueError for another suffix, or a folder."""
    found = Path(path).expanduser()
    if found.suffix.lower() not in suffixes or found.is_dir():
        raise ValueError(f"--out is {path}; expected a file name that ends in {' or '.join(suffixes)}.")
    return found


def beside(path: Path) -> Path:
    """Where the problems of what is written to a path go.

    >>> beside(Path("answers.csv")).name
    'answers-problems.csv'
    """
    return path.with_name(f"{path.stem}-problems.csv")


def write_answers(found: Sequence[Answers], classes: Sequence[str], path: Path, failed: Sequence[Failed] = ()) -> None:
    """A line for each picture: key, laboratory, class and its probability, that of each class, unsure, problem.

    A picture that could not be read has its problem and no answer; so have the pictures of `failed` folders, and empty
    ones of these themselves. Pictures stand in the order of their keys.
    """
    head = ["key", "laboratory", "class", "probability", *(f"p({name})" for name in classes), "unsure", "problem"]
    nothing = [""] * (len(classes) + 3)
    lost = sorted([each.key, name, *nothing, each.what] for name, each in of_failed(failed))
    _written(path, head, [*(row for each in found for row in _rows(each, classes)), *lost])


def _rows(found: Answers, classes: Sequence[str]) -> list[list[str]]:
    laboratory, said = found.laboratory, _said(found)
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


def _said(found: Answers) -> dict[str, str]:
    """What is odd about each picture, in one line."""
    said: dict[str, str] = {}
    for problem in found.problems:
        said[problem.key] = "; ".join(filter(None, [said.get(problem.key), problem.what]))
    return said


def write_codes(found: Sequence[Answers], path: Path, failed: Sequence[Failed] = ()) -> None:
    """Codes with what is known of their cells.

    An `.npz` holds `codes` float32 `[N, D]`, `keys` and `laboratories` `[N]`, `labels` int64 `[N]` (-1 where the class
    is not known), `classes`, `problems` `[N]`, empty for a usual picture, and `unread` `[M, 3]`: laboratory, key and
    problem of what has no code. Nothing in it is pickled. A `.csv` has a line for each cell, and one without codes for
    each of the others.
    """
    codes = torch.cat([each.sight.codes for each in found]).numpy()
    keys = [key for each in found for key in each.laboratory.keys]
    names = [each.laboratory.name for each in found for _ in each.laboratory.keys]
    labels = torch.cat([each.laboratory.labels for each in found]).numpy()
    said = [_said(each) for each in found]
    odd = [of.get(key, "") for each, of in zip(found, said, strict=True) for key in each.laboratory.keys]
    lost = [
        [each.laboratory.name, one.key, of[one.key]]
        for each, of in zip(found, said, strict=True)
        for one in each.unread
    ]
    lost += [[name, each.key, each.what] for name, each in of_failed(failed)]
    classes = found[0].laboratory.classes
    if path.suffix.lower() == ".npz":
        kept = io.BytesIO()
        np.savez(
            kept,
            codes=codes,
            keys=np.array(keys),
            laboratories=np.array(names),
            labels=labels,
            classes=np.array(classes),
            problems=np.array(odd),
            unread=np.array(lost, dtype=np.str_).reshape(-1, 3),
        )
        atomic_write(path, kept.getvalue())
        return
    told = ["" if label == UNKNOWN else classes[label] for label in labels.tolist()]
    head = ["key", "laboratory", "class", "problem", *(f"code {place}" for place in range(codes.shape[1]))]
    lines = zip(keys, names, told, odd, codes, strict=True)
    rows = [[*words, *(f"{value:.9g}" for value in code)] for *words, code in lines]
    _written(path, head, [*rows, *([key, name, "", what, *[""] * codes.shape[1]] for name, key, what in lost)])


def _written(path: Path, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([head, *rows])
    atomic_write(path, text.getvalue().encode())
