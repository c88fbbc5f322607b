"""EATA: ETA, held near the source where the source is sensitive."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from acclimate.core.config import at_least, whole
from acclimate.core.method import Card, Cost, methods
from acclimate.core.state import State
from acclimate.methods.eta import ETA
from acclimate.parts.fisher import declare_fisher, measure_fisher, pull

__all__ = ["EATA"]


@methods.register("eata")
@dataclass(frozen=True, kw_only=True)
class EATA(ETA):
    """ETA with a penalty on moving weights that matter to the source: less is forgotten.

    `L = mean_S exp(E0 - H_b) H_b + beta sum_k F_k (theta_k - theta_source_k)^2`, with the rows S of `eta`. Once, before
    it adapts, `F_k = mean_m g_mk^2` is measured on images of the source, without labels: `g_m` is the gradient
    of the cross-entropy to the model's own labels, averaged over batch m. It is saved with the state, so that a saved
    adaptation needs no images.

    Arguments: `source`, images [N, ...] or an iterable of batches (a data loader, say; labels are ignored), used once
    and not saved; whole batches are taken until `samples` >= 1 images have come (published 2000), and one tensor is cut
    into batches of `batch_size` >= 1 (64): the squares are of a batch's gradient, so F is smaller for larger batches;
    `beta` >= 0, published 2000 for ImageNet, 1 for CIFAR. Others as in `eta`.

    Cost: that of `eta`, and one copy more of the normalisation parameters; at the start one forward and one
    backward of the source images. `last.values["penalty"]` is the second term, and `loss` the first.
    Raises ValueError when a new adaptation starts without source images, and as `eta` does.
    Source: Niu et al., ICML 2022. Fails like `eta` when no answer is sure, and where source images are
    not to be had.

    Example: `acclimate.adapt(net, EATA(source=images))`.
    """

    card: ClassVar[Card] = Card(
        summary="minimises entropy of sure, diverse answers, held near the source by Fisher information",
        paper="Niu et al., ICML 2022",
        needs=frozenset({"norm", "backward", "source images"}),
        batch_of_one="layer and group norm only",
        fails_when="no answer is sure, or no source images are at hand",
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "cifar10": {},
        "cifar100": {"diversity": 0.1},
        "imagenet": {"learning_rate": 2.5e-4, "optimizer": "sgd", "diversity": 0.05, "beta": 2000.0},
    }
    source: Any = field(default=None, repr=False, compare=False, metadata={"recorded": False})
    samples: int = 2000
    batch_size: int = 64
    beta: float = 1.0

    def check(self) -> None:
        super().check()
        whole(1, samples=self.samples, batch_size=self.batch_size)
        at_least(0, beta=self.beta)

    def setup(self, state: State) -> None:
        super().setup(state)
        declare_fisher(state)

    def ready(self, state: State) -> None:
        if self.source is None:
            raise ValueError(
                "eata measures on source images which weights matter, and was given none. Pass EATA(source=images), "
                "images [N, ...] or an iterable of batches, or choose eta, which does without."
            )
        measure_fisher(state, self.source, self.samples, self.batch_size)

    def adjust(self, state: State, gradients: dict[str, Tensor]) -> dict[str, Tensor]:
        return pull(state, gradients, self.beta)

    def cost(self) -> Cost:
        cost = super().cost()
        return dataclasses.replace(cost, copies={**cost.copies, "statistics": 1})
