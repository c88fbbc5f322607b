"""ETA: learn from sure answers that are not all of the same kind."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from acclimate.core.config import between, whole_or_none
from acclimate.core.method import Card, Cost, methods
from acclimate.core.state import State
from acclimate.parts.reliability import declare_mean_prediction, reliable_and_diverse
from acclimate.parts.selective import SelectiveMethod

__all__ = ["ETA"]


@methods.register("eta")
@dataclass(frozen=True, kw_only=True)
class ETA(SelectiveMethod):
    """Minimise the weighted entropy of sure and diverse answers, through normalisation weights and biases.

    `L = mean_S exp(E0 - H_b) H_b` over the rows S with `H_b < E0 = margin ln C` whose prediction has a cosine below
    `diversity` to the moving mean of such predictions (`m <- 0.9 m + 0.1 mean_S p_b`, after the choice). A batch
    without such rows changes nothing.

    Arguments: `margin` in [0, 1] of ln C (published 0.4); `diversity` in [0, 1], published 0.05 for 1000 classes, 0.1
    for a hundred, 0.4 for ten; `learning_rate` > 0; `optimizer`, a name in `torch.optim` or a factory ("sgd" has
    Nesterov momentum 0.9, the released code plain momentum); `select`, which parameters adapt; `classes`, if the model
    does not tell.

    Cost: one forward, one backward; without batch statistics one forward, and another with its backward over the
    chosen rows only. Weights and two moments of the normalisation parameters.
    Raises ValueError for a model without normalisation parameters, or logits that are not [N, C].
    Source: Niu et al., ICML 2022, without its Fisher regularisation (see `eata`).
    Fails when no answer is sure any more: it then learns nothing. On long streams it drifts like Tent, more slowly.

    Example: `acclimate.adapt(net, "eta:imagenet")`.
    """

    card: ClassVar[Card] = Card(
        summary="minimises entropy of sure, diverse answers",
        paper="Niu et al., ICML 2022",
        needs=frozenset({"norm", "backward"}),
        batch_of_one="layer and group norm only",
        fails_when="no answer is sure, or the stream is very long",
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "cifar10": {},
        "cifar100": {"diversity": 0.1},
        "imagenet": {"learning_rate": 2.5e-4, "optimizer": "sgd", "diversity": 0.05},
    }
    margin: float = 0.4
    diversity: float = 0.4
    classes: int | None = None

    def check(self) -> None:
        super().check()
        between(0, 1, margin=self.margin, diversity=self.diversity)
        whole_or_none(1, classes=self.classes)

    def setup(self, state: State) -> None:
        super().setup(state)
        declare_mean_prediction(state, self.classes)

    def choose(self, state: State, x: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        chosen, weight = reliable_and_diverse(state, logits, self.margin, self.diversity)
        state.learn_if(chosen.any(), "no answer was sure and diverse enough")
        return chosen, weight

    def cost(self) -> Cost:
        return dataclasses.replace(super().cost(), per_class=1)
