"""Numbers over seeds, and differences with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean, stdev

import numpy as np
import torch
from torch import Tensor

from acclimate.fields.recommendation.data.splits import Split
from acclimate.fields.recommendation.measuring.paired import Gain, paired_gain, paired_gains
from acclimate.fields.recommendation.measuring.scores import auc, log_losses
from acclimate.fields.recommendation.merging.how import merge_logits
from acclimate.fields.recommendation.reproduction.members import Member

__all__ = ["Found", "Judge", "added", "deviation", "stacked", "subsets"]


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
        """Means as text, with the deviation where there are several values."""
        return [_with_deviation(self.aucs), _with_deviation(self.losses)]


def deviation(values: Sequence[float]) -> float:
    """Of a sample, with one less than its number; NaN of a single value."""
    return stdev(values) if len(values) > 1 else float("nan")


def _with_deviation(values: Sequence[float]) -> str:
    told = f"{fmean(values):.4f}"
    return f"{told} ± {deviation(values):.4f}" if len(values) > 1 else told


@dataclass(frozen=True, slots=True)
class Judge:
    """Scores answers on the test rows, and chooses on the validation rows."""

    validation: Tensor
    test: Tensor
    resamples: int = 1000

    @classmethod
    def of(cls, split: Split) -> Judge:
        return cls(split.validation.labels.double(), split.test.labels.double())

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

    def gains(self, answers: Sequence[Tensor], others: Sequence[Tensor]) -> tuple[Gain, tuple[Gain, ...]]:
        """The mean gain of several seeds, and that of each."""
        ours, theirs = torch.stack(list(answers)).numpy(), torch.stack(list(others)).numpy()
        return paired_gains(ours, theirs, self.test.numpy(), resamples=self.resamples)

    def over_best(
        self, answers: Sequence[Tensor], members: Sequence[Sequence[Member]]
    ) -> tuple[tuple[Gain, tuple[Gain, ...]], tuple[Gain, tuple[Gain, ...]]]:
        """`gains` over each seed's member of the best validation AUC, and of the least validation log loss."""
        by_auc = [max(each, key=self.validation_auc).test for each in members]
        by_loss = [min(each, key=self.validation_loss).test for each in members]
        return self.gains(answers, by_auc), self.gains(answers, by_loss)


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
