"""CoTTA: a student learns from a slow teacher that averages over views, and is drawn back to the source at random."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from acclimate.core.method import Card, methods
from acclimate.core.state import State
from acclimate.functional import consistency
from acclimate.parts.mean_teacher import MeanTeacher

__all__ = ["CoTTA", "gate_threshold"]


@methods.register("cotta")
@dataclass(frozen=True, kw_only=True)
class CoTTA(MeanTeacher):
    """Train a student on the answers of its own moving average, which replies; restore some of its weights by chance.

    Three sets of weights: student, teacher, and the anchor, which is the source. For each batch, with statistics of
    the batch in all of them: if the anchor's mean confidence `mean_b max_c p_bc` is below `threshold`, the teacher's
    logits `z_T` are the mean over N views of the batch, each normalised by itself; else they are its plain answer.
    The student takes one step on `L = mean_b CE(z_T -> z_S)`. Then `teacher <- momentum teacher + (1 - momentum)
    student`, and each element of the student returns to its source value with probability `restoration`.
    The answer is `z_T`, from before these updates. Frozen answers and `merged()` are the teacher's, without views.

    Arguments (published for CIFAR-10-C, CIFAR-100-C, ImageNet-C): `learning_rate` > 0 (1e-3, 1e-3, 0.01);
    `optimizer` (Adam, Adam, SGD with Nesterov momentum 0.9); `threshold` in [0, 1] (0.92, 0.72, 0.1), for another
    model `gate_threshold`; `restoration` in [0, 1] (0.01, 0.01, 0.001); `momentum` in [0, 1] (0.999); `copies` N >= 1
    (32); `symmetric`, add the other direction and halve (ImageNet-C); `views`, the augmentation; `rows_at_once`,
    how many rows of views share a forward (None: 256 on the CPU, else 4,096); `select`, what adapts: every parameter.

    Cost: with the gate open 2 + N forwards, else 3; one backward through all weights; student and teacher, and two
    moments. One host read a step: the gate decides whether views are made. `last.values` has confidence and views.
    Raises ValueError for inputs outside [0, 1], or that are no images with one answer each, unless `views` are yours.
    Source: Wang et al., CVPR 2022. The released CIFAR code makes all views before it looks at the gate.
    Fails when the threshold does not suit the model: views then cost N forwards on each batch, or never come; and until
    they first come teacher and student agree, the gradient is rounding alone, and Adam makes full steps of it. Fails
    on small batches, and in half precision, where the teacher's steps are rounded away.

    Example: `acclimate.adapt(net, "cotta:cifar100-c")`.
    """

    card: ClassVar[Card] = Card(
        summary="trains a student on a view-averaged mean teacher and restores random weights",
        paper="Wang et al., CVPR 2022",
        needs=frozenset({"backward", "augmentation"}),
        batch_of_one="layer and group norm only",
        fails_when="time is short, batches are small, or the confidence threshold does not suit the model",
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "cifar10-c": {},
        "cifar100-c": {"threshold": 0.72},
        "imagenet-c": {
            "learning_rate": 0.01,
            "optimizer": "sgd",
            "threshold": 0.1,
            "restoration": 0.001,
            "symmetric": True,
        },
    }
    symmetric: bool = False

    def compare(self, state: State, student: Tensor, teacher: Tensor) -> Tensor:
        loss = consistency(teacher, student).mean()
        return (loss + consistency(student, teacher).mean()) / 2 if self.symmetric else loss


def gate_threshold(logits: Tensor) -> float:
    """A `threshold` for a model of your own: the 5 % quantile of its confidence on source images, minus 0.05.

    `logits` `[N, C]` are the source model's on source images, normalised as the anchor will be: those of
    `acclimate.adapt(net, "bn")` for `normalization="batch"`. The recipe is the authors'.

    >>> import torch
    >>> gate_threshold(torch.tensor([[4.0, 0.0], [0.0, 3.0]]))
    0.904
    """
    confidence = logits.detach().float().softmax(1).amax(1)
    return max(0.0, round(float(confidence.flatten().quantile(0.05)) - 0.05, 3))
