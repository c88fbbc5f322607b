"""The public sets at hand, each as its published split."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np

from acclimate.core.config import whole
from acclimate.fields.recommendation.data.adult import ADULT, ADULT_NUMBERS
from acclimate.fields.recommendation.data.avazu import AVAZU
from acclimate.fields.recommendation.data.buckets import Buckets
from acclimate.fields.recommendation.data.clicks import Clicks, joined
from acclimate.fields.recommendation.data.criteo import CRITEO
from acclimate.fields.recommendation.data.libfm import FRAPPE
from acclimate.fields.recommendation.data.per_field import PerField
from acclimate.fields.recommendation.data.reading import Format, Rows, read
from acclimate.fields.recommendation.data.splits import Split, checked
from acclimate.fields.recommendation.data.vocabulary import FieldVocabulary
from acclimate.streams.segments import suggest
from acclimate.streams.shared import shared_folder

__all__ = ["SETS", "PublicSet", "load_set"]

_Parts = tuple[list[Rows], list[Rows], list[Rows]]


@dataclass(frozen=True, slots=True, eq=False)
class PublicSet:
    """A set whose files are at hand.

    Arguments:
        summary: what it is, in a line.
        layout: of its files.
        files: names; all are read.
        cut: makes training, validation and test rows of the files' rows, by a seed.
        licence: what may be done with it.
    """

    summary: str
    layout: Format
    files: tuple[str, ...]
    cut: Callable[[Sequence[list[Rows]], int], _Parts]
    licence: str


def _as_they_are(files: Sequence[list[Rows]], seed: int) -> _Parts:
    return files[0], files[1], files[2]


def _validation_from_training(files: Sequence[list[Rows]], seed: int) -> _Parts:
    training, validation = _in_two(files[0], 0.9, seed)
    buckets = Buckets.fit(_one(training), ADULT_NUMBERS)
    train, held, test = ([buckets.apply(block) for block in part] for part in (training, validation, files[1]))
    return train, held, test


def _test_in_halves(files: Sequence[list[Rows]], seed: int) -> _Parts:
    validation, test = _in_two(files[1], 0.5, seed)
    return files[0], validation, test


SETS: Mapping[str, PublicSet] = MappingProxyType(
    {
        "adult": PublicSet(
            "UCI Adult, income above 50,000 dollars: 29,304 / 3,257 / 16,281 rows, 14 fields",
            ADULT, ("adult.train.csv", "adult.test.csv"), _validation_from_training, "CC BY 4.0",
        ),
        "frappe": PublicSet(
            "Frappe, use of mobile applications in context: 57,722 / 14,430 / 14,430 rows, 10 fields",
            FRAPPE, ("frappe.validation.libfm", "frappe.test.libfm"), _test_in_halves, "research only",
        ),
        "criteo": PublicSet(
            "Criteo display advertising, a sample: 7,200 / 409 / 391 rows, 39 fields",
            CRITEO, ("criteo.train.tsv", "criteo.dev.tsv", "criteo.test.tsv"), _as_they_are, "Criteo's terms",
        ),
        "avazu": PublicSet(
            "Avazu, a sample of one hour: 8,087 / 480 / 432 rows, 21 fields that vary",
            AVAZU, ("avazu.train.csv", "avazu.dev.csv", "avazu.test.csv"), _as_they_are, "Kaggle's terms",
        ),
    }
)  # fmt: skip
"""The sets by name; their files are not part of the library."""


def known_set(name: str) -> PublicSet:
    """The set of that name; ValueError for another."""
    if name not in SETS:
        raise ValueError(f"There is no set {name!r}. {suggest(name, tuple(SETS))}")
    return SETS[name]


def load_set(
    name: str,
    folder: str | Path | None = None,
    *,
    seed: int = 2021,
    threshold: int | None = None,
    hashed: PerField = None,
    fit_on: str = "train",
    drop_constant: bool = True,
) -> Split:
    """One of `SETS`, encoded by a vocabulary of its training rows.

    Criteo and Avazu come in three files. Of Adult's training file a tenth is for validation, and numbers become buckets
    whose edges are those of the other rows. Frappe is the slice whose training part is the published validation file;
    the test file is halved.

    Arguments:
        name: of the set.
        folder: with its files, gzipped or not. None: `data/ctr` in the shared folder.
        seed: of what is cut at random, in Adult and Frappe.
        threshold: how often a value must be seen in training; None: as published for the whole set.
        hashed: buckets instead of a vocabulary; see `FieldVocabulary.fit`.
        fit_on: "train", or "all" to fit the vocabulary on all three parts, for parity with the reference only.
        drop_constant: leave out fields with one value in all rows the vocabulary was fitted on, such as Avazu's hour.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: an unknown name, an argument out of range, or a file that does not fit.
    """
    known = known_set(name)
    whole(0, seed=seed)
    root = shared_folder() / "data/ctr" if folder is None else Path(folder).expanduser()
    files = [list(read(_file(root, file), known.layout)) for file in known.files]
    parts = known.cut(files, seed)
    rows = parts[0] if fit_on == "train" else [block for part in parts for block in part]
    thresholds = known.layout.thresholds if threshold is None else threshold
    vocabulary = FieldVocabulary.fit(rows, thresholds=thresholds, hashed=hashed, fit_on=fit_on)
    if drop_constant:
        vocabulary = vocabulary.without(vocabulary.constant())
    return checked(Split(*(_encoded(part, vocabulary) for part in parts)))


def _encoded(part: list[Rows], vocabulary: FieldVocabulary) -> Clicks:
    return joined([vocabulary.encode(block) for block in part])


def _file(root: Path, name: str) -> Path:
    for path in (root / name, root / f"{name}.gz"):
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"There is no {name} or {name}.gz in {root.absolute()}. Give the folder that holds it, or set ACCLIMATE_SHARED "
        "to the one whose data/ctr does."
    )


def _one(blocks: Sequence[Rows]) -> Rows:
    first = blocks[0]
    cells = tuple(np.concatenate([block.cells[place] for block in blocks]) for place in range(len(first.fields)))
    lines, labels = (np.concatenate([getattr(block, name) for block in blocks]) for name in ("lines", "labels"))
    return Rows(first.path, lines, first.fields, cells, labels)


def _in_two(blocks: Sequence[Rows], share: float, seed: int) -> tuple[list[Rows], list[Rows]]:
    """Rows of the first part, which has this share, and of the other, at random; both keep their order."""
    rows = _one(blocks)
    first = np.zeros(len(rows), dtype=bool)
    first[np.random.default_rng(seed).permutation(len(rows))[: int(share * len(rows))]] = True
    return [rows.take(first)], [rows.take(~first)]
