"""Go back to the last good state when the guessed accuracy falls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from acclimate.core.config import at_least, positive
from acclimate.core.guard import Guard, Judgement, Keep, Look, guards
from acclimate.guard.agreement import estimated_accuracy
from acclimate.guard.reading import note
from acclimate.guard.signals import agreement, flat

__all__ = ["RecoverGuard"]


@guards.register("recover")
@dataclass(frozen=True, kw_only=True)
class RecoverGuard(Guard):
    """Keep a copy of the state while the guessed accuracy is near its best; roll back to it when that falls.

    The guess of a batch is the agreement of its answers with the arbiter's, the mean of the share of equal labels and
    of `sum_c p_c q_c`; without batch norms there is no arbiter, and it is `estimated_accuracy` from the source's
    answers: one minus the flip rate, weighted by concentration. `a <- a + r (guess - a)`, `r = n / (n + memory)` for n
    rows, beginning at the first guess, and `b` is the highest `a` so far. While `a >= b - near` the state is good and
    copied. When `a < b - drop` weights and statistics go back to the copy, optimisers begin anew, and so do a and b,
    since the level of a harder domain is no fault. Before any state was good, the copy is the source.

    Arguments: `memory` > 0, in rows; `drop` > `near` >= 0, in units of accuracy.
    Cost: `n / N` of a forward for n rows, 0.1 with `share` 0.1. Three numbers, and weights and statistics once more.
    Source: the guess without arbiter follows AETTA (Lee et al., CVPR 2024); the rest is ours.
    Fails where a collapse is so slow that states on the way are still near the best, and where a hard domain follows
    an easy one: what was learned since the copy is lost.

    Example: `acclimate.adapt(net, "tent", guard="recover")`.
    """

    keeps_good: ClassVar[bool] = True
    memory: float = 200.0
    drop: float = 0.1
    near: float = 0.02

    def check(self) -> None:
        positive(memory=self.memory)
        at_least(0, near=self.near)
        at_least(0, drop=self.drop)
        if not self.drop > self.near:
            raise ValueError(f"drop must be above near, found {self.drop!r} and {self.near!r}.")

    def setup(self, keep: Keep) -> None:
        keep("guess", torch.zeros(()))
        keep("best", torch.zeros(()))
        keep("known", torch.zeros(()))

    def judge(self, look: Look, kept: dict[str, Tensor]) -> Judgement:
        found = None if look.frozen else self.accuracy(look)
        if found is None:
            return Judgement()
        guess, best = float(kept["guess"]), float(kept["best"])
        if not kept["known"]:
            guess = best = found
        guess += len(look.rows) / (len(look.rows) + self.memory) * (found - guess)
        best = max(guess, best)
        fallen = guess < best - self.drop
        note(kept, guess=0.0 if fallen else guess, best=0.0 if fallen else best, known=float(not fallen))
        return Judgement(
            recover=fallen,
            good=guess >= best - self.near,
            reason=f"the guessed accuracy fell from {best:.3f} to {guess:.3f}, back to the good state"
            if fallen
            else "",
            signals={"guessed_accuracy": guess},
        )

    def accuracy(self, look: Look) -> float | None:
        """The guess of one batch; None where there is no arbiter and a single answer, which shows no classes."""
        if look.has_arbiter:
            return sum(agreement(look.adapted, look.arbiter)) / 2
        ours = flat(look.adapted)
        return None if len(ours) < 2 else estimated_accuracy(ours, flat(look.source))
