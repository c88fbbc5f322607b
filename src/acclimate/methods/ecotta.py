"""EcoTTA: a frozen network, and small networks beside its parts that learn."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from acclimate.core.config import at_least, between, one_of, positive, whole
from acclimate.core.method import Card, Cost, Method, methods
from acclimate.core.state import State
from acclimate.functional import entropy, filtered_mean
from acclimate.parts.meta_network import deviation, grow_meta_networks, meta_networks, take_after_source
from acclimate.parts.source_training import train_on_source

__all__ = ["EcoTTA"]


@methods.register("ecotta")
@dataclass(frozen=True, kw_only=True)
class EcoTTA(Method):
    """Freeze the network, cut its blocks into parts, and learn only a small network beside each part. A reconstruction.

    Part k turns its input u into v; what goes on is `w = BN(v) + ReLU(BN'(Conv3x3(u)))`, of which both norms and the
    convolution learn. They are first trained on labelled source images by cross-entropy. Then each batch takes two
    steps of one optimiser: on `regularisation * sum_k mean |w_k - v_k|`, where v, and what enters a part, are
    constants; and on `L = mean_{H_b < H0} H_b` with `H0 = margin ln C`, whose logits are the answer. With
    `two_step=False` it is one step on the sum of both.

    Published are the idea, the architecture, the partitions and the two losses. From a community implementation,
    whose results fall short of the paper's: the order of the two steps, `regularisation`, the settings of the
    warm-up. Assumed here: how other numbers of blocks are cut; that the grown network begins as the source (norms
    from the moments of v, and a branch that is constant); frozen batch norms by the batch's statistics; and a warm-up
    without augmentation, where that implementation has colour jitter, blur and grey images: a loader given as `source`
    can do that. All parts deviate in one backward, which gives the same gradients as one for each.

    Arguments: `source`, labelled images: a pair (images, labels) or an iterable of such batches, read once for each
    epoch; published is the whole training set. `parts` >= 1, published 4 or 5, at most one for each block;
    `learning_rate` > 0 (5e-3), of SGD with `momentum` in [0, 1] (0.9); `margin` in [0, 1] of ln C (0.4);
    `regularisation` >= 0 (0.25). Of the warm-up: `warm_up_epochs` >= 0 (10), `warm_up_batch` >= 1 (64),
    `warm_up_rate` > 0 (0.05), which rises over the first epoch and then falls by `schedule`, "step" (to a fifth at each
    of `decay_epochs`) or "cosine".

    Cost: two forwards and one backward through the network (one forward with `two_step=False`), and a backward of the
    small networks alone, which is not counted; their weights, what a reset returns to, and one momentum. Building
    the adaptation costs `warm_up_epochs` forwards and backwards of the source images, and is saved with the state, so
    that a saved adaptation needs no images. `last.values` has selected, and deviation (the sum over parts).
    Raises ValueError when a new adaptation starts without labelled source images, and for a model without repeated
    blocks of convolutions.
    Source: Song et al., EcoTTA, CVPR 2023. The paper reports 16.8 % on CIFAR-10-C; the community's code 18.2 %, and
    on ImageNet-C errors above 90 %.
    Fails on small batches and label-correlated streams, and where the warm-up saw too few source images.

    Example: `acclimate.adapt(net, EcoTTA(source=(images, labels)))`.
    """

    card: ClassVar[Card] = Card(
        summary="learns small networks beside frozen parts, trained on the source first (a reconstruction)",
        paper="Song et al., CVPR 2023, arXiv 2303.01904",
        needs=frozenset({"residual blocks", "backward", "source images"}),
        batch_of_one="no: the small networks normalise by the batch",
        fails_when="batches are small, labels are correlated, or the warm-up saw too few source images",
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "cifar10": {},
        "imagenet": {"warm_up_epochs": 3, "warm_up_batch": 256, "schedule": "cosine"},
    }
    source: Any = field(default=None, repr=False, compare=False, metadata={"recorded": False})
    parts: int = 5
    learning_rate: float = 5e-3
    momentum: float = 0.9
    margin: float = 0.4
    regularisation: float = 0.25
    two_step: bool = True
    warm_up_epochs: int = 10
    warm_up_batch: int = 64
    warm_up_rate: float = 0.05
    schedule: str = "step"
    decay_epochs: tuple[int, ...] = (3, 6, 8)

    def check(self) -> None:
        positive(learning_rate=self.learning_rate, warm_up_rate=self.warm_up_rate)
        between(0, 1, momentum=self.momentum, margin=self.margin)
        at_least(0, regularisation=self.regularisation)
        whole(0, warm_up_epochs=self.warm_up_epochs)
        whole(1, parts=self.parts, warm_up_batch=self.warm_up_batch)
        if not isinstance(self.decay_epochs, (tuple, list)):
            raise ValueError(f"decay_epochs must be a tuple of whole numbers, found {self.decay_epochs!r}.")
        for epoch in self.decay_epochs:
            whole(0, decay_epochs=epoch)
        one_of("step", "cosine", schedule=self.schedule)

    def setup(self, state: State) -> None:
        grow_meta_networks(state, self.parts)
        state.optimizer("sgd", self.learning_rate, momentum=self.momentum, nesterov=False)

    def ready(self, state: State) -> None:
        if self.source is None:
            raise ValueError(
                "ecotta trains small networks on labelled source images first, and was given none. Pass "
                "EcoTTA(source=(images, labels)) or an iterable of such batches, or choose tent, which does without."
            )
        batches = take_after_source(state, self.source, self.warm_up_batch)
        rates = [self._rate(number / batches, 1 / batches) for number in range(self.warm_up_epochs * batches)]
        train_on_source(state, self.source, self.warm_up_batch, rates, batches)
        for name, weight in state.weights.items():
            state[f"grown.{name}"].copy_(weight.detach())

    def _rate(self, time: float, step: float) -> float:
        """Of the warm-up, so many epochs after its start."""
        if time < 1:
            return self.warm_up_rate * min(1.0, time + step)
        if self.schedule == "step":
            return self.warm_up_rate * 0.2 ** sum(time >= epoch for epoch in self.decay_epochs)
        return self.warm_up_rate * (1 + math.cos(math.pi * (time - 1) / max(1, self.warm_up_epochs - 1))) / 2

    def step(self, state: State, x: Tensor) -> Tensor:
        with deviation(meta_networks(state.model), apart=self.two_step) as total:
            logits = state.forward(x, answering=not self.two_step)
            away = total()
        if self.two_step:
            state.descend(state.gradients(self.regularisation * away))
            state.backwards -= 1  # it ran through the small networks only
            logits = state.forward(x)
        doubt = entropy(logits)
        sure = doubt < self.margin * math.log(logits.shape[1])
        loss = filtered_mean(doubt, sure)
        state.note(loss=loss, selected=sure.sum(), deviation=away)
        state.descend(state.gradients(loss if self.two_step else loss + self.regularisation * away))
        return logits

    def plain(self) -> bool:
        return False

    def cost(self) -> Cost:
        copies = {"weights": 2.0, "optimizer": 1.0 if self.momentum else 0.0}
        return Cost(forwards=1 + self.two_step, backwards=1, bound=4 if self.two_step else 2.5, copies=copies)
