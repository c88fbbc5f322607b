"""TPT: for each image, tune the prompt until its surest views agree; answer; forget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from acclimate.core.config import between, one_of, positive, whole
from acclimate.core.method import Card, Cost, Method
from acclimate.core.normalization import Normalization
from acclimate.core.optimizers import OptimizerFactory, moments
from acclimate.core.state import State
from acclimate.fields.vision_language.method import registry
from acclimate.fields.vision_language.samples import Sample, in_turn, pair
from acclimate.fields.vision_language.views import Crops
from acclimate.functional import entropy
from acclimate.methods.memo import mean_log_probability

__all__ = ["TPT"]


@registry.register("tpt")
@dataclass(frozen=True, kw_only=True)
class TPT(Method):
    """One step on the words before the class names, for each image by itself.

    Of V views the `sure` share with the least entropy is kept, before the first step. With `L = H(mean of their
    predictions)` each of the `updates` is a step on the context of the prompts, which all classes share; the image is
    answered with the texts after them. Context and optimiser start anew with each image, so answers depend on neither
    order nor company.

    The model needs `prompts`, a module that gives the text matrix and whose parameters are the context
    (`vision_language.PromptedTexts`).

    Arguments (published): `learning_rate` 0.005; `optimizer` AdamW with weight decay 0.01; `updates` 1; `views` 64,
    `area` 0.08; `sure` 0.1; `mixed` by AugMix on fine-grained data sets.

    Cost: for each image V forwards of the image encoder, and `updates + 1` forwards and `updates` backwards of
    the text encoder over all classes, which most of the time goes to. Kept: the context and its optimiser.
    Source: Shu et al., NeurIPS 2022.
    Fails when there are many classes and little time.

    Example: `vision_language.adapt(encoder, texts, "tpt", prompts=PromptedTexts(clip, names))`.
    """

    card: ClassVar[Card] = Card(
        summary="tunes the prompt for each image, then forgets",
        paper="Shu et al., NeurIPS 2022",
        needs=frozenset({"backward"}),
        fails_when="there are many classes and little time",
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"fine-grained": {"mixed": True}}
    normalization: str | Normalization = "source"
    learning_rate: float = 0.005
    optimizer: OptimizerFactory = "adamw"
    updates: int = 1
    views: int = 64
    area: float = 0.08
    sure: float = 0.1
    mixed: bool = False

    def check(self) -> None:
        positive(learning_rate=self.learning_rate)
        whole(1, updates=self.updates, views=self.views)
        between(0, 1, sure=self.sure, area=self.area)
        one_of(1, steps=self.steps)

    def setup(self, state: State) -> None:
        if pair(state).prompts is None:
            raise ValueError(
                "TPT tunes the words before class names, and this model has fixed text features only. Pass "
                "prompts=PromptedTexts(clip, names) to vision_language.adapt, or choose a method without gradients."
            )
        state.adapt(lambda model: dict(_context(model)), "prompts")
        state.optimizer(self.optimizer, self.learning_rate)
        number = torch.zeros((), dtype=torch.int64)
        state.declare("samples", number, initial=0, kind="counters", learned=False, host=True)

    @torch.no_grad()
    def ready(self, state: State) -> None:
        model = pair(state)
        assert model.prompts is not None
        found, wanted = list(model.prompts().shape), list(model.text_features.shape)
        if found != wanted:
            raise ValueError(
                f"the prompts give texts {found} beside text features {wanted}, expected the same classes in the same "
                "order. Build both of one list of names, by one text encoder."
            )

    def step(self, state: State, x: Tensor) -> Tensor:
        number = state["samples"]
        crops = Crops(count=self.views, area=(self.area, 1.0), mixed=self.mixed)
        losses: list[Tensor] = []

        def answer(sample: Sample) -> Tensor:
            state.restart()
            losses.append(self._tune(state, sample.views.to(x.device)))
            number.add_(1)
            return self._answer(state, sample.query.to(x.device))

        found = in_turn(state, x, lambda images: crops(state, images, int(number)), answer)
        if losses:
            state.note(loss=torch.stack(losses).mean())
        return found

    def _tune(self, state: State, views: Tensor) -> Tensor:
        """Take the steps for one image; returns the loss before the first."""
        model, kept, first = pair(state), None, None
        assert model.prompts is not None
        for _ in range(self.updates):
            logits = model.logits(views, model.prompts())
            if kept is None:
                count = max(1, int(self.sure * len(views)))
                kept = entropy(logits.detach()).argsort(stable=True)[:count]
            loss = entropy(mean_log_probability(logits[kept])).mean()
            state.descend(state.gradients(loss))
            first = loss.detach() if first is None else first
        assert first is not None
        return first

    @torch.no_grad()
    def _answer(self, state: State, query: Tensor) -> Tensor:
        model = pair(state)
        assert model.prompts is not None
        return model.logits(query, model.prompts())

    @torch.no_grad()
    def respond(self, state: State, x: Tensor) -> Tensor:
        model = pair(state)
        assert model.prompts is not None
        with state.using("source"):  # what the last image of the stream was tuned to is no one else's
            texts = model.prompts().float()
        return in_turn(state, x, lambda images: images, lambda sample: model.logits(sample.query.to(x.device), texts))

    def plain(self) -> bool:
        return False

    def cost(self) -> Cost:
        return Cost(
            forwards=self.views,
            backwards=self.updates,
            bound=self.views,
            each="sample",
            copies={"weights": 1, "optimizer": moments(self.optimizer)},
            numbers=1,
        )


def _context(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(name, parameter) for name, parameter in model.named_parameters() if name.startswith("prompts.context")]
