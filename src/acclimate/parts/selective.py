"""Learning from chosen rows: run again, with a graph, only those, wherever that gives the same."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from acclimate.core.method import Cost
from acclimate.core.state import State
from acclimate.functional import entropy, filtered_mean
from acclimate.parts.affine import AffineMethod

__all__ = ["SelectiveMethod", "answer", "declare_share", "forward_rows", "rows_to_learn", "with_graph"]

_HALF = 0.5
"""From this share on, a graph of the whole batch is cheaper: 2 F against (1 + 2p) F.

The share is that of the last batch, so a batch in which it jumps can take up to 3 F."""


def declare_share(state: State) -> None:
    """Keep the share of rows that was chosen last: one number."""
    weight = next(iter(state.weights.values()))
    state.declare("selected_share", torch.zeros((), dtype=torch.float32, device=weight.device), initial=0.0)


def answer(state: State, x: Tensor) -> Tensor:
    """The answering forward; without a graph where the chosen rows, expected to be few, will be run again."""
    again = not state.by_batch and float(state["selected_share"]) < _HALF
    with torch.set_grad_enabled(not again):
        return state.forward(x)


def rows_to_learn(state: State, chosen: Tensor) -> Tensor | slice | None:
    """Rows to take the loss over: all, to be masked, where answers depend on the other rows; else the chosen ones.

    None when it is known that there are none; their index is a host read.
    """
    state["selected_share"].copy_(chosen.float().mean())
    if state.by_batch:
        return slice(None)
    index = state.rows(chosen)
    return index if len(index) else None


def forward_rows(state: State, x: Tensor, rows: Tensor | slice) -> Tensor:
    """Logits of another forward of these rows."""
    if isinstance(rows, slice):
        return state.forward(x, answering=False)
    return state.forward(x[rows], answering=False, rows=rows)


def with_graph(state: State, x: Tensor, logits: Tensor, rows: Tensor | slice) -> Tensor:
    """Logits of these rows with a graph: those of the answering forward if it has one, or of another."""
    return logits[rows] if logits.requires_grad else forward_rows(state, x, rows)


@dataclass(frozen=True, kw_only=True)
class SelectiveMethod(AffineMethod):
    """Lower the weighted entropy of chosen rows, `mean_S w_b H_b`, by one optimiser over the selected weights.

    Subclasses choose the rows and weigh them in `choose`, and may change the gradients in `adjust`. Where a row's
    answer does not depend on the others, the answering forward has no graph and only the chosen rows are run again
    with one: `(1 + 2p) F` for a share p, with `F` a forward, and the memory of a graph of pN rows. If half of the
    rows or more were chosen last time, and on models with batch statistics, one forward with a graph does it: `2 F`.
    """

    def choose(self, state: State, x: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Which rows to learn from and their weights, two of `[N]`; says by `state.learn_if` when there are none."""
        raise NotImplementedError(f"{type(self).__name__} chooses no rows. Define choose(state, x, logits).")

    def adjust(self, state: State, gradients: dict[str, Tensor]) -> dict[str, Tensor]:
        """The gradients that the optimiser shall step with."""
        return gradients

    def setup(self, state: State) -> None:
        super().setup(state)
        declare_share(state)

    def step(self, state: State, x: Tensor) -> Tensor:
        logits = answer(state, x)
        chosen, weight = self.choose(state, x, logits.detach())
        state.note(selected=chosen.sum())
        rows = rows_to_learn(state, chosen)
        if rows is not None:
            loss = filtered_mean(weight[rows] * entropy(with_graph(state, x, logits, rows)), chosen[rows])
            state.note(loss=loss)
            state.descend(self.adjust(state, state.gradients(loss)))
        return logits

    def cost(self) -> Cost:
        return dataclasses.replace(super().cost(), selected=1, numbers=1)
