"""NOTE: learn by entropy from a class-balanced bank of samples, answering each sample for itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from acclimate.core.config import one_of, whole, whole_or_none
from acclimate.core.method import Card, Cost, methods
from acclimate.core.normalization import Normalization
from acclimate.core.state import State
from acclimate.parts.affine import AffineMethod
from acclimate.parts.bank import collect, declare_bank, fifo, pbrs, soft_entropy

__all__ = ["NOTE"]


@methods.register("note")
@dataclass(frozen=True, kw_only=True)
class NOTE(AffineMethod):
    """Answer by instance-aware batch norm; every so many samples lower the entropy of a balanced bank of samples.

    A sample enters the bank by its predicted class (prediction-balanced reservoir sampling): in a full bank it takes
    the place of a random sample of a largest class, or, if its own class is a largest, of one of that with
    probability (kept of the class) / (seen of the class). Each time `update_every` samples have come, one step on all
    that are kept: `L = -mean_{b,c} p_bc ln(p_bc + 1e-6)`, and the running statistics move towards the bank's.

    Arguments: `learning_rate` > 0 (published 1e-4 with Adam); `capacity` >= 1 of the bank and `update_every` >= 1
    samples (published 64 each); `sampling` "balanced" or "fifo", the newest samples; `classes`, if the last layer does
    not tell; `optimizer`; `select`; `normalization`, "instance_aware" with k = 4 and momentum 0.01.
    `note:iid` is NOTE* for streams in random order: newest samples, the batch's statistics, 1e-3; the released code
    keeps the instance-aware correction around them, which is left out here.

    Cost: one forward; for each update a forward and a backward over at most `capacity` samples, on average
    `capacity / update_every` forwards of the batch. Stated for batches that bring one update: one of B samples
    brings `B / update_every`. Weights, two moments and the bank. One host read a step.
    Raises ValueError for a model without normalisation parameters, for one whose batch norms keep no running
    statistics, when the shape of samples changes, and when the model is given further tensors with a row for each.
    Source: Gong et al., NeurIPS 2022. The paper answers, keeps and updates sample by sample; here a batch is answered
    whole, then its samples come to the bank one by one and updates happen in between. With batches that divide
    `update_every` it is the same.
    Fails when the model was not trained with instance-aware norms, as the published numbers need; without batch norm
    only the balanced bank remains.

    Example: `acclimate.adapt(net, NOTE(update_every=32))`.
    """

    card: ClassVar[Card] = Card(
        summary="minimises entropy on a class-balanced bank, with batch norm that corrects itself for each sample",
        paper="Gong et al., NeurIPS 2022",
        needs=frozenset({"norm", "backward"}),
        fails_when="the model was not trained with instance-aware batch norm, or has no batch norm",
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "non-iid": {},
        "iid": {"sampling": "fifo", "normalization": "batch", "learning_rate": 1e-3},
    }
    normalization: str | Normalization = "instance_aware"
    learning_rate: float = 1e-4
    capacity: int = 64
    update_every: int = 64
    sampling: str = "balanced"
    classes: int | None = None

    def check(self) -> None:
        super().check()
        whole(1, capacity=self.capacity, update_every=self.update_every)
        whole_or_none(1, classes=self.classes)
        one_of("balanced", "fifo", sampling=self.sampling)

    def setup(self, state: State) -> None:
        super().setup(state)
        declare_bank(state, self.capacity, state.classes(self.classes))

    def step(self, state: State, x: Tensor) -> Tensor:
        with torch.no_grad():
            logits = state.forward(x)
        admit = pbrs if self.sampling == "balanced" else fifo
        for kept, _ in collect(state, x, logits, admit, every=self.update_every):
            answers = state.forward(kept, answering=False, learning=True)
            loss = soft_entropy(answers).mean() / answers.shape[1]
            state.note(loss=loss)
            state.descend(state.gradients(loss))
        return logits

    def cost(self) -> Cost:
        memory = {"sample": self.capacity, "number": 5 * self.capacity, "class": 2}
        return dataclasses.replace(
            super().cost(),
            bound=1 + 2 * self.capacity / self.update_every,
            selected=self.capacity / self.update_every,
            memory=memory,
        )
