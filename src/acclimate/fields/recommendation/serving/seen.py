"""What a panel answers, and what is kept of its questions."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from acclimate.fields.recommendation.serving.lane import Lane

__all__ = ["Answer", "Record", "Seen"]


@dataclass(frozen=True, slots=True)
class Answer:
    """Attributes: `logits`, `[B]`; `arrived`, the members they come from; `missing`, why others are not among them;
    `seconds`, from question to answer."""

    logits: Tensor
    arrived: tuple[int, ...]
    missing: dict[int, str]
    seconds: float


@dataclass(frozen=True, slots=True)
class Seen:
    """Of the last thousand questions, those that ended in an error among them: seconds to the answer (median and 95th
    percentile), median seconds of each member's own forward, share of questions with a member missing, and how often
    each worker was started."""

    median: float
    late: float
    members: tuple[float, ...]
    incomplete: float
    starts: tuple[int, ...]


class Record:
    """Seconds and completeness of the last thousand questions."""

    def __init__(self) -> None:
        self._kept: deque[tuple[float, bool]] = deque(maxlen=1000)

    def add(self, seconds: float, *, complete: bool) -> None:
        self._kept.append((seconds, complete))

    def seen(self, lanes: Sequence[Lane]) -> Seen:
        """ValueError before the first question."""
        kept = list(self._kept)
        if not kept:
            raise ValueError("there were no questions yet. Ask one first.")
        seconds = torch.tensor([each for each, _ in kept], dtype=torch.float64)
        own = [torch.tensor(list(lane.seconds) or [math.nan], dtype=torch.float64) for lane in lanes]
        return Seen(
            median=float(seconds.quantile(0.5)),
            late=float(seconds.quantile(0.95)),
            members=tuple(float(each.quantile(0.5)) for each in own),
            incomplete=1 - sum(complete for _, complete in kept) / len(kept),
            starts=tuple(lane.starts for lane in lanes),
        )
