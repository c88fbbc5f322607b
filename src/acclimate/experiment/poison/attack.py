"""The contract of attacks: what an attacker knows, and the rows that come of it."""

from __future__ import annotations

import abc
import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from acclimate.anatomy import batch_norms
from acclimate.core.config import Configured
from acclimate.core.registry import Registry

__all__ = ["Attack", "Knowledge", "Scene", "attacks", "by_batch", "climb"]


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What an attacker has, after the taxonomy of realistic test-time data poisoning.

    Arguments:
        weights: `none`, or those of the `source`. No attack here sees what is adapted: it would have to sit inside the
            server, and could then change the answers themselves.
        benign: whether the others' rows of the same batch are seen before the attacker's are made.
        when: rows made `offline`, before the stream begins, or `online`, anew for each batch.
    """

    weights: Literal["none", "source"]
    benign: bool
    when: Literal["offline", "online"]

    def __str__(self) -> str:
        weights = "the source's weights" if self.weights == "source" else "no weights"
        benign = "the others' rows of the batch" if self.benign else "no rows of others"
        return f"knows {weights} and {benign}; rows made {self.when}"


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """What there is for one batch.

    Arguments:
        count: rows to make.
        labels: of the attacker's own pictures, int64 `[P]`.
        take: those at these positions under the present shift, int64 `[n]` -> float32 `[n, 3, H, W]` in [0, 1].
        generator: the attacker's, its own for each batch.
        model: a copy of the source, in eval mode, for those who know its weights; else None.
        benign: the others' rows, for those who see them; else None.
        position: of the batch in the stream.
    """

    count: int
    labels: Tensor
    take: Callable[[Tensor], Tensor]
    generator: torch.Generator
    model: nn.Module | None
    benign: Tensor | None
    position: int

    @property
    def source(self) -> nn.Module:
        """The source; ValueError for an attack that says it does not know its weights."""
        if self.model is None:
            raise ValueError("this attack knows no weights. Say weights='source' in its knowledge.")
        return self.model

    def draw(self, count: int, among: Tensor | None = None) -> Tensor:
        """Positions of the attacker's pictures, drawn at random: int64 `[count]`, of those at `among` or of all."""
        places = torch.arange(len(self.labels)) if among is None else among
        return places[torch.randint(len(places), (count,), generator=self.generator)]


@dataclass(frozen=True, kw_only=True)
class Attack(Configured, abc.ABC):
    """Makes rows that are answered, and learned from, together with those of others. Frozen settings.

    Argument common to all: `share` of the batch that is the attacker's, in (0, 1).
    """

    knows: ClassVar[Knowledge]
    share: float = 0.2

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ValueError(f"share must lie between 0 and 1, found {self.share!r}.")
        self.check()

    def check(self) -> None:
        """ValueError for settings out of range."""

    def count(self, benign: int) -> int:
        """Rows that make up `share` of a batch with so many benign ones."""
        return max(1, round(self.share / (1 - self.share) * benign))

    @abc.abstractmethod
    def rows(self, scene: Scene) -> Tensor:
        """Rows for one batch: float32 `[count, 3, H, W]` in [0, 1]. Offline attacks are asked once, for their pool."""


attacks: Registry[Attack] = Registry("attack", "acclimate.experiment.poison", Attack)


def climb(start: Tensor, goal: Callable[[Tensor], Tensor], steps: int, rate: float) -> Tensor:
    """Projected sign ascent of `goal` within [0, 1]: `x <- clip(x + rate (1 - k / steps) sign(dgoal/dx))`.

    The goal is a number for each row, or one for all; the best rows on the way are returned, by theirs or by that. One
    forward and one backward a step, and a forward in the end.
    """
    rows, best, height = start.clone(), start, torch.tensor(-torch.inf)
    for step in range(steps + 1):
        with torch.enable_grad():
            rows.requires_grad_(True)
            reached = goal(rows)
            slope = torch.autograd.grad(reached.sum(), rows)[0] if step < steps else torch.zeros_like(rows)
        rows, reached = rows.detach(), reached.detach()
        better = reached > height
        best = torch.where(better.reshape(-1, *[1] * (rows.ndim - 1)), rows, best)
        height = torch.maximum(reached, height)
        rows = (rows + rate * (1 - step / steps) * slope.sign()).clamp_(0, 1)
    return best


def by_batch(model: nn.Module) -> nn.Module:
    """A copy that normalises by the batch's own statistics, as batch norm adaptation does. ValueError without such."""
    own = copy.deepcopy(model).eval().requires_grad_(False)
    norms = batch_norms(own)
    if not norms:
        raise ValueError("the source has no batch norms, so rows of a batch cannot change each other's answers.")
    for norm in norms.values():
        norm.train()
    return own
