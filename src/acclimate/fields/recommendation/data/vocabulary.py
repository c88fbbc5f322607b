"""The vocabulary: which id each value of each field has, learned from training rows alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from acclimate.core.config import one_of, whole
from acclimate.core.storage import atomic_write
from acclimate.fields.recommendation.data.clicks import Clicks
from acclimate.fields.recommendation.data.counting import ValueCounts
from acclimate.fields.recommendation.data.numbering import Hashed, Listed, Numbering, numbering_from
from acclimate.fields.recommendation.data.per_field import PerField, check_names, of_field
from acclimate.fields.recommendation.data.reading import Rows

__all__ = ["FieldVocabulary"]

_FORMAT = 1


@dataclass(frozen=True, slots=True, eq=False)
class FieldVocabulary:
    """A numbering for each field.

    Arguments:
        fields: names, in the order of ids: `[F]`.
        numberings: of each field: `[F]`.
    """

    fields: tuple[str, ...]
    numberings: tuple[Numbering, ...]

    @classmethod
    def fit(
        cls,
        rows: Iterable[Rows],
        *,
        thresholds: PerField = 1,
        hashed: PerField = None,
        training: NDArray[np.bool_] | None = None,
        fit_on: str = "train",
    ) -> Self:
        """Count values, block by block, and number those that come often enough.

        Every field reserves its last id for values that are rare or were never seen. Where all fields are hashed only
        the first block is looked at, for the names.

        Arguments:
            rows: blocks of rows, as `reading.read` gives them.
            thresholds: how often a value must be seen to get an id, 1 or more; one number, or of each field (1 where
                it is not named).
            hashed: how many buckets, instead of counting; one number, or of some fields.
            training: which of all rows, one after the other, are training rows: bool `[N]`. None: all that are given.
            fit_on: "train", or "all" to count validation and test rows, too, as the reference does: for parity only,
                since it looks at what is to be predicted.

        Raises:
            ValueError: no rows, an unknown field, a number out of range, or other than `N` rows.
        """
        one_of("train", "all", fit_on=fit_on)
        kept = training if fit_on == "train" else None
        fields: tuple[str, ...] = ()
        counts: dict[str, ValueCounts] = {}
        seen = used = 0
        for block in rows:
            if not fields:
                fields = block.fields
                counts = {name: ValueCounts() for name in fields if of_field(hashed, name) is None}
            if not counts:
                break
            start, seen = seen, seen + len(block)
            chosen = block if kept is None else block.take(_part(kept, start, seen))
            used += len(chosen)
            for name, count in counts.items():
                count.add(chosen.cells[fields.index(name)])
        if not fields or (counts and not used):
            raise ValueError("There are no training rows to fit a vocabulary on; expected one or more.")
        if counts and kept is not None and len(kept) != seen:
            raise ValueError(f"training says of {len(kept)} rows what they are for, but there are {seen}.")
        check_names(fields, thresholds=thresholds, hashed=hashed)
        return cls(fields, tuple(_fitted(name, counts, thresholds, hashed) for name in fields))

    @classmethod
    def hashing(cls, fields: Sequence[str], buckets: int | Mapping[str, int]) -> Self:
        """A vocabulary without fitting: every field is hashed.

        >>> FieldVocabulary.hashing(["user", "item"], 1000).sizes
        (1001, 1001)

        Raises:
            ValueError: a field without a number of buckets, or a number below 1.
        """
        check_names(fields, buckets=buckets)
        without = [name for name in fields if of_field(buckets, name) is None]
        if without:
            raise ValueError(f"buckets has no number for {', '.join(without)}; expected one for each field.")
        return cls(tuple(fields), tuple(Hashed(of_field(buckets, name) or 0) for name in fields))

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many ids each field has, the one for other values among them."""
        return tuple(numbering.size for numbering in self.numberings)

    def encode(self, rows: Rows) -> Clicks:
        """The rows with ids in place of texts.

        Raises:
            ValueError: rows without one of the fields.
        """
        missing = [name for name in self.fields if name not in rows.fields]
        if missing:
            raise ValueError(f"{rows.path} has no field {', '.join(missing)}; expected {', '.join(self.fields)}.")
        ids = np.empty((len(rows), len(self.fields)), dtype=np.int64)
        offset = 0
        for place, (name, numbering) in enumerate(zip(self.fields, self.numberings, strict=True)):
            ids[:, place] = numbering.numbers(rows.cells[rows.fields.index(name)]) + offset
            offset += numbering.size
        return Clicks(torch.from_numpy(ids), torch.from_numpy(rows.labels.copy()), self.sizes, self.fields)

    def without(self, fields: Sequence[str]) -> FieldVocabulary:
        """The same without some fields."""
        kept = [place for place, name in enumerate(self.fields) if name not in fields]
        return FieldVocabulary(
            tuple(self.fields[place] for place in kept), tuple(self.numberings[place] for place in kept)
        )

    def constant(self) -> tuple[str, ...]:
        """Fields of which training rows have a single value, so that they say nothing."""
        return tuple(
            name
            for name, each in zip(self.fields, self.numberings, strict=True)
            if isinstance(each, Listed) and each.distinct == 1
        )

    def fingerprint(self) -> str:
        """SHA-256 of all fields, values and counts."""
        return hashlib.sha256(self._text()).hexdigest()

    def save(self, path: str | Path) -> None:
        """Write it as JSON, whole or not at all."""
        atomic_write(Path(path).expanduser(), self._text())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """What `save` wrote.

        Raises:
            FileNotFoundError: no such file.
            ValueError: a damaged file, or one of something else.
        """
        path = Path(path).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"There is no vocabulary {path}; expected a file that FieldVocabulary.save wrote.")
        try:
            found = json.loads(path.read_bytes())
            if found["format"] != _FORMAT:
                raise ValueError(f"format {found['format']}, this version reads {_FORMAT}")
            fields = tuple(str(each["name"]) for each in found["fields"])
            return cls(fields, tuple(numbering_from(each) for each in found["fields"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(
                f"{path} is no vocabulary ({error}); expected what FieldVocabulary.save writes."
            ) from error

    def _text(self) -> bytes:
        pairs = zip(self.fields, self.numberings, strict=True)
        return json.dumps(
            {"format": _FORMAT, "fields": [{"name": name, **each.config()} for name, each in pairs]}
        ).encode()


def _fitted(name: str, counts: Mapping[str, ValueCounts], thresholds: PerField, hashed: PerField) -> Numbering:
    buckets, threshold = of_field(hashed, name), of_field(thresholds, name)
    if buckets is not None:
        return Hashed(buckets)
    threshold = 1 if threshold is None else threshold
    whole(1, **{f"The threshold of field {name}": threshold})
    return Listed.of(*counts[name].total(), threshold)


def _part(training: NDArray[np.bool_], start: int, end: int) -> NDArray[np.bool_]:
    if end > len(training):
        raise ValueError(f"training says of {len(training)} rows what they are for, but there are {end} or more.")
    return training[start:end]
