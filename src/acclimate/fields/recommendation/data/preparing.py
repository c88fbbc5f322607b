"""Whole data sets of one's own: count rows, learn the vocabulary on training rows, encode, split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from acclimate.core.config import one_of
from acclimate.fields.recommendation.data.encoding import encode_files
from acclimate.fields.recommendation.data.formats import layout_of
from acclimate.fields.recommendation.data.per_field import PerField
from acclimate.fields.recommendation.data.reading import Format, Progress, count_rows, read_files
from acclimate.fields.recommendation.data.splits import SHARES, Split, by_parts, parts_at_random, parts_in_time
from acclimate.fields.recommendation.data.vocabulary import FieldVocabulary

__all__ = ["prepare"]


def prepare(
    paths: Sequence[str | Path],
    layout: Format | str,
    folder: str | Path,
    *,
    order: str = "random",
    seed: int = 2021,
    shares: Sequence[float] = SHARES,
    thresholds: PerField = None,
    hashed: PerField = None,
    fit_on: str = "train",
    progress: Progress | None = None,
) -> Split:
    """Make a split of files of any length, such as the whole of Criteo.

    The files are read three times: to count rows, which decides what each row is for; to fit the vocabulary on training
    rows; and to encode, resumably; besides, their bytes are summed up to know them again. The vocabulary is saved as
    `vocabulary.json`. Memory is taken by the counts of all values, and in the end by the ids: 8 bytes each, and as much
    again while they are cut into parts, so 16 bytes for each row and field.

    Arguments:
        paths: the files, in order.
        layout: of all of them, one of `formats.FORMATS` or its name.
        folder: to write to.
        order: "random", or "time" where rows come in order of time.
        seed: of the random split.
        shares: of training, validation and test.
        thresholds: how often a value must be seen; None: as published for the format.
        hashed: buckets instead of a vocabulary; see `FieldVocabulary.fit`.
        fit_on: "train", or "all" for parity with the reference.
        progress: told, three times over, how many bytes of the files are done and how many there are.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a bad row, an argument out of range, a part whose labels are all equal, or a folder with another
            encoding in it.
    """
    one_of("random", "time", order=order)
    layout = layout_of(layout)
    count = count_rows(paths, layout, progress=progress)
    parts = parts_at_random(count, seed, shares) if order == "random" else parts_in_time(count, shares)
    vocabulary = FieldVocabulary.fit(
        read_files(paths, layout, progress=progress),
        thresholds=layout.thresholds if thresholds is None else thresholds,
        hashed=hashed,
        training=parts == 0,
        fit_on=fit_on,
    )
    encoded = encode_files(paths, layout, vocabulary, folder, progress=progress)
    vocabulary.save(encoded.folder / "vocabulary.json")
    return by_parts(encoded.clicks(), parts)
