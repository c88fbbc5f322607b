"""Bandwidth as it was measured, from a file."""

from __future__ import annotations

import csv
import itertools
import math
from pathlib import Path

from acclimate.core.config import positive
from acclimate.links.piecewise import Piecewise
from acclimate.links.trace import Trace

__all__ = ["HEADER", "recorded"]

HEADER = ("seconds", "bits_per_second")
"""The first line of a recorded trace."""


def recorded(path: str | Path, *, repeat: bool = True, scale: float = 1.0) -> Trace:
    """A trace from a CSV file with the columns `seconds,bits_per_second`.

    Each row's bandwidth holds until the time of the next row. The trace begins with the first row, whatever its time.
    0 bit/s is an outage.

    Arguments:
        path: of the file, in UTF-8.
        repeat: begin again after the last row, which then holds for as long as the row before it; otherwise it holds
            for good. A single row holds for good.
        scale: what to multiply bandwidths with, above 0: to fit a trace to a small model.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is none of these, with its line; or one in which no bits ever pass.
    """
    positive(scale=scale)
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no recorded trace at {path}; expected a CSV file with {','.join(HEADER)}.")
    times, rates = _read(path)
    if not any(rates):
        raise ValueError(f"{path} is no recorded trace: it has {len(rates)} rows, and no bits pass in any of them.")
    if not repeat and not rates[-1]:
        raise ValueError(f"{path} ends with 0 bit/s, which would hold for good. Repeat it, or drop its last row.")
    kept = [rate * scale for rate in rates]
    if len(times) == 1 or not repeat:
        spans = [later - time for time, later in itertools.pairwise([*times, math.inf])]
        return Piecewise(zip(spans, kept, strict=True))
    spans = [later - time for time, later in itertools.pairwise(times)]
    return Piecewise(itertools.cycle(list(zip([*spans, spans[-1]], kept, strict=True))))


def _read(path: Path) -> tuple[list[float], list[float]]:
    times: list[float] = []
    rates: list[float] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file)
            header = tuple(name.strip() for name in next(rows, []))
            if header != HEADER:
                raise ValueError(f"its first line is {','.join(header)[:60]!r}, expected {','.join(HEADER)!r}.")
            for row in rows:
                if row:
                    time, rate = _numbers(row, rows.line_num, times[-1] if times else -math.inf)
                    times.append(time)
                    rates.append(rate)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is no recorded trace: it is not text in columns ({error}).") from error
    except ValueError as error:
        raise ValueError(f"{path} is no recorded trace: {error}") from error
    return times, rates


def _numbers(row: list[str], line: int, before: float) -> tuple[float, float]:
    try:
        time, rate = map(float, row)
    except ValueError as error:
        raise ValueError(f"line {line} is {','.join(row)[:60]!r}, expected two numbers.") from error
    if not (math.isfinite(time) and time > before):
        raise ValueError(f"line {line} has the time {time}, expected a finite one after {before}.")
    if not 0 <= rate < math.inf:
        raise ValueError(f"line {line} has {rate} bit/s, expected a finite number of 0 or more.")
    return time, rate
