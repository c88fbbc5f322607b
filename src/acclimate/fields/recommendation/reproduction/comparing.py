"""Numbers over seeds, and differences with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean, pstdev

import numpy as np
import torch
from torch import Tensor

from acclimate.fields.recommendation.measuring.paired import Gain, paired_gain
from acclimate.fields.recommendation.measuring.scores import auc, log_losses
from acclimate.fields.recommendation.merging.how import merge_logits
from acclimate.fields.recommendation.reproduction.members import Member

__all__ = ["Found", "Judge", "added", "stacked", "subsets"]


@dataclass(frozen=True, slots=True)
class Found:
    """AUC and log loss, one of each for a seed or a subset."""

    aucs: tuple[float, ...]
    losses: tuple[float, ...]

    @property
    def auc(self) -> float:
        return fmean(self.aucs)

    @property
    def loss(self) -> float:
        return fmean(self.losses)

    def cells(self) -> list[str]:
        """Means and deviations as text."""
        return [f"{self.auc:.4f} ± {pstdev(self.aucs):.4f}", f"{self.loss:.4f} ± {pstdev(self.losses):.4f}"]


@dataclass(frozen=True, slots=True)
class Judge:
    """Scores answers on the test rows, and chooses on the validation rows."""

    validation: Tensor
    test: Tensor
    resamples: int = 1000

    def on_test(self, answers: Sequence[Tensor]) -> Found:
        labels = self.test.numpy()
        losses = [float(log_losses(each.numpy(), labels).mean()) for each in answers]
        return Found(tuple(auc(each.numpy(), labels) for each in answers), tuple(losses))

    def validation_auc(self, member: Member) -> float:
        return auc(member.validation.numpy(), self.validation.numpy())

    def validation_loss(self, member: Member) -> float:
        return float(log_losses(member.validation.numpy(), self.validation.numpy()).mean())

    def gain(self, answers: Tensor, others: Tensor) -> Gain:
        return paired_gain(answers.numpy(), others.numpy(), self.test.numpy(), resamples=self.resamples)

    def over_best(self, answers: Tensor, members: Sequence[Member]) -> tuple[Gain, Gain]:
        """Over the member of the best validation AUC, and over that of the least validation log loss."""
        by_auc = max(members, key=self.validation_auc)
        by_loss = min(members, key=self.validation_loss)
        return self.gain(answers, by_auc.test), self.gain(answers, by_loss.test)


def stacked(members: Sequence[Member], part: str = "test") -> Tensor:
    """Logits `[M, N]`."""
    return torch.stack([getattr(each, part) for each in members])


def added(members: Sequence[Member]) -> int:
    """Multiply-adds of all of them together."""
    return sum(each.cost.multiply_adds for each in members if each.cost is not None)


def subsets(members: Sequence[Member], size: int, *, most: int = 50) -> list[Tensor]:
    """Merged test logits of subsets of that size: of all, or of `most` drawn ones where there are more."""
    every = list(combinations(range(len(members)), size))
    if len(every) > most:
        chosen = np.random.default_rng(0).choice(len(every), most, replace=False)
        every = [every[place] for place in sorted(chosen.tolist())]
    return [merge_logits(stacked([members[place] for place in each])) for each in every]
