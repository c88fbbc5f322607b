"""Records as results: errors by segment, corruption and method; gains, costs, memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acclimate.experiment.merging import checked, labelled
from acclimate.experiment.record import Record, read_record
from acclimate.experiment.rows import BatchRow, UnitRow

__all__ = ["SOURCE", "Results", "Track", "load_results", "segment_numbers"]

SOURCE = "source"
"""The label of the unadapted model, which gains and ratios refer to."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Track:
    """One method under one seed: the batches in order, and what the unit came to."""

    rows: tuple[BatchRow, ...]
    unit: UnitRow

    def column(self, name: str) -> Floats:
        return np.array([getattr(row, name) for row in self.rows], dtype=np.float64)


class Results:
    """What one or more records on the same stream say. Errors and gains are percentages.

    The error of a segment is `100 errors / scored`, averaged over seeds; the mean error is the arithmetic
    mean over segments, as the field reports it. Segments without labels are NaN and left out of means.

    Arguments:
        records: the records behind it.
        tracks: for each label, by seed.
        sources: for each label, the record it comes from.
    """

    def __init__(self, records: list[Record], tracks: dict[str, dict[int, Track]], sources: dict[str, Record]) -> None:
        self.records = records
        self._tracks = tracks
        self._sources = sources
        self._errors: dict[tuple[str, int], Floats] = {}
        self.header = records[0].header
        self.segments = _segments(next(iter(next(iter(tracks.values())).values())))
        """Name and severity of each stretch of the stream, in order."""

    @classmethod
    def of(cls, *records: Record) -> Results:
        """Merge records. Only finished (method, seed) pairs count.

        Raises:
            ValueError: records of different streams or source models, or nothing finished.
        """
        checked(records)
        tracks: dict[str, dict[int, Track]] = {}
        sources: dict[str, Record] = {}
        for label, method, record in labelled(records):
            found = _tracks(record, method)
            if found:
                tracks[label] = found
                sources[label] = record
        if not tracks:
            raise ValueError(
                f"no method in {records[0].path} went through the stream. Finish the run: "
                f"acclimate run --resume {records[0].path.parent}"
            )
        first = sorted(tracks, key=lambda label: label != SOURCE)
        return cls(list(records), {label: tracks[label] for label in first}, sources)

    @property
    def methods(self) -> tuple[str, ...]:
        """The labels, the source model first."""
        return tuple(self._tracks)

    @property
    def others(self) -> tuple[str, ...]:
        """The labels without the source model's."""
        return tuple(label for label in self._tracks if label != SOURCE)

    @cached_property
    def corruptions(self) -> tuple[str, ...]:
        """The names of the shifts, in the order of the stream."""
        return tuple(dict.fromkeys(name for name, _ in self.segments))

    @property
    def gradual(self) -> bool:
        """Whether a corruption comes at more than one severity."""
        return len(set(self.segments)) > len(self.corruptions)

    def tracks(self, label: str) -> Mapping[int, Track]:
        """What a method did, by seed. ValueError for a method that is not here."""
        if label not in self._tracks:
            raise ValueError(f"there is no method {label!r} in these results. There are: {', '.join(self.methods)}.")
        return self._tracks[label]

    def record(self, label: str) -> Record:
        """The record that a method's numbers come from."""
        self.tracks(label)
        return self._sources[label]

    def config(self, label: str) -> Mapping[str, Any]:
        """All settings of a method."""
        track = next(iter(self.tracks(label).values()))
        return self.record(label).header.methods[track.unit.method]["config"]

    # -- errors ----------------------------------------------------------------------------------------

    def segment_errors(self, label: str, seed: int | None = None) -> Floats:
        """Error of each segment, in order: of one seed, or the mean over seeds."""
        tracks = self.tracks(label)
        chosen = tracks if seed is None else [seed]
        for each in chosen:
            if (label, each) not in self._errors:
                self._errors[label, each] = _segment_errors(tracks[each])
        return np.mean([self._errors[label, each] for each in chosen], axis=0)

    def mean_error(self, label: str, severity: int | None = None, seed: int | None = None) -> float:
        """Mean over segments, of all or of one severity."""
        chosen = [severity is None or level == severity for _, level in self.segments]
        return _mean(self.segment_errors(label, seed)[chosen])

    def corruption_errors(self, label: str) -> dict[str, float]:
        """Mean error of each corruption over its segments, so in gradual streams over its severities."""
        errors = self.segment_errors(label)
        names = np.array([name for name, _ in self.segments])
        return {name: _mean(errors[names == name]) for name in self.corruptions}

    def spread(self, label: str) -> float | None:
        """Sample standard deviation of the mean error over seeds; None for one seed."""
        means = [self.mean_error(label, seed=seed) for seed in self.tracks(label)]
        return float(np.std(means, ddof=1)) if len(means) > 1 else None

    def gain(self, label: str) -> float | None:
        """Points of mean error below the source model, on the seeds both have; None without the source."""
        if SOURCE not in self._tracks:
            return None
        seeds = self.tracks(SOURCE).keys() & self.tracks(label).keys()
        if not seeds:
            return None
        return _mean([self.mean_error(SOURCE, seed=s) - self.mean_error(label, seed=s) for s in sorted(seeds)])

    def corruption_gains(self, label: str) -> dict[str, float]:
        """Points below the source model for each corruption; empty without the source."""
        if SOURCE not in self._tracks:
            return {}
        source, mine = self.corruption_errors(SOURCE), self.corruption_errors(label)
        return {name: source[name] - mine[name] for name in self.corruptions}

    # -- cost ------------------------------------------------------------------------------------------

    def milliseconds(self, label: str) -> float:
        """Median wall time of a batch."""
        return float(np.median(np.concatenate([track.column("ms") for track in self.tracks(label).values()])))

    def ratio(self, label: str) -> float | None:
        """Median time of a batch as a multiple of the source model's in the same record."""
        record = self.record(label)
        times = [row.ms for unit in record.finished if unit[0] == SOURCE for row in record.grouped[unit]]
        return self.milliseconds(label) / float(np.median(times)) if times else None

    def average(self, label: str, column: str) -> float:
        """Mean over batches of a column of the record, such as `forwards`."""
        return float(np.mean([np.mean(track.column(column)) for track in self.tracks(label).values()]))

    def share(self, label: str, what: str) -> float:
        """Share of batches that were learned from (`updated`), or of samples that the source answered (`held`)."""
        rows = [row for track in self.tracks(label).values() for row in track.rows]
        if what == "held":
            return sum(row.held for row in rows) / max(1, sum(row.samples for row in rows))
        return sum(row.updated for row in rows) / max(1, len(rows))

    def memory(self, label: str) -> Mapping[str, Any]:
        """Bytes, as measured at the end of the first seed; see `UnitRow`."""
        return next(iter(self.tracks(label).values())).unit.memory


def load_results(*paths: str | Path) -> Results:
    """Results of one or more folders of runs, or of record files.

    Raises:
        FileNotFoundError: no record there.
        ValueError: damaged records, or records that cannot be compared.
    """
    return Results.of(*(read_record(path) for path in paths))


def _tracks(record: Record, method: str) -> dict[int, Track]:
    return {
        unit.seed: Track(tuple(record.grouped.get((method, unit.seed), ())), unit)
        for unit in record.units
        if unit.method == method
    }


def segment_numbers(rows: Iterable[BatchRow]) -> NDArray[np.int64]:
    """The number of each batch's segment: a new one begins wherever the shift changes."""
    numbers: list[int] = []
    last: tuple[str, int] | None = None
    for row in rows:
        here = (row.segment, row.severity)
        numbers.append((numbers[-1] if numbers else -1) + (here != last))
        last = here
    return np.array(numbers, dtype=np.int64)


def _segments(track: Track) -> list[tuple[str, int]]:
    numbers = segment_numbers(track.rows)
    starts = np.flatnonzero(np.diff(numbers, prepend=-1))
    return [(track.rows[start].segment, track.rows[start].severity) for start in starts]


def _segment_errors(track: Track) -> Floats:
    numbers = segment_numbers(track.rows)
    errors = np.bincount(numbers, track.column("errors"))
    scored = np.bincount(numbers, track.column("scored"))
    return 100 * np.divide(errors, scored, out=np.full(len(scored), np.nan), where=scored > 0)


def _mean(values: Floats | list[float]) -> float:
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")
