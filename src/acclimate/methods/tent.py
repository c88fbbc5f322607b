"""Tent: minimise the entropy of the answers through the normalisation layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from acclimate.core.method import Card, methods
from acclimate.core.state import State
from acclimate.functional import entropy
from acclimate.parts.affine import AffineMethod

__all__ = ["Tent"]


@methods.register("tent")
@dataclass(frozen=True, kw_only=True)
class Tent(AffineMethod):
    """Lower the mean entropy of each batch by one optimiser step on normalisation weights and biases.

    `L = (1/B) sum_b H(softmax(z_b))`, `theta <- Adam(theta, dL/dtheta)`; the answer precedes the update.

    Arguments: `learning_rate` > 0 (published: 1e-3 with Adam for CIFAR, 2.5e-4 with SGD for ImageNet);
    `optimizer`, a name in `torch.optim` or a factory; `select`, which parameters adapt.

    Cost: one forward, one backward; weights and two moments of the normalisation parameters.
    Raises ValueError for a model without normalisation parameters.
    Source: Wang et al., ICLR 2021.
    Fails when run long at its published rate (the error grows with the number of updates), on small
    batches, and when labels are correlated in time. `tent:episodic` forgets before each batch and takes ten
    steps; with one step it would be exactly `bn`.

    Example: `acclimate.adapt(net, Tent(learning_rate=1e-4))`.
    """

    card: ClassVar[Card] = Card(
        summary="minimises the entropy of its answers through normalisation weights",
        paper="Wang et al., ICLR 2021",
        needs=frozenset({"norm", "backward"}),
        batch_of_one="layer and group norm only",
        fails_when="the stream is long, batches are small or labels are correlated",
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "cifar": {},
        "imagenet": {"learning_rate": 2.5e-4, "optimizer": "sgd"},
        "episodic": {"episodic": True, "steps": 10},
    }

    def loss(self, state: State, x: Tensor, logits: Tensor) -> Tensor:
        return entropy(logits).mean()
