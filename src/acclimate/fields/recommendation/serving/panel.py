"""Members that answer side by side; the answer waits for the slowest or for a deadline."""

from __future__ import annotations

import itertools
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from acclimate.core.config import one_of, positive, whole
from acclimate.fields.recommendation.merging.how import HOW, merge_logits, shares
from acclimate.fields.recommendation.serving.lane import Lane, Question, Worker, local

__all__ = ["Answer", "Panel", "Seen"]


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
    """Of the last thousand questions: seconds to the answer (median and 95th percentile), median seconds of each
    member's own forward, share of questions with a member missing, and how often each worker was started."""

    median: float
    late: float
    members: tuple[float, ...]
    incomplete: float
    starts: tuple[int, ...]


class Panel:
    """Each member in a process or on a server of its own; asked together, merged from those that answer in time.

    A member that is late, dead or refuses is left out of that answer, and weights of the others are taken to sum 1. A
    worker that died, or owes an answer for `hung` seconds, is started anew meanwhile. Questions may come from several
    threads.

    Arguments:
        workers: what starts each member's worker: `local(path)` of a file, `remote(host, port, key)`, or a path, which
            is the former.
        deadline: seconds that an answer waits at most.
        how, weights: as in `merge`.
        prior: a logit that is answered where no member comes in time, such as that of the share clicked; without it
            that is a TimeoutError.
        hung: seconds, by default a hundred deadlines and five at least.
        waiting: questions that may wait for a member.

    Workers compute with one thread each. To be used as a context, or closed.
    """

    def __init__(
        self,
        workers: Sequence[str | Path | Callable[[], Worker]],
        *,
        deadline: float = 0.1,
        how: str = "logit_mean",
        weights: Tensor | None = None,
        prior: float | None = None,
        hung: float | None = None,
        waiting: int = 64,
    ) -> None:
        if not workers:
            raise ValueError("there are no workers; expected one or more members.")
        positive(deadline=deadline, **({} if hung is None else {"hung": hung}))
        one_of(*HOW, how=how)
        whole(1, waiting=waiting)
        if prior is not None and not math.isfinite(prior):
            raise ValueError(f"prior is {prior}, expected a finite logit.")
        for each in workers:
            if isinstance(each, str | Path) and not Path(each).expanduser().is_file():
                raise FileNotFoundError(f"there is no file {each}, expected a member that save_member wrote.")
        self.deadline, self.how, self.prior = deadline, how, prior
        self._weights = shares(torch.ones(len(workers)) if weights is None else weights, len(workers))
        limit = max(5.0, 100 * deadline) if hung is None else hung
        starts = [local(Path(each).expanduser()) if isinstance(each, str | Path) else each for each in workers]
        self._lanes = [Lane(place, start, hung=limit, waiting=waiting) for place, start in enumerate(starts)]
        self._numbers = itertools.count()
        self._seconds: deque[float] = deque(maxlen=1000)
        self._complete: deque[bool] = deque(maxlen=1000)

    def ready(self, timeout: float = 60.0) -> bool:
        """Wait until all workers answer; whether they do."""
        until = time.monotonic() + timeout
        return all(lane.ready.wait(max(0.0, until - time.monotonic())) for lane in self._lanes)

    def __call__(self, ids: Tensor, *, deadline: float | None = None) -> Answer:
        """Ask about rows `[B, F]`.

        Raises TimeoutError where no member answered in time and there is no prior, ValueError where every one refused.
        """
        start = time.monotonic()
        question = Question(next(self._numbers), ids, start + (self.deadline if deadline is None else deadline))
        for lane in self._lanes:
            lane.ask(question)
        with question.told:
            question.told.wait_for(
                lambda: len(question.answers) + len(question.reasons) == len(self._lanes),
                max(0.0, question.deadline - time.monotonic()),
            )
            answers, reasons, refused = dict(question.answers), dict(question.reasons), set(question.refused)
        missing = {place: reasons.get(place, "too late") for place in range(len(self._lanes)) if place not in answers}
        if len(refused) == len(self._lanes):
            told = "; ".join(f"member {place}: {missing[place]}" for place in sorted(refused))
            raise ValueError(f"every member refused the question ({told}). Check the ids.")
        logits = self._merged(answers, missing, len(ids))
        seconds = time.monotonic() - start
        self._seconds.append(seconds)
        self._complete.append(not missing)
        return Answer(logits, tuple(sorted(answers)), missing, seconds)

    def _merged(self, answers: dict[int, Tensor], missing: dict[int, str], rows: int) -> Tensor:
        if answers:
            places = sorted(answers)
            weights = self._weights[places]
            if float(weights.sum()) > 0:
                return merge_logits(
                    torch.stack([answers[place] for place in places]), self.how, weights / weights.sum()
                )
        if self.prior is None:
            told = "; ".join(f"member {place}: {reason}" for place, reason in missing.items())
            raise TimeoutError(f"no member answered in {self.deadline:g} s ({told}). Wait longer, or set prior=.")
        return torch.full((rows,), self.prior)

    def seen(self) -> Seen:
        """What there is to know about the last thousand questions; ValueError before the first."""
        if not self._seconds:
            raise ValueError("there were no questions yet. Ask one first.")
        seconds = torch.tensor(list(self._seconds), dtype=torch.float64)
        own = [torch.tensor(list(lane.seconds) or [math.nan], dtype=torch.float64) for lane in self._lanes]
        return Seen(
            median=float(seconds.quantile(0.5)),
            late=float(seconds.quantile(0.95)),
            members=tuple(float(each.quantile(0.5)) for each in own),
            incomplete=1 - sum(self._complete) / len(self._complete),
            starts=tuple(lane.starts for lane in self._lanes),
        )

    def interrupt(self, member: int) -> None:
        """End a member's worker, as when its machine fails; another is started."""
        self._lanes[member].interrupt()

    def close(self) -> None:
        """End all workers."""
        for lane in self._lanes:
            lane.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
