"""Records as results: errors by segment, corruption and method; gains, costs, memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acclimate.experiment.domains import domain_names, forgotten, recorded_domains
from acclimate.experiment.merging import checked, labelled
from acclimate.experiment.pace import MISSED
from acclimate.experiment.record import Record, read_record
from acclimate.experiment.rows import BatchRow, UnitRow
from acclimate.streams import Composition

__all__ = ["SOURCE", "Results", "Track", "load_results", "segment_numbers"]

SOURCE = "source"
"""The label of the unadapted model, which gains and ratios refer to."""

Floats = NDArray[np.float64]
Numbers = NDArray[np.float64] | NDArray[np.int64]


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
        self._by_domain: dict[tuple[str, int], Floats] = {}
        self.header = records[0].header
        self.segments = _segments(next(iter(next(iter(tracks.values())).values())))
        """Name and severity of each stretch of the stream, in order."""
        told = self.header.stream.get("domains", ())
        self.domains: list[tuple[str, int]] = [(name, severity) for name, severity in told] or _unique(self.segments)
        """Name and severity of each domain; they are the different segments, unless domains mix."""

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
        """The names of the shifts, in the order of the stream; where domains mix, of the domains."""
        if self.mixed:
            return domain_names(self.domains)
        return tuple(dict.fromkeys(name for name, _ in self.segments))

    @property
    def mixed(self) -> bool:
        """Whether domains are something else than segments: some batches hold several, or time tells nothing."""
        return set(self.domains) != set(self.segments)

    @property
    def composition(self) -> Composition | None:
        """What the stream is made of, by its first seed; None in older records and where only a pass would tell."""
        told = self.header.stream.get("composition")
        return None if told is None else Composition.read(told)

    @property
    def unequal(self) -> bool:
        """Whether segments have different numbers of answers, so that their mean is not the mean over answers."""
        track = next(iter(next(iter(self._tracks.values())).values()))
        scored = np.bincount(segment_numbers(track.rows), track.column("scored"))
        return len(set(scored.tolist())) > 1

    @property
    def gradual(self) -> bool:
        """Whether a corruption comes at more than one severity, one after the other."""
        return not self.mixed and len(set(self.segments)) > len(self.corruptions)

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

    def guard(self, label: str) -> Mapping[str, Any] | None:
        """All settings of the guard over a method; None where it stood by itself."""
        track = next(iter(self.tracks(label).values()))
        return self.record(label).header.methods[track.unit.method].get("guard")

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
        """Mean error of each corruption over its segments, so in gradual streams over its severities.

        Where domains mix: the error of each domain.
        """
        if self.mixed:
            return dict(zip(self.corruptions, self.domain_errors(label).tolist(), strict=True))
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

    # -- domains ---------------------------------------------------------------------------------------

    def domain_errors(self, label: str, seed: int | None = None) -> Floats:
        """Error of each domain, in the order of `domains`: of one seed, or the mean over seeds."""
        tracks = self.tracks(label)
        chosen = tracks if seed is None else [seed]
        found: list[Floats] = []
        for each in chosen:
            if (label, each) not in self._by_domain:
                rows = tracks[each].rows
                self._by_domain[label, each] = _percent(*recorded_domains(self.record(label), rows, self.domains))
            found.append(self._by_domain[label, each])
        return np.mean(found, axis=0)

    def macro_error(self, label: str) -> float:
        """Mean over domains, each counting the same."""
        return _mean(self.domain_errors(label))

    def pooled_error(self, label: str) -> float:
        """Error over all answers, so that large domains count more."""
        tracks = self.tracks(label).values()
        return _mean([100 * t.unit.errors / t.unit.scored if t.unit.scored else float("nan") for t in tracks])

    def worst_domain(self, label: str) -> tuple[str, float] | None:
        """The domain with the highest error; None where nothing was scored."""
        errors = dict(zip(domain_names(self.domains), self.domain_errors(label).tolist(), strict=True))
        known = {name: error for name, error in errors.items() if np.isfinite(error)}
        return max(known.items(), key=lambda item: item[1]) if known else None

    @property
    def forgets(self) -> bool:
        """Whether there are source samples to measure forgetting on, and the source model ran along."""
        return SOURCE in self._tracks and self.header.stream.get("source") is not None

    def forgetting(self, label: str) -> float | None:
        """Points of accuracy lost on the source samples in the stream, against the source model on the same ones."""
        if not self.forgets:
            return None
        name, severity = self.header.stream["source"]
        place = self.domains.index((name, severity))
        seeds = self._paired_seeds(label)
        pairs = [(self.domain_errors(label, s)[place], self.domain_errors(SOURCE, s)[place]) for s in seeds]
        return _finite_mean([forgotten(mine, source) for mine, source in pairs])

    def forgetting_after(self, label: str) -> float | None:
        """Points of accuracy lost on held-out source images, by the adapted model as it is after the stream."""
        if not self.forgets:
            return None
        mine, source = self.tracks(label), self.tracks(SOURCE)
        pairs = [(_held_out(mine[s]), _held_out(source[s])) for s in self._paired_seeds(label)]
        return _finite_mean([forgotten(a, b) for a, b in pairs])

    def _paired_seeds(self, label: str) -> list[int]:
        return sorted(self.tracks(SOURCE).keys() & self.tracks(label).keys())

    def by_domain(self, label: str) -> dict[str, Any]:
        """All of this in one dictionary, as the summary of a record has it."""
        worst = self.worst_domain(label)
        return {
            "errors": dict(zip(domain_names(self.domains), self.domain_errors(label).tolist(), strict=True)),
            "macro": self.macro_error(label),
            "pooled": self.pooled_error(label),
            "worst": None if worst is None else worst[0],
            "forgetting": self.forgetting(label),
            "forgetting_after": self.forgetting_after(label),
        }

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

    def missed(self, label: str) -> float:
        """Share of batches that arrived while the method was busy, and were not learned from."""
        rows = [row for track in self.tracks(label).values() for row in track.rows]
        return sum(row.reason == MISSED for row in rows) / max(1, len(rows))

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
    return _percent(errors, np.bincount(numbers, track.column("scored")))


def _percent(errors: Numbers, scored: Numbers) -> Floats:
    return 100 * np.divide(errors, scored, out=np.full(len(scored), np.nan), where=scored > 0)


def _held_out(track: Track) -> float | None:
    counts = track.unit.held_out
    return 100 * counts["errors"] / counts["scored"] if counts.get("scored") else None


def _finite_mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _unique(segments: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    return list(dict.fromkeys(segments))


def _mean(values: Floats | list[float]) -> float:
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")
