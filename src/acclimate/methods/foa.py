"""FOA: search for input prompts by forward passes alone, and shift features back to the source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from acclimate.core.config import at_least, between, positive, whole
from acclimate.core.method import Card, Cost, Method, methods
from acclimate.core.normalization import Normalization
from acclimate.core.state import State
from acclimate.functional import entropy
from acclimate.parts.evolution import declare_search, draw, learn_from
from acclimate.parts.features import require_head
from acclimate.parts.prompts import layer_features, measured_blocks, prompt_place, prompted
from acclimate.parts.source_images import source_batches

__all__ = ["FOA"]


@methods.register("foa")
@dataclass(frozen=True, kw_only=True)
class FOA(Method):
    """Put a few tokens in among those of a transformer, found by an evolution strategy, without any backward.

    A batch X of B rows is answered under K prompts drawn from `N(m, s^2 C)` and under the best of the batch before. The
    fitness of a prompt p, lower is better, is
    `sum_b H_b + discrepancy B/64 sum_i (|mu_i - mu_i^S| + |sigma_i - sigma_i^S|)`,
    with the mean and deviation over the batch of the class token after block i and, last, of what the head is fed, and
    the same of source images without prompts. CMA-ES learns m, s and C from all of them (`parts/evolution.py`). The
    answer is that of the best prompt, with features h at the head moved towards the source:
    `h + shift (mu^S - mu(t))`, where mu(t) follows the batches' means, `mu(t) = (1 - rate) mu(t-1) + rate mu(X_t)`,
    beginning with the first. Frozen answers are those of the best prompt of the last batch.

    Arguments: `source`, images [N, ...] or an iterable of batches (labels are ignored), used once and not saved; whole
    batches are taken until `samples` >= 1 images have come (32 suffice, the published statistics are of 50,000).
    `prompts` P >= 1, published 3; `population` K >= 3, published 27 for 768 channels, with the best of before 28;
    `discrepancy` >= 0, published 0.4, or 0.2 for ImageNet-R; `rate` in [0, 1], 0.1; `shift` >= 0, 1; `spread` > 0, s at
    the start, 1. `leading` >= 0: prompts go in after so many tokens, 1 for a class token; 0 for none, and then a
    layer's feature is the mean of its tokens. `place`: the dotted name of the module that is called with the tokens
    [N, T, D], batch first; by default the first transformer block. `rows_at_once` >= 1 (256): as many prompts share
    a forward as fit into so many rows, at least one.

    Cost: K + 1 forwards with P tokens more, no backward, the memory of inference. With n = P D, two matrices of n x n
    in float64 (n = 2304: 85 MB, once more for undoing a step, half for a reset), and 2 D for each block. Decomposing C,
    n^3, is done in each step at n < 300, in every 15th at n = 2304. Needs a device with float64. `last.values` has
    fitness (of the best), discrepancy (its second term over its weight) and spread.
    Raises ValueError when a new adaptation starts without source images, and for a model without blocks of tokens of
    one width throughout, a linear head, or tokens at `place`.
    Source: Niu et al., ICML 2024. Assumed here: deviations divide by B, the fitness is measured before the shift,
    mu(X_t) is that of the best prompt, and the prompt of before is one of K + 1 candidates of the search, its step
    shortened if it is far. Other outputs than logits (a dict's features, say) are those of the prompt of before.
    Fails on small batches, whose statistics mean little, and when source images are not to be had.

    Example: `acclimate.adapt(net, FOA(source=images))`.
    """

    card: ClassVar[Card] = Card(
        summary="searches for prompts of a transformer by forwards alone, and shifts features to the source",
        paper="Niu et al., ICML 2024, arXiv 2404.01650",
        needs=frozenset({"token sequence", "linear head", "source images"}),
        batch_of_one="yes, by entropy and means alone",
        fails_when="batches are small, or no source images are at hand",
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "imagenet": {},
        "imagenet_r": {"discrepancy": 0.2},
        "six": {"population": 5},
    }
    normalization: str | Normalization = "source"
    source: Any = field(default=None, repr=False, compare=False, metadata={"recorded": False})
    samples: int = 2000
    batch_size: int = 64
    prompts: int = 3
    population: int = 27
    discrepancy: float = 0.4
    rate: float = 0.1
    shift: float = 1.0
    spread: float = 1.0
    leading: int = 1
    place: str | None = None
    rows_at_once: int = 256

    def check(self) -> None:
        whole(1, samples=self.samples, batch_size=self.batch_size, prompts=self.prompts, rows_at_once=self.rows_at_once)
        whole(3, population=self.population)
        whole(0, leading=self.leading)
        at_least(0, discrepancy=self.discrepancy, shift=self.shift)
        between(0, 1, rate=self.rate)
        positive(spread=self.spread)

    def setup(self, state: State) -> None:
        weight, (_, width) = require_head(state).weight, prompt_place(state, self.place)
        declare_search(state, self.prompts * width, self.spread)
        best = state["search.mean"].view(self.prompts, width).clone()
        state.declare("best", best, initial=0.0, kind="memory", merge="first")
        layers = len(measured_blocks(state)) + 1
        source = weight.new_zeros(2, layers, weight.shape[1], dtype=torch.promote_types(weight.dtype, torch.float32))
        state.declare("source", source, initial=source, kind="memory")
        state.declare("centre", torch.zeros_like(source[0, 0]), initial=0.0, kind="memory")
        state.declare("begun", source.new_zeros(()), initial=0.0, kind="memory", merge="max")

    @torch.no_grad()
    def ready(self, state: State) -> None:
        if self.source is None:
            raise ValueError(
                "foa measures features of source images first, and was given none. Pass FOA(source=images), images "
                "[N, ...] or an iterable of batches, or choose t3a, which does without."
            )
        found, (place, width) = list[Tensor](), prompt_place(state, self.place)
        for x, _ in source_batches(state, self.source, self.batch_size, samples=self.samples):
            none = x.new_empty(len(x), 0, width)
            with torch.no_grad(), prompted(place, none, self.leading), layer_features(state, self.leading) as collect:
                state.forward(x, answering=False)
            found.append(collect(len(x)))
        state["source"].copy_(_moments(torch.cat(found)))
        if not bool(state["source"].isfinite().all()):
            raise ValueError("features of the source images are not finite. Pass images as the model was trained on.")

    @torch.no_grad()
    def step(self, state: State, x: Tensor) -> Tensor:
        candidates = torch.cat([state["best"].flatten()[None], draw(state, self.population)])
        first, *rest = candidates.split([1, *self._shares(len(x))])
        runs = [self._run(state, x, first, answering=True), *(self._run(state, x, each) for each in rest)]
        logits, away, means = (torch.cat(parts) for parts in zip(*runs, strict=True))
        doubt = entropy(logits.flatten(0, 1)).unflatten(0, logits.shape[:2]).sum(1)
        fitness = (doubt + self.discrepancy * len(x) / 64 * away).nan_to_num(torch.inf)
        learn_from(state, candidates, fitness, given=1)
        chosen = fitness.argmin(keepdim=True)
        state["best"].copy_(candidates[chosen].view_as(state["best"]))
        begun = state["begun"]
        state["centre"].lerp_(means[chosen][0], 1 + (self.rate - 1) * begun)
        begun.fill_(1.0)
        state.note(fitness=fitness[chosen][0], discrepancy=away[chosen][0], spread=state["search.spread"].clone())
        return self._shifted(state, logits[chosen][0])

    @torch.no_grad()
    def respond(self, state: State, x: Tensor) -> Tensor:
        return self._shifted(state, self._run(state, x, state["best"].flatten()[None], answering=True)[0][0])

    def plain(self) -> bool:
        return False

    def _shares(self, rows: int) -> list[int]:
        """How many of the drawn prompts share each forward."""
        most = max(1, self.rows_at_once // rows)
        return [min(most, self.population - first) for first in range(0, self.population, most)]

    def _run(
        self, state: State, x: Tensor, candidates: Tensor, *, answering: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """For each candidate: logits `[K, B, C]`, distance to the source `[K]`, mean at the head `[K, D]`."""
        count, (place, width) = len(candidates), prompt_place(state, self.place)
        rows = torch.arange(len(x)).repeat(count)
        prompts = candidates.view(count, self.prompts, width).repeat_interleave(len(x), 0)
        with prompted(place, prompts, self.leading), layer_features(state, self.leading) as collect:
            folded = x if count == 1 else torch.cat([x] * count)
            logits = state.forward(folded, answering=answering, groups=count, rows=None if count == 1 else rows)
        classes = require_head(state).out_features
        if logits.shape != (len(folded), classes):
            raise ValueError(
                f"the logits are {list(logits.shape)}, but the last linear layer tells {classes} classes apart, so it "
                "is not the classifier. Choose a method that needs no linear head."
            )
        found = _moments(collect(len(folded)).unflatten(0, (count, len(x))).transpose(0, 1))
        away = (found - state["source"][:, None]).norm(dim=3).sum((0, 2))
        return logits.unflatten(0, (count, len(x))), away, found[0, :, -1]

    def _shifted(self, state: State, logits: Tensor) -> Tensor:
        """The answer, had what the head is fed been moved by the shift."""
        way = self.shift * state["begun"] * (state["source"][0, -1] - state["centre"])
        with torch.autocast(logits.device.type, enabled=False):
            return (logits + F.linear(way, require_head(state).weight.to(way.dtype))).to(logits.dtype)

    def cost(self) -> Cost:
        count, passes = self.prompts, self.population + 1
        memory = {"feature": 10 * count + 1, "feature square": 4 * count**2, "block feature": 2, "number": 5}
        return Cost(forwards=passes, backwards=0, bound=passes, memory=memory)


def _moments(rows: Tensor) -> Tensor:
    """Mean and deviation over the first axis, `[N, ...] -> [2, ...]`."""
    deviation, mean = torch.std_mean(rows, 0, correction=0)
    return torch.stack([mean, deviation])
