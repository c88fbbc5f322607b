"""Members that answer side by side; the answer waits for the slowest or for a deadline."""

from __future__ import annotations

import itertools
import math
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor

from acclimate.core.config import one_of, positive, whole
from acclimate.fields.recommendation.merging.folder import check_member, read_index
from acclimate.fields.recommendation.merging.how import HOW, checked_weights, merge_logits
from acclimate.fields.recommendation.serving.lane import Lane, Question, Worker, local
from acclimate.fields.recommendation.serving.seen import Answer, Record, Seen

__all__ = ["Answer", "Panel", "Seen"]

_ENDING = 5.0


class Panel:
    """Each member in a process or on a server of its own; asked together, merged from those that answer in time.

    A member that is late, dead, refuses, or gives numbers that are not finite or too few is left out of that answer,
    and weights of the others are taken to sum 1. A worker that died, sends what is no answer, or owes one for `hung`
    seconds, is started anew meanwhile. Questions may come from several threads.

    Arguments:
        workers: what starts each member's worker: `local(path)` of a file, `remote(host, port, key)`, or a path, which
            is the former.
        deadline: seconds that an answer waits at most.
        how, weights: as in `merge`.
        prior: a logit that is answered where no member comes in time, such as that of the share clicked; without it
            that is a TimeoutError.
        hung: seconds, by default a hundred deadlines and five at least.
        waiting: questions that may wait for a member.

    Raises ValueError for other settings or files that hold no member, FileNotFoundError where there is no file.

    Workers compute with one thread each. To be used as a context, or closed.
    """

    def __init__(
        self,
        workers: Sequence[str | Path | Callable[[], Worker]],
        *,
        deadline: float = 0.1,
        how: str = "logit_mean",
        weights: Sequence[float] | Tensor | None = None,
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
        self._weights = checked_weights(weights, how, len(workers))
        starts = [_start(each) for each in workers]
        self.deadline, self.how, self.prior = deadline, how, prior
        limit = max(5.0, 100 * deadline) if hung is None else hung
        self._lanes = [Lane(place, start, hung=limit, waiting=waiting) for place, start in enumerate(starts)]
        self._numbers = itertools.count()
        self._record = Record()
        self._close = weakref.finalize(self, _end, self._lanes)

    @classmethod
    def of(cls, folder: str | Path, **settings: Any) -> Self:
        """The members of a folder that `save_merged` wrote, merged as they are there. `settings` as above."""
        index = read_index(folder)
        found: dict[str, Any] = {"how": index.how, "weights": index.given()}
        return cls(index.paths(), **{**found, **settings})

    def ready(self, timeout: float = 60.0) -> bool:
        """Wait until all workers answer, or one of them cannot load its member; whether all do."""
        self._check_open()
        until = time.monotonic() + timeout
        return all(lane.wait(max(0.0, until - time.monotonic())) for lane in self._lanes)

    def __call__(self, ids: Tensor, *, deadline: float | None = None) -> Answer:
        """Ask about rows of whole ids `[B, F]`, on any device.

        Raises TimeoutError where no member answered in time and there is no prior, ValueError for other ids or
        deadlines or where every one refused, RuntimeError once the panel is closed.
        """
        self._check_open()
        limit = self.deadline if deadline is None else deadline
        positive(deadline=limit)
        start = time.monotonic()
        question = Question(next(self._numbers), ids, start + limit)
        for lane in self._lanes:
            lane.ask(question)
        with question.told:
            question.told.wait_for(
                lambda: len(question.answers) + len(question.reasons) == len(self._lanes),
                max(0.0, question.deadline - time.monotonic()),
            )
            answers, reasons, refused = dict(question.answers), dict(question.reasons), set(question.refused)
        missing = {place: reasons.get(place, "too late") for place in range(len(self._lanes)) if place not in answers}
        self._record.add(time.monotonic() - start, complete=not missing)
        if len(refused) == len(self._lanes):
            raise ValueError(f"every member refused the question ({_told(missing)}). Check the ids.")
        logits = self._merged(answers)
        if logits is None:
            if self.prior is None:
                raise TimeoutError(f"no member answered in {limit:g} s ({_told(missing)}). Wait longer, or set prior=.")
            logits = torch.full((len(ids),), self.prior)
        return Answer(logits, tuple(sorted(answers)), missing, time.monotonic() - start)

    def _merged(self, answers: dict[int, Tensor]) -> Tensor | None:
        places = sorted(answers)
        weights = self._weights[places]
        if not float(weights.sum()) > 0:
            return None
        return merge_logits(torch.stack([answers[place] for place in places]), self.how, weights / weights.sum())

    def seen(self) -> Seen:
        """What there is to know about the last thousand questions; ValueError before the first."""
        return self._record.seen(self._lanes)

    def interrupt(self, member: int) -> None:
        """End a member's worker, as when its machine fails; another is started."""
        self._lanes[member].interrupt()

    def close(self) -> None:
        """End all workers, which takes seconds at most."""
        self._close()

    def _check_open(self) -> None:
        if not self._close.alive:
            raise RuntimeError("this panel is closed. Make a new one.")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _start(worker: str | Path | Callable[[], Worker]) -> Callable[[], Worker]:
    if not isinstance(worker, str | Path):
        return worker
    path = Path(worker).expanduser()
    check_member(path)
    return local(path)


def _told(missing: dict[int, str]) -> str:
    return "; ".join(f"member {place}: {reason}" for place, reason in missing.items())


def _end(lanes: Sequence[Lane]) -> None:
    until = time.monotonic() + _ENDING
    for lane in lanes:
        lane.stop()
    for lane in lanes:
        lane.join(max(0.0, until - time.monotonic()))
