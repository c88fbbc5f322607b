"""A student that learns from the mean of its own past: the common part of CoTTA and DSS."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from acclimate.anatomy import Selector, everything
from acclimate.core import foreach
from acclimate.core.config import between, positive, whole, whole_or_none
from acclimate.core.method import Cost, Method
from acclimate.core.optimizers import OptimizerFactory, moments
from acclimate.core.state import State
from acclimate.parts.agreement import View
from acclimate.parts.fold import check_whole_images, mean_over_views
from acclimate.parts.restore import restore
from acclimate.parts.views import Views, check_views

__all__ = ["MeanTeacher"]


@dataclass(frozen=True, kw_only=True)
class MeanTeacher(Method):
    """The live weights are the teacher, which answers; the twin "student" is trained.

    Subclasses say in `compare` what the student learns from the teacher's answers. Where the anchor, the source's
    weights, is unsure of the batch, the teacher answers by the mean of `copies` views; they are made only then.
    """

    learning_rate: float = 1e-3
    optimizer: OptimizerFactory = "adam"
    momentum: float = 0.999
    restoration: float = 0.01
    threshold: float = 0.92
    copies: int = 32
    rows_at_once: int | None = None
    views: View = Views()  # noqa: RUF009 (frozen)
    select: Selector = everything

    def check(self) -> None:
        positive(learning_rate=self.learning_rate)
        between(0, 1, momentum=self.momentum, restoration=self.restoration, threshold=self.threshold)
        whole(1, copies=self.copies)
        whole_or_none(1, rows_at_once=self.rows_at_once)
        check_views(views=self.views)

    def setup(self, state: State) -> None:
        state.adapt(self.select, "parameters")
        state.twin("student")
        state.optimizer(self.optimizer, self.learning_rate)
        state.generator("views")
        state.generator("restoration")

    def step(self, state: State, x: Tensor) -> Tensor:
        with state.using("student"):
            student = state.forward(x)
        if isinstance(self.views, Views):
            check_whole_images(self.name, x, state.extremes, student)
        teacher = self.teach(state, x)
        with state.using("student"):  # whose graph it is
            loss = self.compare(state, student, teacher)
            state.note(loss=loss)
            state.descend(state.gradients(loss))
        with torch.no_grad():
            pupils = list(state.twins["student"].values())
            foreach.lerp(list(state.weights.values()), pupils, 1 - self.momentum)
            restore(pupils, state.sources(), self.restoration, state.generator("restoration"))
        return teacher

    @torch.no_grad()
    def teach(self, state: State, x: Tensor) -> Tensor:
        """The teacher's logits; by the mean over views where the anchor is unsure of the batch as a whole."""
        with state.using("source"):
            confidence = state.forward(x, answering=False).softmax(1).amax(1).mean()
        unsure = bool(confidence < self.threshold)  # the host must know whether to make views
        state.note(confidence=confidence, views=self.copies if unsure else 0)
        if unsure:
            return mean_over_views(state, x, self.views, self.copies, self.rows_at_once)
        return state.forward(x, answering=False)

    def compare(self, state: State, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss of the student's logits, given the teacher's."""
        raise NotImplementedError(f"{type(self).__name__} does not say what the student learns. Define compare().")

    def cost(self) -> Cost:
        return Cost(
            forwards=2 + self.copies,
            backwards=1,
            bound=4 + self.copies,
            copies={"weights": 2, "optimizer": moments(self.optimizer)},
        )
