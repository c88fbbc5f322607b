"""DeYO: learn from sure answers that rest on the shape of what is seen."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from acclimate.anatomy import Selector, shallow_norms
from acclimate.core.config import between, one_of, whole_or_none
from acclimate.core.method import Card, Cost, methods
from acclimate.core.state import State
from acclimate.functional import entropy
from acclimate.parts.affine import scale_rate
from acclimate.parts.destruction import DESTRUCTIONS
from acclimate.parts.reliability import share_of_log_classes
from acclimate.parts.selective import SelectiveMethod
from acclimate.parts.views import check_images

__all__ = ["DeYO"]

_SGD = {"optimizer": "sgd", "learning_rate": 2.5e-4, "full_batch": 32}


@methods.register("deyo")
@dataclass(frozen=True, kw_only=True)
class DeYO(SelectiveMethod):
    """Minimise the weighted entropy of sure answers whose probability falls when the object is destroyed.

    Of the rows with `H_b < margin ln C` a view with the object destroyed is answered, without gradient;
    `d_b = p_b[y_b] - p'_b[y_b]` with `y_b = argmax p_b` is how far the answer falls. `L = mean_S w_b H_b` over the
    rows S with `d_b > drop`, `w_b = exp(reference ln C - H_b) + exp(d_b)`. Without such rows nothing changes.

    Arguments: `margin` and `reference` in [0, 1] of ln C (published 0.5 and 0.4); `drop` in [-1, 1] (published 0.3 for
    ImageNet-C one corruption at a time, 0.2 for mixed or sorted streams); `destroy`, "patch" (4 x 4 patches, shuffled
    in each image), "pixel" (pixels shuffled, all images alike) or "occlusion" (the middle in the image's mean
    colour); `learning_rate` > 0 and `optimizer`, published with SGD 2.5e-4 for ResNet-50, 1e-3 for ViT, 1.25e-3 for two
    classes, and by a later benchmark with Adam 1e-3 for CIFAR, the default ("sgd" has Nesterov momentum 0.9, the
    released code plain momentum); `full_batch` as in `sar`; `select`, which parameters adapt: by default norms
    before the last stage of blocks, told by structure.

    Cost: one forward and one backward, and one forward of the sure rows; without batch statistics the backward, and
    a forward for it, take the chosen rows only. With batch statistics the view has its own: those of the sure rows.
    Weights, the optimiser's copies and one number; one host read, without batch statistics two.
    Raises ValueError for a model without such normalisation parameters, for inputs that are no images
    [N, C, H, W], or logits that are not [N, C].
    Source: Lee et al., ICLR 2024. Fails where texture tells the classes, and when no answer is sure.

    Example: `acclimate.adapt(net, "deyo:imagenet")`.
    """

    card: ClassVar[Card] = Card(
        summary="minimises entropy of sure answers that fall when the object is destroyed",
        paper="Lee et al., ICLR 2024",
        needs=frozenset({"norm", "backward", "augmentation"}),
        batch_of_one="layer and group norm only; set full_batch",
        fails_when="texture tells the classes, or no answer is sure",
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "cifar": {},
        "imagenet": {**_SGD, "drop": 0.3},
        "wild": _SGD,
        "vit": {"optimizer": "sgd", "full_batch": 64},
        "waterbirds": {**_SGD, "learning_rate": 1.25e-3, "drop": 0.5},
        "colored-mnist": {**_SGD, "learning_rate": 1.25e-3, "margin": 1.0, "reference": 1.0, "drop": 0.5},
    }
    select: Selector = shallow_norms
    margin: float = 0.5
    reference: float = 0.4
    drop: float = 0.2
    destroy: str = "patch"
    full_batch: int | None = None

    def check(self) -> None:
        super().check()
        between(0, 1, margin=self.margin, reference=self.reference)
        between(-1, 1, drop=self.drop)
        one_of(*DESTRUCTIONS, destroy=self.destroy)
        whole_or_none(1, full_batch=self.full_batch)

    def setup(self, state: State) -> None:
        super().setup(state)
        state.generator("destroy")

    def step(self, state: State, x: Tensor) -> Tensor:
        check_images("DeYO", x, None, own="")
        scale_rate(state, self.learning_rate, len(x), self.full_batch)
        return super().step(state, x)

    @torch.no_grad()
    def choose(self, state: State, x: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        doubt = entropy(logits)
        sure = doubt < share_of_log_classes(self.margin, logits)
        index = state.rows(sure)
        state.note(sure=len(index))
        drop = torch.full_like(doubt, -torch.inf)
        if len(index):
            view = DESTRUCTIONS[self.destroy](x[index], state.generator("destroy"))
            broken = state.forward(view, answering=False, rows=index).to(doubt.dtype).softmax(1)
            best, label = logits[index].to(doubt.dtype).softmax(1).max(1)
            drop[index] = best - broken.gather(1, label[:, None])[:, 0]
        chosen = drop > self.drop
        state.learn_if(chosen.any(), "no sure answer fell when the object was destroyed")
        return chosen, torch.exp(share_of_log_classes(self.reference, logits) - doubt) + drop.exp()

    def cost(self) -> Cost:
        return dataclasses.replace(super().cost(), bound=3, selected=2)
