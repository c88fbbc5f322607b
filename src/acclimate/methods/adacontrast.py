"""AdaContrast, online: labels from neighbours, contrast with a momentum model's memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from acclimate.anatomy import Selector, everything
from acclimate.core import foreach
from acclimate.core.config import at_least, between, positive, whole, whole_or_none
from acclimate.core.method import Card, Cost, Method, methods
from acclimate.core.normalization import Normalization
from acclimate.core.state import State
from acclimate.parts.contrast_views import strong_view, weak_view
from acclimate.parts.features import encode, require_head, unit
from acclimate.parts.queue import filled, put
from acclimate.parts.views import check_images, check_views

__all__ = ["AdaContrast"]

View = Callable[[Tensor, torch.Generator], Tensor]


@methods.register("adacontrast")
@dataclass(frozen=True, kw_only=True)
class AdaContrast(Method):
    """Learn labels that neighbours in feature space agree on, and features that set inputs of different labels apart.

    Each batch has a weak view w and two strong ones q and k; features f are unit vectors.
    1. The label y of w is `argmax` of its prediction; once `warm_up` samples have been seen, of the mean
       prediction of its `neighbours` nearest in a bank.
    2. The momentum model follows, `m <- momentum m + (1 - momentum) theta`, and gives `f_k` and the bank's next rows.
    3. `L = CE(z_q, y) + CE([f_q f_k, f_q queue] / temperature, 0) + sum_c p_c log(p_c + 1e-8)`, p the mean prediction
       of q; keys of the queue with the label y are left out. One step of SGD on all weights.
    4. The answer is that of the model after the step, to x as it is, by running statistics that w and q moved.

    Arguments: `learning_rate` > 0, published 2e-4 for all data, with Nesterov momentum 0.9; `weight_decay` >= 0,
    published 1e-4; `momentum` in [0, 1], published 0.999; `temperature` > 0, published 0.07; `queue_size` >= 1,
    published 16,384, of queue and bank; `neighbours` >= 1, published 10; `warm_up` >= 1, published 1,024;
    `weak` and `strong`, the views; `classes`, if the last layer does not tell; `select`.

    Cost: five forwards (two by the momentum model), one backward; three copies of the weights and two banks, together
    `queue_size (2 D + C + 1)` numbers: 334 MB for a ResNet-50 with 1000 classes.
    Raises ValueError if there is no linear layer that is fed one vector for each input, or for inputs that are no
    images in [0, 1].
    Source: Chen et al., CVPR 2022, whose method makes many passes; this is the one-pass form of later
    benchmarks. Their bank grows past its size and first overwrites at the wrong place; here it is a ring of fixed
    capacity. As there, a key is compared by the label that the batch has just written over its place.
    Fails under abrupt and mixed shifts: answers rely on running statistics, which lag.

    Example: `acclimate.adapt(net, "adacontrast")`.
    """

    card: ClassVar[Card] = Card(
        summary="learns labels of feature neighbours and contrasts features with a momentum model's",
        paper="Chen et al., CVPR 2022",
        needs=frozenset({"linear head", "backward", "augmentation"}),
        batch_of_one="poor: the diversity term has one answer to look at",
        fails_when="shifts are abrupt or mixed; memory is short",
    )
    normalization: str | Normalization = "learned"
    learning_rate: float = 2e-4
    weight_decay: float = 1e-4
    momentum: float = 0.999
    temperature: float = 0.07
    queue_size: int = 16384
    neighbours: int = 10
    warm_up: int = 1024
    weak: View = weak_view
    strong: View = strong_view
    classes: int | None = None
    select: Selector = everything

    def check(self) -> None:
        positive(learning_rate=self.learning_rate, temperature=self.temperature)
        at_least(0, weight_decay=self.weight_decay)
        whole(1, queue_size=self.queue_size, neighbours=self.neighbours, warm_up=self.warm_up)
        whole_or_none(1, classes=self.classes)
        check_views(weak=self.weak, strong=self.strong)
        between(0, 1, momentum=self.momentum)

    def setup(self, state: State) -> None:
        weight = require_head(state).weight
        classes, size = state.classes(self.classes), self.queue_size
        state.adapt(self.select, "weights")
        state.twin("momentum")
        state.optimizer("sgd", self.learning_rate, weight_decay=self.weight_decay)
        state.generator("views")
        first = torch.Generator().set_state(state.generator("queue").get_state())  # a reset finds it unmoved
        keys = unit(torch.randn(size, weight.shape[1], generator=first)).to(unit(weight[:1]))
        labels = torch.randint(classes, (size,), generator=first, dtype=torch.int32).to(weight.device)
        for name, tensor in (
            ("keys", keys),
            ("labels", labels),
            ("bank", torch.zeros_like(keys)),
            ("predictions", keys.new_zeros(size, classes)),
            ("seen", torch.zeros((), dtype=torch.int64, device=weight.device)),
        ):
            initial = tensor if name in ("keys", "labels") else 0.0
            state.declare(name, tensor.clone(), initial=initial, kind="memory", merge="first")

    def step(self, state: State, x: Tensor) -> Tensor:
        if self.weak is weak_view or self.strong is strong_view:
            extremes = state.extremes if self.strong is strong_view else None
            check_images("AdaContrast", x, extremes, own="weak= and strong=")
        views = state.generator("views")
        weak, query_view, key_view = self.weak(x, views), self.strong(x, views), self.strong(x, views)
        with torch.no_grad():
            rows, first = self._encode(state, weak)
            labels = self._labels(state, rows, first)
        query, logits = self._encode(state, query_view)
        with torch.no_grad():
            foreach.lerp(list(state.twins["momentum"].values()), list(state.weights.values()), 1 - self.momentum)
        with torch.no_grad(), state.using("momentum"):
            keys, _ = self._encode(state, key_view)
            remembered, predictions = self._encode(state, weak)
        put(state["labels"], labels, state["seen"])
        loss = self._loss(state, query, keys, logits, labels)
        state.note(loss=loss)
        state.descend(state.gradients(loss))
        put(state["keys"], keys, state["seen"])
        put(state["bank"], remembered, state["seen"])
        put(state["predictions"], predictions.softmax(1), state["seen"])
        state["seen"].add_(len(x))
        with torch.no_grad():
            state.fallback = first
            return state.forward(x)

    def _encode(self, state: State, x: Tensor) -> tuple[Tensor, Tensor]:
        found, logits = encode(state, x, answering=False, learning=True)
        return unit(found), logits.to(torch.promote_types(logits.dtype, torch.float32))

    def _labels(self, state: State, rows: Tensor, logits: Tensor) -> Tensor:
        """Soft k-NN in the bank, the model's own labels during the warm-up; places not yet filled predict nothing."""
        with torch.autocast(rows.device.type, enabled=False):
            likeness = rows @ state["bank"].T
        likeness = likeness.masked_fill(~filled(state["bank"], state["seen"]), -2)
        nearest = likeness.topk(min(self.neighbours, self.queue_size), 1).indices
        voted = state["predictions"][nearest].mean(1).argmax(1)
        return torch.where(state["seen"] >= self.warm_up, voted, logits.argmax(1))

    def _loss(self, state: State, query: Tensor, keys: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        with torch.autocast(query.device.type, enabled=False):
            others = (query @ state["keys"].T).masked_fill(labels[:, None] == state["labels"], -torch.inf)
        likeness = torch.cat([(query * keys).sum(1, keepdim=True), others], 1) / self.temperature
        contrast = F.cross_entropy(likeness, torch.zeros_like(labels))
        mean = logits.softmax(1).mean(0)
        diversity = (mean * (mean + 1e-8).log()).sum()
        agreement = F.cross_entropy(logits, labels)
        state.note(contrast=contrast, diversity=diversity, agreement=agreement)
        return agreement + contrast + diversity

    def cost(self) -> Cost:
        size = self.queue_size
        memory = {"feature": 2 * size, "class": size, "number": size + 2}
        return Cost(forwards=5, backwards=1, bound=7, copies={"weights": 2, "optimizer": 1}, memory=memory)
