"""Training that keeps the best epoch and ends when none is better."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from acclimate.models.run import Run

__all__ = ["JudgedRun"]

_BEST = "best."
_STATE = "judged.state"


class JudgedRun(Run):
    """A run whose model ends with the weights of the epoch that was judged best.

    Arguments:
        judge: a number for the model as it is after an epoch, on data that it does not learn from; higher is better.
        patience: epochs without a better one after which it ends, 1 or more.

    The others as for `Run`. Of equals the first is kept.
    """

    def __init__(self, *args: Any, judge: Callable[[], float], patience: int, **settings: Any) -> None:
        super().__init__(*args, **settings)
        if patience < 1:
            raise ValueError(f"patience is {patience}; expected 1 epoch or more.")
        self._judge, self._patience = judge, patience
        self._best: dict[str, Tensor] = {}
        self.score, self.waited = -float("inf"), 0
        """Of the best epoch so far, and how many came since."""

    @property
    def over(self) -> bool:
        return self.waited >= self._patience

    def epoch(self, number: int) -> tuple[float, float]:
        found = super().epoch(number)
        score = self._judge()
        if not self._best or score > self.score:
            self.score, self.waited = score, 0
            self._best = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        else:
            self.waited += 1
        return found

    def settle(self) -> None:
        self.model.load_state_dict(self._best)

    def state(self) -> dict[str, Tensor]:
        kept = {f"{_BEST}{name}": value for name, value in self._best.items()}
        told = torch.tensor([self.score, float(self.waited)], dtype=torch.float64)
        return {**super().state(), **kept, _STATE: told}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        super().restore(tensors)
        self._best = {name.removeprefix(_BEST): value for name, value in tensors.items() if name.startswith(_BEST)}
        self.score, waited = tensors[_STATE].tolist()
        self.waited = int(waited)
