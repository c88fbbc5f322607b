"""Errors by domain: counted while a stream runs, and read from records."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, nan

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from acclimate.experiment.record import Record
from acclimate.experiment.rows import BatchRow, unpack_bits
from acclimate.streams import Batch, Segment

__all__ = ["DomainTally", "domain_names", "forgotten", "recorded_domains"]

Ints = NDArray[np.int64]


class DomainTally:
    """Counts wrong and scored answers by domain.

    Arguments:
        domains: of the stream, `stream.domains`.
        source: the domain that forgetting is measured on, `stream.source`.

    >>> from acclimate.streams import open_stream
    >>> stream = open_stream("digits:mixed", size=10, corruptions=["fog", "snow"])
    >>> tally = DomainTally(stream.domains, stream.source)
    >>> for batch in stream:
    ...     tally.add(batch, wrong=batch.labels == 0, scored=batch.labels >= 0)
    >>> {name: scored for name, (_, scored) in tally.counts().items()}
    {'fog': 10, 'snow': 10}
    """

    def __init__(self, domains: Sequence[Segment], source: Segment | None = None) -> None:
        self.domains = tuple(domains)
        self.source = source
        self.errors: Ints = np.zeros(len(self.domains), dtype=np.int64)
        self.scored: Ints = np.zeros(len(self.domains), dtype=np.int64)
        self._places = {domain: place for place, domain in enumerate(self.domains)}

    def add(self, batch: Batch, wrong: Tensor, scored: Tensor) -> None:
        """Count a batch. `wrong` and `scored` are booleans of the labels' shape, `wrong` only where `scored`."""
        domains = batch.domains.numpy()
        if (domains < 0).any():
            domains = np.where(domains < 0, self._places[batch.segment], domains)
        for counts, flags in ((self.errors, wrong), (self.scored, scored)):
            numbers = flags.reshape(len(domains), -1).sum(1).numpy()
            np.add.at(counts, domains, numbers)

    def counts(self) -> dict[str, tuple[int, int]]:
        """Errors and scored answers by domain, in the order of the stream."""
        names = domain_names([(domain.name, domain.severity) for domain in self.domains])
        return dict(zip(names, zip(self.errors.tolist(), self.scored.tolist(), strict=True), strict=True))

    def percent(self) -> dict[str, float | None]:
        """Error of each domain in percent; None where nothing was scored."""
        return {name: 100 * errors / scored if scored else None for name, (errors, scored) in self.counts().items()}

    @property
    def pooled(self) -> float | None:
        """Error over all answers in percent."""
        total = int(self.scored.sum())
        return 100 * int(self.errors.sum()) / total if total else None

    @property
    def macro(self) -> float | None:
        """Mean of the domains' errors in percent."""
        known = [error for error in self.percent().values() if error is not None]
        return sum(known) / len(known) if known else None

    @property
    def source_error(self) -> float | None:
        """Error on the source's samples in the stream, in percent."""
        if self.source is None:
            return None
        place = self._places[self.source]
        return 100 * int(self.errors[place]) / int(self.scored[place]) if self.scored[place] else None


def domain_names(domains: Sequence[tuple[str, int]]) -> tuple[str, ...]:
    """The domains' names, with the severity where a name stands for several.

    >>> domain_names([("fog", 1), ("fog", 5), ("snow", 5)])
    ('fog 1', 'fog 5', 'snow')
    """
    names = [name for name, _ in domains]
    return tuple(name if names.count(name) == 1 else f"{name} {severity}" for name, severity in domains)


def recorded_domains(record: Record, rows: Sequence[BatchRow], domains: Sequence[tuple[str, int]]) -> tuple[Ints, Ints]:
    """Errors and scored answers of each domain, from the rows of a record: int64 `[D]` each.

    A batch of several domains counts by its bits; of batches without bits, only those of one domain count.
    """
    errors, scored = np.zeros(len(domains), dtype=np.int64), np.zeros(len(domains), dtype=np.int64)
    places = {domain: place for place, domain in enumerate(domains)}
    for row in rows:
        at = row.seed, row.batch
        own = places.get((row.segment, row.severity))
        if at not in record.domains:
            if own is not None:
                errors[own] += row.errors
                scored[own] += row.scored
            continue
        numbers = np.array(record.domains[at], dtype=np.int64)
        if own is not None:
            numbers[numbers < 0] = own
        if not row.wrong or (numbers < 0).any():
            continue
        known = np.ones(len(numbers), dtype=bool)
        known[list(record.unscored.get(at, ()))] = False
        errors += np.bincount(numbers[unpack_bits(row.wrong, row.samples) & known], minlength=len(domains))
        scored += np.bincount(numbers[known], minlength=len(domains))
    return errors, scored


def forgotten(adapted: float | None, unadapted: float | None) -> float | None:
    """Points of accuracy lost on the same source samples: the adapted model's error minus the unadapted one's.

    None where one of them is unknown; below zero where the model became better.
    """
    lost = (nan if adapted is None else adapted) - (nan if unadapted is None else unadapted)
    return lost if isfinite(lost) else None
