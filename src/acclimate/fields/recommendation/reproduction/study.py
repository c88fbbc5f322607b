"""What is compared, and which members that takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from acclimate.core.config import at_least, one_of, positive, whole
from acclimate.fields.recommendation.models.registry import MODELS, option_names
from acclimate.fields.recommendation.models.scaling import kinds_of, scaled
from acclimate.fields.recommendation.reproduction.comparing import Judge
from acclimate.fields.recommendation.reproduction.members import Member, Order, Stock, Told
from acclimate.fields.recommendation.training.learning import Recipe

__all__ = ["EIGHT", "Scaled", "Study"]

EIGHT = ("fnn", "deepfm", "ipnn", "dcn", "dcnv2", "finalmlp", "wukong", "rankmixer")
"""The paper's."""


@dataclass(frozen=True, slots=True)
class Scaled:
    """One model, enlarged: the factor asked for and reached, and its members, one for each seed."""

    model: str
    kind: str
    asked: float
    factor: float
    members: tuple[Member, ...]


@dataclass(frozen=True, kw_only=True)
class Study:
    """Arguments: `models`; `bases`, those that are enlarged; `seeds`, two or more; `factors`, of multiply-adds;
    `rates`, of learning, and `decays`, of weights, of which each configuration takes the pair with the least validation
    log loss at the first seed; `recipe`, all else of training; `options`, of every model that has
    them, beside its small preset; `jobs`, trainings at once; `planted`, made rows to learn from in each period."""

    models: Sequence[str] = EIGHT
    bases: Sequence[str] = ("fnn", "dcnv2", "finalmlp")
    seeds: Sequence[int] = (0, 1, 2, 3)
    factors: Sequence[float] = (2.0, 4.0)
    rates: Sequence[float] = (3e-3, 1e-3)
    decays: Sequence[float] = (1e-6, 1e-3)
    recipe: Recipe = field(default_factory=lambda: Recipe(epochs=30))
    options: dict[str, Any] = field(default_factory=lambda: {"bn": True})
    jobs: int = 1
    planted: int = 20_000

    def __post_init__(self) -> None:
        for name in (*self.models, *self.bases):
            one_of(*MODELS, model=name)
        whole(1, jobs=self.jobs)
        whole(100, planted=self.planted)
        whole(0, **{f"seeds[{place}]": seed for place, seed in enumerate(self.seeds)})
        for place, factor in enumerate(self.factors):
            positive(**{f"factors[{place}]": factor})
            at_least(1, **{f"factors[{place}]": factor})
        if not self._recipes():
            raise ValueError(f"found rates {self.rates} and decays {self.decays}, expected one or more of each.")
        if len(set(self.models)) < 2 or len(self.seeds) < 2 or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(
                f"found models {list(self.models)} and seeds {list(self.seeds)}, expected two or more of each, all "
                "different."
            )

    def members(self, stock: Stock, told: Told | None = None) -> dict[str, list[Member]]:
        """Of each model one for each seed."""
        orders = [Order(model=name, recipe=self.recipe, options=self._options(name)) for name in self.models]
        return dict(zip(self.models, self.seeded(stock, orders, told), strict=True))

    def enlarged(self, stock: Stock, told: Told | None = None) -> list[Scaled]:
        """Of each base, kind and factor one member for each seed."""
        plans: list[tuple[str, str, float, float]] = []
        orders: list[Order] = []
        for name in self.bases:
            for kind in kinds_of(name):
                for asked in self.factors:
                    order, factor = self.scaled(stock, name, kind, asked)
                    plans.append((name, kind, asked, factor))
                    orders.append(order)
        found = self.seeded(stock, orders, told)
        return [Scaled(*plan, tuple(members)) for plan, members in zip(plans, found, strict=True)]

    def scaled(self, stock: Stock, name: str, kind: str, asked: float) -> tuple[Order, float]:
        """A larger model, and how much larger."""
        sizes = stock.split.train.sizes
        options, width, factor = scaled(name, sizes, kind, asked, preset="small", **self._options(name))
        return Order(model=name, width=width, options=options, recipe=self.recipe), factor

    def seeded(self, stock: Stock, orders: Sequence[Order], told: Told | None) -> list[list[Member]]:
        """Each with the rate and decay that suit it best, from all seeds."""
        best = self.suited(stock, orders, told)
        wanted = [replace(order, seed=seed) for order in best for seed in self.seeds]
        members = stock.have(wanted, jobs=self.jobs, told=told)
        return [members[start : start + len(self.seeds)] for start in range(0, len(members), len(self.seeds))]

    def suited(self, stock: Stock, orders: Sequence[Order], told: Told | None) -> list[Order]:
        """Each at the first seed, with the rate and decay of the least validation log loss."""
        recipes, judge = self._recipes(), Judge.of(stock.split)
        tried = [replace(order, seed=self.seeds[0], recipe=recipe) for order in orders for recipe in recipes]
        losses = [judge.validation_loss(each) for each in stock.have(tried, jobs=self.jobs, told=told)]
        starts = range(0, len(tried), len(recipes))
        return [tried[min(range(start, start + len(recipes)), key=losses.__getitem__)] for start in starts]

    def _recipes(self) -> list[Recipe]:
        return [
            replace(self.recipe, learning_rate=rate, weight_decay=decay) for rate in self.rates for decay in self.decays
        ]

    def _options(self, name: str) -> dict[str, Any]:
        return {key: value for key, value in self.options.items() if key in option_names(name)}
