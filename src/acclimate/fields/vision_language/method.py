"""The shape of a method of vision-language models: images are answered one by one, each after those before it."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from acclimate.core.config import at_least, below, between, one_of, whole
from acclimate.core.method import Cost, Method
from acclimate.core.normalization import Normalization
from acclimate.core.registry import Registry
from acclimate.core.state import State
from acclimate.fields.vision_language.model import VisionLanguage
from acclimate.fields.vision_language.samples import Sample, in_turn, pair
from acclimate.fields.vision_language.views import Crops

__all__ = ["OneByOne", "registry", "sizes"]

_MOST = 1e18
"""Two such numbers can be multiplied in single precision."""


def sizes(**values: float) -> None:
    """ValueError unless every value is from 0 to what scores in single precision bear."""
    at_least(0, **values)
    below(_MOST, **values)


@dataclass(frozen=True, kw_only=True)
class OneByOne(Method, abc.ABC):
    """A method without gradients that keeps features of the stream, or nothing.

    A batch is encoded together; then its images are answered in turn, so that answers do not depend on where batches
    begin. Subclasses say what they keep in `keep`, and how one image is answered in `answer`.

    Arguments: `views` V >= 1 of each image, made here from images that come without (features have those that they come
    with); `area`, least share of an image in such a crop; `mixed`, whether AugMix comes on top. `steps` is 1 and
    `episodic` False: both count batches, and where these begin must not matter.
    """

    normalization: str | Normalization = "source"
    views: int = 1
    area: float = 0.5
    mixed: bool = False
    auxiliary: ClassVar[bool] = False
    """Whether it looks at features of a second encoder."""

    def check(self) -> None:
        whole(1, views=self.views)
        between(0.01, 1, area=self.area)
        one_of(1, steps=self.steps)
        one_of(False, episodic=self.episodic)

    def setup(self, state: State) -> None:
        state.declare("samples", torch.zeros((), dtype=torch.int64), initial=0, kind="counters", host=True)
        self.keep(state, pair(state))

    def keep(self, state: State, model: VisionLanguage) -> None:
        """Declare what is kept of the stream."""

    @abc.abstractmethod
    def answer(self, state: State, sample: Sample, *, learn: bool) -> Tensor:
        """Logits `[K]` of one image; what is kept changes only with `learn`, and before the answer."""

    def looks(self) -> bool:
        """Whether the auxiliary encoder runs."""
        return self.auxiliary

    def step(self, state: State, x: Tensor) -> Tensor:
        return self._answers(state, x, learn=True)

    def respond(self, state: State, x: Tensor) -> Tensor:
        return self._answers(state, x, learn=False)

    @torch.no_grad()
    def _answers(self, state: State, x: Tensor, *, learn: bool) -> Tensor:
        number = state["samples"]
        crops = Crops(count=self.views, area=(self.area, 1.0), mixed=self.mixed)

        def answer(sample: Sample) -> Tensor:
            found = self.answer(state, sample, learn=learn)
            if learn:
                number.add_(1)
            return found

        return in_turn(state, x, lambda images: crops(state, images, int(number)), answer, auxiliary=self.looks())

    def plain(self) -> bool:
        return False

    def cost(self) -> Cost:
        return Cost(forwards=self.views, backwards=0, bound=self.views)


registry: Registry[Method] = Registry("vision-language method", "acclimate.fields.vision_language.methods", Method)
