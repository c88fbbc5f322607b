"""A graph of classes that is kept for a while: rebuilt from the nodes of the moment, then stale until the next time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from acclimate.core.state import State
from acclimate.fields.vision_language.graph.adjacency import by_degree, by_level, shared
from acclimate.fields.vision_language.graph.cliques import TooMany, bits, maximal_cliques
from acclimate.fields.vision_language.graph.hyper_classes import HyperClasses

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Graph", "Rule"]

_PER_NODE = 50
"""Cliques that are still worth listing, for each node."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Who is joined: `degree`, neighbours in the mean, unless a `level` of similarity is given, which `growth` raises
    with each image; edges stay whose ends have `common` neighbours; by the product of nodes, or their `cosine`."""

    degree: float = 5.0
    level: float | None = None
    growth: float = 0.0
    common: int = 2
    cosine: bool = False

    def cliques(self, nodes: Tensor, number: int) -> list[tuple[int, ...]]:
        """Maximal cliques among rows of `nodes` `[N, D]`, at image `number`; rows of zeros are in none of them.

        Where there are more than 50 for each node, the tenth of pairs least alike is taken out, until there are not.
        """
        there = nodes.abs().amax(1) > 0
        rows = nodes / nodes.norm(dim=1, keepdim=True).clamp_min(1e-12) if self.cosine else nodes
        similarity = (rows @ rows.T).numpy()
        among = there.numpy()
        joined = self._joined(similarity, among, number)
        while True:
            try:
                found = maximal_cliques(shared(bits(joined), self.common), _PER_NODE * len(nodes) + 1)
                return [clique for clique in found if among[clique[0]]]
            except TooMany:
                level = np.quantile(similarity[joined], 0.1)
                joined &= similarity > level

    def _joined(self, similarity: NDArray[np.float32], among: NDArray[np.bool_], number: int) -> NDArray[np.bool_]:
        if self.level is None:
            return by_degree(similarity, self.degree, among)
        return by_level(similarity, min(1.0, self.level + self.growth * number), among)


@dataclass(frozen=True, slots=True)
class Graph:
    """Nodes `[N, D]` as they were at the last rebuild, in declared state, and what follows from them alone."""

    name: str
    rule: Rule

    def declare(self, state: State, nodes: int, width: int | None) -> None:
        """Announce the state: nodes at the last rebuild, None where the first ones tell their width, and the image's
        number then, -1 for never."""
        never = torch.full((), -1, dtype=torch.int64)
        state.declare(f"{self.name}.built", never, initial=-1, kind="memory", merge="first", host=True)
        if width is None:
            state.expect(f"{self.name}.nodes", length=nodes, host=True)
            return
        none = torch.zeros(nodes, width)
        state.declare(f"{self.name}.nodes", none, initial=0.0, kind="memory", merge="first", host=True)

    def built(self, state: State) -> int:
        """The number of the image at the last rebuild, -1 before the first."""
        return int(state[f"{self.name}.built"])

    def rebuild(self, state: State, nodes: Tensor, number: int) -> HyperClasses:
        """From the nodes of this moment."""
        if f"{self.name}.nodes" not in state:
            state.fulfil(f"{self.name}.nodes", torch.zeros_like(nodes))
        state[f"{self.name}.nodes"].copy_(nodes)
        state[f"{self.name}.built"].fill_(number)
        return self._keep(state, nodes.clone(), number)

    def current(self, state: State) -> HyperClasses:
        """As of the last rebuild, none before the first; searched again where the state comes from elsewhere since."""
        number = self.built(state)
        if number < 0:
            return HyperClasses.of((), torch.zeros(0, 0))
        nodes, known = state[f"{self.name}.nodes"], _derived(state).get(self.name)
        if known is None or known.number != number:
            return self._keep(state, nodes.clone(), number)
        if known.place is not nodes or known.written != nodes._version:  # written since: the same, or something else
            if not torch.equal(known.nodes, nodes):
                return self._keep(state, nodes.clone(), number)
            known.place, known.written = nodes, nodes._version
        return known.found

    def _keep(self, state: State, nodes: Tensor, number: int) -> HyperClasses:
        found = HyperClasses.of(self.rule.cliques(nodes, number), nodes)
        place = state[f"{self.name}.nodes"]
        _derived(state)[self.name] = _Derived(number, nodes, place, place._version, found)
        return found


@dataclass(slots=True)
class _Derived:
    """What was found of nodes that were written then, at that place: a state that comes back may bring another."""

    number: int
    nodes: Tensor
    place: Tensor
    written: int
    found: HyperClasses


def _derived(state: State) -> dict[str, _Derived]:
    """What can be found again from declared state, next to the model that it is of."""
    return state.model.__dict__.setdefault("derived", {})
