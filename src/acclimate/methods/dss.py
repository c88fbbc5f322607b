"""DSS, reconstructed: learn towards sure answers of a mean teacher, and away from what unsure ones rule out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from acclimate.core.config import at_least, between, whole_or_none
from acclimate.core.method import Card, Cost, methods
from acclimate.core.state import State
from acclimate.functional import consistency
from acclimate.methods.cotta import CoTTA
from acclimate.parts.mean_teacher import MeanTeacher

__all__ = ["DSS"]


@methods.register("dss")
@dataclass(frozen=True, kw_only=True)
class DSS(MeanTeacher):
    """A reconstruction: CoTTA with a threshold that follows the teacher's confidence, and two kinds of learning.

    Published are the name, the idea (a dynamic threshold tells samples of high from those of low quality; both take
    part in joint positive and negative learning) and the errors 16.0, 30.9 and 64.6 % on CIFAR-10-C, CIFAR-100-C and
    ImageNet-C. Full text and code could not be had: every equation here, which rows learn in which way among them,
    is assumed. What this scores is no result of DSS.

    With the teacher's `q = softmax(z_T)` and `c_b = max q_b`: `tau <- decay tau + (1 - decay) mean_b c_b` from 1/C;
    rows with `c_b >= tau` have the positive loss `CE(q_b -> p_b)` of the student's `p`, all others the negative loss
    `-log(1 - p_bk)`, where k is the class that the teacher finds least likely; `L = mean_b` of these. Teacher,
    anchor, views and restoration are those of CoTTA.

    Arguments: `decay` in [0, 1] of the threshold (assumed 0.9); `negative` >= 0, weight of the negative loss
    (assumed 1); `classes`, if it is not the model's outputs; and those of `cotta`, whose presets it takes over.

    Cost: as CoTTA, and one number. `last.values` has selected (rows of high quality) and tau.
    Raises ValueError as CoTTA does.
    Source: Wang et al., DSS, WACV 2024, by name only.
    Fails where CoTTA does. Unsure rows teach little: the least likely class is rarely in doubt.

    Example: `acclimate.adapt(net, "dss:cifar100-c")`.
    """

    card: ClassVar[Card] = Card(
        summary="reconstruction: CoTTA with a dynamic threshold, positive and negative learning",
        paper="Wang et al., WACV 2024; equations assumed",
        needs=CoTTA.card.needs,
        batch_of_one="layer and group norm only",
        fails_when="the published method is wanted: its equations are not public",
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        name: {key: value for key, value in settings.items() if key != "symmetric"}
        for name, settings in CoTTA.presets.items()
    }
    decay: float = 0.9
    negative: float = 1.0
    classes: int | None = None

    def check(self) -> None:
        super().check()
        between(0, 1, decay=self.decay)
        at_least(0, negative=self.negative)
        whole_or_none(1, classes=self.classes)

    def setup(self, state: State) -> None:
        super().setup(state)
        start = 1 / state.classes(self.classes)
        weight = next(iter(state.weights.values()))
        wide = torch.promote_types(weight.dtype, torch.float32)
        state.declare("tau", torch.full((), start, dtype=wide, device=weight.device), initial=start)

    def compare(self, state: State, student: Tensor, teacher: Tensor) -> Tensor:
        tau, confidence = state["tau"], teacher.to(state["tau"].dtype).softmax(1).amax(1)
        tau.lerp_(confidence.mean(), 1 - self.decay)
        sure = confidence >= tau
        state.note(selected=sure.sum(), tau=tau.clone())
        log_p = student.to(tau.dtype).log_softmax(1)
        others = log_p.scatter(1, teacher.argmin(1, keepdim=True), -torch.inf)
        return torch.where(sure, consistency(teacher, student), -self.negative * others.logsumexp(1)).mean()

    def cost(self) -> Cost:
        return dataclasses.replace(super().cost(), numbers=1)
