"""One domain or several: how a score and its border make a decision."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from acclimate.core.config import Configured, at_least, one_of, whole
from acclimate.parts.diversity.discriminator import Discriminator, Threshold, discriminators
from acclimate.parts.diversity.reference import Reference
from acclimate.parts.diversity.score import APEXES, SCORES

__all__ = ["MIXED", "Decision", "Discriminating"]

_SOFTNESS = 0.1
"""Width of a soft choice, in interquartile ranges of the scores."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What is held of a batch. `share`: 0 for one domain, 1 for several, in between where the choice is soft."""

    score: float
    threshold: float | None
    single: bool
    share: float


MIXED = Decision(math.nan, None, False, 1.0)
"""What is held of a batch that nothing is known of."""


@dataclass(frozen=True, kw_only=True)
class Discriminating(Configured):
    """How batches of one domain are told from others: the score, the discriminator, and how its border is used.

    Arguments: `discriminator`, "kde", "otsu", "quantile", "reference" or an instance; `apex`, "source" or "sample", and
    `score`, "std", "var" or "energy": see `diversity_score`; `kept` >= 2, how many of the newest scores; `areas` that
    count as one domain: 1 below the lower peak, 2 up to the border, 3 up to the higher peak, 4 above; `hysteresis` >=
    0: nearer to the border than this share of the peaks' distance the last decision stands; `soft`: a sigmoid of the
    distance to the border in place of a step, 0.1 interquartile ranges wide; `delayed`: decide by the score of the
    batch before.
    """

    discriminator: str | Discriminator = "kde"
    apex: str = "source"
    score: str = "std"
    kept: int = 1000
    areas: tuple[int, ...] = (1, 2)
    hysteresis: float = 0.0
    soft: bool = False
    delayed: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "discriminator", discriminators.build(self.discriminator))
        one_of(*APEXES, apex=self.apex)
        one_of(*SCORES, score=self.score)
        whole(2, kept=self.kept)
        for area in self.areas:
            one_of(1, 2, 3, 4, areas=area)
        at_least(0, hysteresis=self.hysteresis)

    @property
    def rule(self) -> Discriminator:
        return discriminators.build(self.discriminator)

    def decide(self, score: float, scores: Tensor, last: bool | None = None, medians: Tensor | None = None) -> Decision:
        """The decision on a batch of this score, from the scores `[n]` that count, float64 on the CPU.

        `last` is the decision before, `medians` `[2]` what a reference has measured. Without a border, and for a score
        that is no number, the batch counts as mixed.
        """
        border = self._border(scores, medians) if math.isfinite(score) else None
        if border is None:
            return Decision(score, None, False, 1.0)
        area = 1 + int(score >= border.low) if score < border.value else 3 + int(score >= border.high)
        single = area in self.areas
        if last is not None and abs(score - border.value) < self.hysteresis * (border.high - border.low):
            single = last
        return Decision(score, border.value, single, self._share(score - border.value, single, scores))

    def _border(self, scores: Tensor, medians: Tensor | None) -> Threshold | None:
        found = None
        if len(scores) >= self.rule.warm_up and bool(scores.min() < scores.max()):
            found = self.rule.threshold(scores)
        return Reference.border(medians) if found is None and medians is not None else found

    def _share(self, beyond: float, single: bool, scores: Tensor) -> float:
        if not self.soft or not len(scores):
            return float(not single)
        low, high = scores.quantile(scores.new_tensor([0.25, 0.75])).tolist()
        width = _SOFTNESS * (high - low)
        return float(torch.sigmoid(scores.new_tensor(beyond / width))) if width > 0 else float(not single)
