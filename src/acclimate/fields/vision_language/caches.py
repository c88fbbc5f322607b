"""What is kept of a stream, class by class: the surest features, in a fixed number of places."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from acclimate.core.state import State

__all__ = ["Cache"]

_NOTHING = 1e9
"""The entropy of a place without an entry: a step whose state is not finite would be refused."""


@dataclass(frozen=True, slots=True)
class Cache:
    """Up to L entries for each of K classes, in declared state on the CPU.

    `features` `[K, L, D]`, `entropies` `[K, L]` (1e9 where there is none) and `counts` `[K]`; `details`
    `[K, L, E]` where entries have more to them. With `ordered` the entries of a class stand in ascending order of
    entropy, level ones in order of arrival; otherwise each stays in the place that it was given.
    """

    features: Tensor
    entropies: Tensor
    counts: Tensor
    details: Tensor | None
    ordered: bool

    @classmethod
    def declare(
        cls, state: State, name: str, classes: int, places: int, width: int | None, *, details: int = 0
    ) -> None:
        """Announce the tensors of an empty cache: `width` numbers a feature, None where the first one tells."""
        shapes: dict[str, tuple[int, ...]] = {"entropies": (classes, places), "counts": (classes,)}
        if width is not None:
            shapes["features"] = (classes, places, width)
        else:
            state.expect(f"{name}.features", length=classes, host=True)
        if details:
            shapes["details"] = (classes, places, details)
        for part, shape in shapes.items():
            initial = _NOTHING if part == "entropies" else 0.0
            tensor = torch.full(shape, initial) if part != "counts" else torch.zeros(shape, dtype=torch.int64)
            state.declare(f"{name}.{part}", tensor, initial=initial, kind="memory", merge="first", host=True)

    @classmethod
    def of(cls, state: State, name: str, *, width: int | None = None, ordered: bool = True) -> Cache:
        """The cache that was declared under this name; one of unknown width takes this one now.

        ValueError for another `width` than that of the entries that are there.
        """
        entropies = state[f"{name}.entropies"]
        if width is not None and f"{name}.features" not in state:
            state.fulfil(f"{name}.features", torch.zeros(*entropies.shape, width))
        features = state[f"{name}.features"]
        if width not in (None, features.shape[2]):
            raise ValueError(
                f"found {name} features of {width} numbers, expected {features.shape[2]}, as those before. Keep to "
                "one encoder, or call reset() first."
            )
        has_details = f"{name}.details" in state
        details = state[f"{name}.details"] if has_details else None
        return cls(features, entropies, state[f"{name}.counts"], details, ordered)

    def copy(self, row: int, room: int) -> Cache:
        """One class alone, as class 0 of a cache with so much more room."""

        def wider(rows: Tensor, value: float) -> Tensor:
            return torch.cat([rows[row : row + 1], rows.new_full((1, room, *rows.shape[2:]), value)], 1)

        details = None if self.details is None else wider(self.details, 0.0)
        counts = self.counts[row : row + 1].clone()
        return Cache(wider(self.features, 0.0), wider(self.entropies, _NOTHING), counts, details, self.ordered)

    def add(self, row: int, feature: Tensor, entropy: float, detail: Tensor | None = None) -> bool:
        """Take an entry `[D]` into a class, in the place of its least sure one where it is full and this one surer.

        Whether anything has changed. What is not finite is refused.
        """
        if not (math.isfinite(entropy) and bool(feature.isfinite().all())):
            return False
        count, places = int(self.counts[row]), self.features.shape[1]
        entropies = self.entropies[row]
        place = count
        if count == places:
            place = places - 1 if self.ordered else int(entropies.argmax())
            if not entropy < float(entropies[place]):
                return False
        else:
            self.counts[row] = count + 1
        target = place
        if self.ordered:
            target = int((entropies[:place] <= entropy).sum())
        parts = [(self.features[row], feature), (entropies, entropy)]
        if self.details is not None and detail is not None:
            parts.append((self.details[row], detail))
        for rows, value in parts:
            if target < place:
                rows[target + 1 : place + 1] = rows[target:place].clone()
            rows[target] = value
        return True

    def push(self, row: int, feature: Tensor, entropy: float, detail: Tensor | None = None) -> None:
        """Take an entry into a class in any case, in the place of the oldest one: for caches that are not ordered."""
        place = int(self.counts[row]) % self.features.shape[1]
        self.counts[row] += 1
        self.features[row, place], self.entropies[row, place] = feature, entropy
        if self.details is not None and detail is not None:
            self.details[row, place] = detail

    @property
    def present(self) -> Tensor:
        """Bool `[K, L]`: places that hold an entry."""
        return self.entropies < _NOTHING

    def means(self) -> Tensor:
        """Means of the entries of each class, `[K, D]`, not normalised; zero for a class that has none."""
        return self.features.sum(1) / self.counts.clamp_min(1)[:, None].to(self.features.dtype)
