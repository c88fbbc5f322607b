"""MEMO: make the mean answer to many copies of one image sure, answer the image, and forget."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from acclimate.anatomy import Selector, everything
from acclimate.core.config import one_of, positive, whole
from acclimate.core.method import Card, Cost, Method, methods
from acclimate.core.normalization import Normalization
from acclimate.core.optimizers import OptimizerFactory, moments
from acclimate.core.state import State
from acclimate.functional import entropy
from acclimate.normalization.alpha import AlphaStatistics
from acclimate.parts.agreement import View
from acclimate.parts.augmix import AugMix
from acclimate.parts.crop import CROPS, crop_and_flip
from acclimate.parts.fold import check_whole_images, together
from acclimate.parts.views import check_images, check_views

__all__ = ["MEMO", "mean_log_probability", "plain_sgd"]


def plain_sgd(parameters: Iterable[nn.Parameter], lr: float) -> torch.optim.SGD:
    """Gradient descent without momentum, where the bare name "sgd" means Nesterov momentum."""
    return torch.optim.SGD(parameters, lr=lr)


@methods.register("memo")
@dataclass(frozen=True, kw_only=True)
class MEMO(Method):
    """For each image by itself: from the source's weights, lower the entropy of the mean answer to its copies.

    `q = (1/A) sum_a softmax(z_a)` over A random copies (a crop, a mirror image, AugMix), `L = H(q)`; one step on all
    parameters; the answer is that to the clean image after the step. Weights and optimiser start anew with each image,
    so the answers depend on neither order nor company. What the last image taught stays until the next batch, for
    frozen answers and `merged()`.

    Batch norms take 16/17 of the source's statistics and 1/17 of the forward's own, which are those of the A copies
    before the step and of the one image after it: published for ImageNet (a prior of 16 to one image). The
    published CIFAR model has group norm, which ignores this; one with batch norm gets the same here.

    Arguments (published for CIFAR-10, ImageNet with a ResNet, with a transformer): `learning_rate` > 0 (0.005, 2.5e-4,
    1e-5); `optimizer`, a name or factory (SGD without momentum twice, AdamW with weight decay 0.01); `copies` A >= 1
    (32, 64, 64); `crop` "padded" by 4 | "resized" | "none" (padded, resized, resized); `views`, made of each crop;
    `select`, what adapts. `steps` is 1.

    Cost: for each image A + 1 forwards and one backward through all weights and copies; weights and what the optimiser
    keeps. No host read.
    Raises ValueError for inputs outside [0, 1], or that are no images with one answer each, unless `views` are yours.
    Source: Zhang et al., NeurIPS 2022. Released code keeps AdamW's moments from image to image; here they start anew.
    Fails when time is short: A copies of each image, forward and backward. When most answers are wrong, the mean
    over copies is sure of the wrong class.

    Example: `acclimate.adapt(net, "memo:imagenet")`.
    """

    card: ClassVar[Card] = Card(
        summary="adapts to each image alone by the entropy of its mean answer over copies, then forgets",
        paper="Zhang et al., NeurIPS 2022",
        needs=frozenset({"backward", "augmentation"}),
        fails_when="time is short, or the source model is mostly wrong",
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "cifar": {},
        "imagenet": {"learning_rate": 2.5e-4, "copies": 64, "crop": "resized"},
        "transformer": {"learning_rate": 1e-5, "optimizer": "adamw", "copies": 64, "crop": "resized"},
    }
    normalization: str | Normalization = AlphaStatistics(source_weight=16 / 17)  # noqa: RUF009 (frozen)
    learning_rate: float = 0.005
    optimizer: OptimizerFactory = plain_sgd
    copies: int = 32
    crop: str = "padded"
    views: View = AugMix()  # noqa: RUF009 (frozen)
    select: Selector = everything

    def check(self) -> None:
        positive(learning_rate=self.learning_rate)
        whole(1, copies=self.copies)
        check_views(views=self.views)
        one_of(*CROPS, crop=self.crop)
        one_of(1, steps=self.steps)

    def setup(self, state: State) -> None:
        state.adapt(self.select, "parameters")
        state.optimizer(self.optimizer, self.learning_rate)
        state.generator("views")

    def step(self, state: State, x: Tensor) -> Tensor:
        if isinstance(self.views, AugMix):
            check_images(self.name, x, state.extremes)
        means, answers, outputs = list[Tensor](), list[Tensor](), list[Any]()
        for row, image in zip(torch.arange(len(x)).split(1), x.split(1), strict=True):
            state.restart()
            means.append(self._adapt(state, image, row))
            with torch.no_grad():
                after = state.forward(image, rows=row)
            outputs.append(state.answer)
            whole = after.isfinite().all()
            state.demands.append(("an answer after its update is not finite", whole))
            answers.append(torch.where(whole, after, means[-1].to(after.dtype)))
        state.answer = together(outputs)
        state.note(loss=entropy(torch.cat(means)).mean())
        return torch.cat(answers)

    def _adapt(self, state: State, image: Tensor, row: Tensor) -> Tensor:
        """Take the step for one image; returns the mean answer to its copies, `[1, C]`."""
        generator = state.generator("views")
        copies = crop_and_flip(image.expand(self.copies, *image.shape[1:]), self.crop, generator)
        logits = state.forward(self.views(copies, generator), answering=False, rows=row.expand(self.copies))
        if isinstance(self.views, AugMix):
            check_whole_images(self.name, image, state.extremes, logits)
        mean = mean_log_probability(logits)
        state.descend(state.gradients(entropy(mean).mean()))
        return mean.detach()

    def cost(self) -> Cost:
        return Cost(
            forwards=self.copies + 1,
            backwards=1,
            bound=3 * self.copies + 1,
            each="sample",
            copies={"weights": 1, "optimizer": moments(self.optimizer)},
        )


def mean_log_probability(logits: Tensor) -> Tensor:
    """Log of the mean of `[A, C]` predictions, `[1, C]`, by log-mean-exp."""
    log_p = logits.log_softmax(1, dtype=torch.promote_types(logits.dtype, torch.float32))
    return log_p.logsumexp(0, keepdim=True) - math.log(len(logits))
