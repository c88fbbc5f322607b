"""Methods that learn normalisation weights and biases by an optimiser: their common part."""

from __future__ import annotations

from dataclasses import dataclass

from acclimate.anatomy import Selector, affine_norms
from acclimate.core.config import positive
from acclimate.core.method import Cost, Method
from acclimate.core.optimizers import OptimizerFactory, moments
from acclimate.core.state import State

__all__ = ["AffineMethod", "scale_rate"]


@dataclass(frozen=True, kw_only=True)
class AffineMethod(Method):
    """One optimiser over the selected weights, those of normalisation layers by default.

    Subclasses give a `loss`, and may extend `check` and `setup`. Cost: one forward, one backward; the weights
    and what the optimiser keeps.
    """

    learning_rate: float = 1e-3
    optimizer: OptimizerFactory = "adam"
    select: Selector = affine_norms

    def check(self) -> None:
        positive(learning_rate=self.learning_rate)

    def setup(self, state: State) -> None:
        state.adapt(self.select, "normalisation weights and biases")
        state.optimizer(self.optimizer, self.learning_rate)

    def cost(self) -> Cost:
        return Cost(forwards=1, backwards=1, bound=2, copies={"weights": 1, "optimizer": moments(self.optimizer)})


def scale_rate(state: State, learning_rate: float, rows: int, full_batch: int | None) -> None:
    """Step batches of fewer than `full_batch` rows at `rows / full_batch` of the rate, single rows at twice that."""
    if full_batch is not None:
        share = min(1.0, rows / full_batch * (2 if rows == 1 else 1))
        for group in state.table.optimizers["optimizer"].optimizer.param_groups:
            group["lr"] = learning_rate * share
