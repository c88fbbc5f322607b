"""A stream that does not wait: batches arrive on a virtual clock, and a slow method misses some."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from math import isfinite

from acclimate import Adapted
from acclimate.core.method import Cost
from acclimate.core.report import StepReport

__all__ = ["MISSED", "Pace", "check_pace", "work"]

MISSED = "busy with an earlier batch"
"""The reason of a row that was answered while an earlier step was still running."""

_ROUNDING = 1e-9


def work(cost: Cost, steps: int, report: StepReport) -> float:
    """What a step took, in forwards F of its batch: the forwards it made, and each backward at its stated weight.

    The weight is `(bound - forwards) / backwards` of the method's `Cost`, where gradients of activations count 1 and
    those of convolutions' and linear layers' weights 1 more. Where a method makes no backward, what its bound states
    beyond its forwards is added. No step counts more than its bound, which is that of the dearest one.
    """
    bound = cost.bound or cost.forwards + 2 * cost.backwards
    if not cost.backwards:
        return report.forwards + steps * max(0.0, bound - cost.forwards)
    samples = report.samples if cost.each == "sample" else 1
    weight = max(0.0, bound - cost.forwards) / cost.backwards
    return min(report.forwards + weight * report.backwards / max(1, samples), max(report.forwards, steps * bound))


class Pace:
    """Lets batches arrive every `forwards` F, whatever the method is doing.

    Batch `k` arrives at `k * forwards`. If the method is free, it answers and learns, and is busy for the `work` of
    that step and its guard's forwards. A batch that arrives before the step is done is answered, without delay for it,
    by the model as it was when the step began, and is never learned from. Nothing is measured by a real clock, so the
    same run misses the same batches on any machine. A short last batch counts as a whole one.

    Arguments:
        adapted: answers and learns.
        forwards: above 0; 1 is as fast as the unadapted model answers.

    Raises:
        ValueError: a pace that is not above 0.

    Source: Alfarra et al., Evaluation of Test-Time Adaptation Under Computational Time Constraints, ICML 2024, where a
    method `r` times slower than the stream adapts on every `ceil(r)`-th batch. Work from counted passes, in place of
    measured time, is ours.
    """

    def __init__(self, adapted: Adapted, forwards: float) -> None:
        check_pace(forwards)
        self._adapted = adapted
        self._every = forwards
        self._arrivals = 0
        self._free = 0.0
        self._behind = False

    @contextlib.contextmanager
    def batch(self) -> Generator[bool]:
        """One arrival: gives whether it is missed. Within the block, call the adapted model once."""
        now = self._arrivals * self._every
        self._arrivals += 1
        if now < self._free - _ROUNDING:
            self._step_back()
            with self._adapted.frozen():
                yield True
            return
        self.catch_up()
        self._adapted.snapshot("before")
        yield False
        report = self._adapted.last
        assert report is not None
        method = self._adapted.method
        guard = report.guard.forwards if report.guard else 0.0
        self._free = now + work(method.cost(), method.steps, report) + guard

    def _step_back(self) -> None:
        """While a step runs, the model is what it was before."""
        if not self._behind:
            self._adapted.snapshot("done")
            self._adapted.restore("before")
            self._behind = True

    def catch_up(self) -> None:
        """The running step is done."""
        if self._behind:
            self._adapted.restore("done")
            self._adapted.forget("done")
            self._behind = False


def check_pace(forwards: float) -> None:
    """ValueError unless a number above 0."""
    if isinstance(forwards, bool) or not (isfinite(forwards) and forwards > 0):
        raise ValueError(f"the pace is {forwards} forwards; expected a number above 0, such as 1, or none at all.")
