"""Questions, and those that wait for a member."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

import torch
from torch import Tensor

from acclimate.fields.recommendation.serving.wire import write_question

__all__ = ["Question", "Waiting"]


class Question:
    """Ids, and what members have answered so far, why others have not, and which of these refused the ids; `told` is
    notified at each. What is said first of a member stays.

    Raises ValueError for ids that are no whole numbers `[B, F]`.
    """

    def __init__(self, number: int, ids: Tensor, deadline: float) -> None:
        _check(ids)
        self.number, self.rows, self.deadline = number, len(ids), deadline
        self.data = write_question(number, ids)
        self.answers: dict[int, Tensor] = {}
        self.reasons: dict[int, str] = {}
        self.refused: set[int] = set()
        self.told = threading.Condition()

    def tell(self, member: int, answer: Tensor | str, *, refused: bool = False) -> None:
        with self.told:
            if member in self.answers or member in self.reasons:
                return
            if isinstance(answer, str):
                self.reasons[member] = answer
                if refused:
                    self.refused.add(member)
            else:
                self.answers[member] = answer
            self.told.notify_all()


def _check(ids: Tensor) -> None:
    if not isinstance(ids, Tensor):
        raise ValueError(f"the ids are of type {type(ids).__name__}, expected a tensor: torch.as_tensor(ids).")
    if ids.ndim != 2 or ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise ValueError(
            f"the ids are {str(ids.dtype).removeprefix('torch.')} {list(ids.shape)}; expected whole numbers [B, F], "
            "the global id of each field."
        )


class Waiting:
    """Questions that wait for one member, `most` of them at most, for several threads."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: deque[Question] = deque()
        self.lock = threading.RLock()
        self._asked = threading.Condition(self.lock)

    def put(self, question: Question) -> bool:
        """Never waits; whether there was room."""
        with self.lock:
            if len(self._held) >= self._most:
                return False
            self._held.append(question)
            self._asked.notify()
            return True

    def take(self, stopped: Callable[[], bool]) -> Question | None:
        """The oldest, as soon as there is one; None once `stopped`, which is looked at when `clear` is called."""
        with self.lock:
            self._asked.wait_for(lambda: stopped() or self._held)
            return None if stopped() else self._held.popleft()

    def clear(self) -> list[Question]:
        """Take all, and wake who waits."""
        with self.lock:
            left = list(self._held)
            self._held.clear()
            self._asked.notify_all()
        return left
