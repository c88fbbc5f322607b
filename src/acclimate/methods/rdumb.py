"""RDumb: adapt by ETA and forget everything every so often."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from acclimate.core.config import whole
from acclimate.core.method import Card, methods
from acclimate.core.state import State
from acclimate.methods.eta import ETA

__all__ = ["RDumb"]


@methods.register("rdumb")
@dataclass(frozen=True, kw_only=True)
class RDumb(ETA):
    """Minimise the weighted entropy of sure and diverse answers (ETA), and reset every N batches.

    `L = mean_S exp(E0 - H_b) H_b` over the rows S with `H_b < E0 = margin ln C` whose prediction is unlike the moving
    mean of such predictions (cosine below `diversity`). A batch without such rows changes nothing. The
    blind reset is a baseline that many methods do not beat on long streams.

    Arguments: `reset_every` >= 1 batches (published 1000); `margin` in [0, 1] of ln C; `diversity` in [0, 1],
    published 0.05 for 1000 classes, 0.4 for ten; `learning_rate` > 0; `optimizer`; `select`; `classes`, if the model
    does not tell.

    Cost: that of `eta`: one forward, one backward; weights and two moments of the normalisation parameters.
    Raises ValueError for a model without normalisation parameters.
    Source: Press et al., NeurIPS 2023; the loss is EATA's, Niu et al., ICML 2022.
    Fails when domains last much longer than `reset_every` batches: what was learned is thrown away.

    Example: `acclimate.adapt(net, "rdumb:short")`.
    """

    card: ClassVar[Card] = Card(
        summary="minimises entropy of sure, diverse answers and resets every N batches",
        paper="Press et al., NeurIPS 2023",
        needs=frozenset({"norm", "backward"}),
        batch_of_one="layer and group norm only",
        fails_when="domains last much longer than the reset interval",
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "cifar10": {},
        "imagenet": {"learning_rate": 2.5e-4, "optimizer": "sgd", "diversity": 0.05},
        "short": {"reset_every": 50},
    }
    reset_every: int = 1000

    def check(self) -> None:
        super().check()
        whole(1, reset_every=self.reset_every)

    def step(self, state: State, x: Tensor) -> Tensor:
        if state.batches and state.batches % self.reset_every == 0:
            state.restart()
        return super().step(state, x)
