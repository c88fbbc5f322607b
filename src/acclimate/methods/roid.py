"""ROID: learn from certain and diverse answers, stay near the source, and correct for the mix of classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from acclimate.core import foreach
from acclimate.core.config import between, one_of, positive, whole_or_none
from acclimate.core.method import Card, Cost, methods
from acclimate.core.state import State
from acclimate.functional import consistency, entropy
from acclimate.parts.affine import AffineMethod
from acclimate.parts.reliability import check_rows, declare_mean_prediction, update_mean_prediction
from acclimate.parts.views import Views, check_images, check_views

__all__ = ["ROID"]

_CLIP = 0.99


@methods.register("roid")
@dataclass(frozen=True, kw_only=True)
class ROID(AffineMethod):
    """Weigh certain and diverse answers, drive them apart by likelihood ratios, and average weights with the source.

    `d_b = 1 - cos(m, p_b)` with m the moving mean of predictions (from uniform, `m <- 0.9 m + 0.1 mean p`) and
    `u_b = -H_b` are scaled to [0, 1] over the batch; rows with d below its mean are dropped, the others weigh
    `w_b = exp(d_b u_b / temperature)`. `L = (1/B) sum_b w_b (l_b + c_b)`, where `l_b = -sum_k P_k ln(P_k / (1 - P_k))`
    with `P = min(p, 0.99)` is a soft likelihood ratio and `c_b` the symmetric cross-entropy between the
    answer and that to a random view, with gradient through both. After the step `theta <- ensembling theta +
    (1 - ensembling) theta_source`. Answers are corrected by the classes that the batch holds: with `q = mean p`,
    `g = max(1/B, 1/C) / max q` and `q~ = (q + g) / (1 + g C)`, logits z become `z q~`.

    Arguments: `temperature` > 0 (published 1/3); `ensembling` in [0, 1] (published 0.99); `prior`, "logits" (z q~, as
    published, where a rare class gains if its logit is negative), "probabilities" (p q~, renormalised) or "none";
    `batch_size` >= 1, the B of the loss, published the configured one; None takes that of the batch;
    `views`, the augmentation: ours repeats edges where the released one mirrors them; `learning_rate` > 0;
    `optimizer`; `select`; `classes`, if the model does not tell.

    Cost: one forward and one backward, and one each of the kept rows, about half of them; with batch statistics
    their view has its own. Weights and two moments of the normalisation parameters; one host read.
    Raises ValueError for a model without normalisation parameters, for inputs that are no images in [0, 1], or
    logits that are not [N, C].
    Source: Marsden et al., WACV 2024. Fails on batches too small to scale over: of one row, every weight is exp(1 /
    temperature).

    Example: `acclimate.adapt(net, ROID(prior="probabilities"))`.
    """

    card: ClassVar[Card] = Card(
        summary="weighs certain, diverse answers, averages weights with the source and corrects the class prior",
        paper="Marsden et al., WACV 2024",
        needs=frozenset({"norm", "backward", "augmentation"}),
        batch_of_one="layer and group norm only; weights do not distinguish rows",
        fails_when="batches are too small to compare rows",
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "cifar": {},
        "imagenet": {"learning_rate": 2.5e-4, "optimizer": "sgd"},
        "probabilities": {"prior": "probabilities"},
    }
    temperature: float = 1 / 3
    ensembling: float = 0.99
    prior: str = "logits"
    batch_size: int | None = None
    views: Callable[[Tensor, torch.Generator], Tensor] = Views(blurred=False, noisy=False)  # noqa: RUF009 (frozen)
    classes: int | None = None

    def check(self) -> None:
        super().check()
        positive(temperature=self.temperature)
        between(0, 1, ensembling=self.ensembling)
        one_of("logits", "probabilities", "none", prior=self.prior)
        whole_or_none(1, batch_size=self.batch_size, classes=self.classes)
        check_views(views=self.views)

    def setup(self, state: State) -> None:
        super().setup(state)
        declare_mean_prediction(state, self.classes, uniform=True)
        state.generator("views")

    def step(self, state: State, x: Tensor) -> Tensor:
        if isinstance(self.views, Views):
            check_images("ROID", x, state.extremes)
        logits = state.forward(x)
        check_rows(logits)
        kept, weight = self.weigh(state, logits.detach())
        index = state.rows(kept)
        view = state.forward(self.views(x[index], state.generator("views")), answering=False, rows=index)
        own = logits[index]
        agreement = (consistency(own, view) + consistency(view, own)) / 2
        loss = (weight[index] * (likelihood_ratio(own) + agreement)).sum() / (self.batch_size or len(x))
        state.note(loss=loss, selected=len(index))
        state.descend(state.gradients(loss))
        with torch.no_grad():
            foreach.lerp(list(state.weights.values()), state.sources(), 1 - self.ensembling)
        return self.corrected(logits.detach())

    @torch.no_grad()
    def weigh(self, state: State, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Rows to keep and their weights, two of `[N]`; the moving mean follows all rows."""
        certainty, mean = -entropy(logits), state["mean_prediction"]
        predictions = logits.to(mean.dtype).softmax(1)
        apart = _scaled(1 - F.cosine_similarity(mean[None], predictions, dim=1))
        update_mean_prediction(state, predictions)
        return apart >= apart.mean(), torch.exp(apart * _scaled(certainty) / self.temperature)

    def corrected(self, logits: Tensor) -> Tensor:
        """Logits with the classes of the batch taken into account."""
        if self.prior == "none":
            return logits
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        smoothed = smoothed_prior(wide.softmax(1))
        return (wide * smoothed if self.prior == "logits" else wide + smoothed.log()).to(logits.dtype)

    def respond(self, state: State, x: Tensor) -> Tensor:
        return self.corrected(state.forward(x))

    def plain(self) -> bool:
        return self.prior == "none"

    def cost(self) -> Cost:
        return dataclasses.replace(super().cost(), bound=4, selected=1, per_class=1)


def _scaled(values: Tensor) -> Tensor:
    """To [0, 1] over the batch; all 1 where all are equal."""
    low, high = values.aminmax()
    return torch.where(high > low, (values - low) / (high - low), 1.0)


def likelihood_ratio(logits: Tensor) -> Tensor:
    """`-sum_k P_k ln(P_k / (1 - P_k) + 1e-5)` with `P = min(p, 0.99)`: `[N]`."""
    p = logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(1).clamp_max(_CLIP)
    return -(p * torch.log(p / (1 - p) + 1e-5)).sum(1)


def smoothed_prior(predictions: Tensor) -> Tensor:
    """The mean prediction, smoothed the more the fewer rows and the flatter it is: `[C]`, of sum 1."""
    rows, classes = predictions.shape
    mean = predictions.mean(0)
    extra = max(1 / rows, 1 / classes) / mean.max()
    return (mean + extra) / (1 + extra * classes)
