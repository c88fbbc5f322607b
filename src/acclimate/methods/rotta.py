"""RoTTA: a student learns from a balanced, timely bank; the teacher that follows it answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from acclimate.core import foreach
from acclimate.core.config import at_least, between, whole, whole_or_none
from acclimate.core.method import Card, Cost, methods
from acclimate.core.normalization import Normalization
from acclimate.core.optimizers import moments
from acclimate.core.state import State
from acclimate.functional import consistency
from acclimate.parts.affine import AffineMethod
from acclimate.parts.bank import CSTU, collect, declare_bank
from acclimate.parts.views import Views, check_images, check_views

__all__ = ["RoTTA"]


@methods.register("rotta")
@dataclass(frozen=True, kw_only=True)
class RoTTA(AffineMethod):
    """Every so many samples a student learns a view of the bank from its teacher, which follows slowly and answers.

    The bank (CSTU) has `capacity / C` places for each predicted class. A sample takes the place of the worst of its
    class, or of the largest ones, if worse by `timeliness / (1 + exp(-age / capacity)) + uncertainty H / ln C`.
    Each time `update_every` samples have come: `L = mean_i w_i CE(teacher(x_i) -> student(view(x_i)))` over the bank,
    `w = sigmoid(-age / capacity)`; one step of the student; `teacher <- teacher + nu (student - teacher)`. Both
    normalise by statistics of their own, which follow the bank (`normalization` "robust").

    Arguments (defaults as published): `learning_rate` > 0; `nu` in [0, 1]; `capacity` and `update_every` >= 1 samples;
    `timeliness` and `uncertainty` >= 0; `views`, the augmentation; `classes`, if the last layer does not tell;
    `optimizer`; `select`.

    Cost: one forward; for each update two forwards and one backward over at most `capacity` samples, on average
    `2 capacity / update_every` forwards of the batch. Stated for batches that bring one update: one of B
    samples brings `B / update_every`. Two copies of the weights, two moments, the bank. One host read a step.
    Raises ValueError for a model without normalisation parameters or running statistics, images outside [0, 1] or of
    changing shape, and further tensors with a row for each sample.
    Source: Yuan et al., CVPR 2023. As in the released code a batch is answered whole; then its samples come to the
    bank one by one, with updates in between.
    Fails slowly: one update moves the teacher by `nu`, so on short streams little but statistics changes; with more
    classes than `capacity` the bank keeps at most one sample of each.

    Example: `acclimate.adapt(net, RoTTA(nu=0.01))`.
    """

    card: ClassVar[Card] = Card(
        summary="a slow teacher answers; its student learns views of a balanced, timely bank of samples",
        paper="Yuan et al., CVPR 2023",
        needs=frozenset({"norm", "backward", "augmentation"}),
        fails_when="the stream is short: the teacher moves slowly",
    )
    normalization: str | Normalization = "robust"
    nu: float = 0.001
    capacity: int = 64
    update_every: int = 64
    timeliness: float = 1.0
    uncertainty: float = 1.0
    views: Callable[[Tensor, torch.Generator], Tensor] = Views()  # noqa: RUF009 (frozen)
    classes: int | None = None

    def check(self) -> None:
        super().check()
        between(0, 1, nu=self.nu)
        whole(1, capacity=self.capacity, update_every=self.update_every)
        whole_or_none(1, classes=self.classes)
        check_views(views=self.views)
        at_least(0, timeliness=self.timeliness, uncertainty=self.uncertainty)

    def setup(self, state: State) -> None:
        super().setup(state)
        state.twin("student")
        declare_bank(state, self.capacity, state.classes(self.classes))
        state.generator("views")

    def step(self, state: State, x: Tensor) -> Tensor:
        if isinstance(self.views, Views):
            check_images("RoTTA", x, state.extremes)
        if "bank.samples" not in state:
            self.views(x[:1], torch.Generator())  # what no view can be made of is refused now, not at the first update
        with torch.no_grad():
            logits = state.forward(x)
        admit = CSTU(timeliness=self.timeliness, uncertainty=self.uncertainty)
        for kept, ages in collect(state, x, logits, admit, every=self.update_every):
            self._update(state, kept, ages)
        return logits

    def _update(self, state: State, kept: Tensor, ages: Tensor) -> None:
        with torch.no_grad():
            target = state.forward(kept, answering=False, learning=True)
        with state.using("student"):
            view = self.views(kept, state.generator("views"))
            losses = consistency(target, state.forward(view, answering=False, learning=True))
            loss = (torch.sigmoid(-ages.to(losses.dtype) / self.capacity) * losses).mean()
            state.note(loss=loss)
            state.descend(state.gradients(loss))
        with torch.no_grad():
            foreach.lerp(list(state.weights.values()), list(state.twins["student"].values()), self.nu)

    def cost(self) -> Cost:
        memory = {"sample": self.capacity, "number": 5 * self.capacity, "class": 2}
        per_batch = self.capacity / self.update_every
        selected, copies = 2 * per_batch, {"weights": 2, "optimizer": moments(self.optimizer)}
        return dataclasses.replace(
            super().cost(), bound=1 + 3 * per_batch, selected=selected, copies=copies, memory=memory
        )
