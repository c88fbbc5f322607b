"""A graph of classes that is kept for a while: rebuilt from the nodes of the moment, then stale until the next time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from acclimate.core.state import State
from acclimate.fields.vision_language.graph.adjacency import by_degree, by_level, shared
from acclimate.fields.vision_language.graph.cliques import Clique, TooMany, bits, maximal_cliques
from acclimate.fields.vision_language.graph.hyper_classes import HyperClasses

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Found", "Graph", "Rule"]

_PER_NODE = 50
"""Cliques that are still worth listing, for each node."""


@dataclass(frozen=True, slots=True)
class Found:
    """A graph as rows of bits, all its maximal cliques, and which of its nodes are there at all: the others, whose rows
    are zero, are cliques of one."""

    edges: list[int]
    cliques: list[Clique]
    there: list[bool]

    def present(self) -> list[Clique]:
        """The cliques of nodes that are there."""
        return [clique for clique in self.cliques if self.there[clique[0]]]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Who is joined: `degree`, neighbours in the mean, unless a `level` of similarity is given, which `growth` raises
    with each image; edges stay whose ends have `common` neighbours; by the product of nodes, or their `cosine`."""

    degree: float = 5.0
    level: float | None = None
    growth: float = 0.0
    common: int = 2
    cosine: bool = False

    @property
    def lasts(self) -> bool:
        """Whether the same nodes have the same cliques at every image."""
        return self.level is None or self.growth == 0

    def cliques(self, nodes: Tensor, number: int) -> list[Clique]:
        """Maximal cliques among rows of `nodes` `[N, D]`, at image `number`; rows of zeros are in none of them.

        Where there are more than 50 for each node, the tenth of pairs least alike is taken out, until there are not.
        """
        return self.search(nodes, number).present()

    def search(self, nodes: Tensor, number: int, before: Found | None = None) -> Found:
        """The same with the graph; quicker after one that is much alike."""
        rows = nodes / nodes.norm(dim=1, keepdim=True).clamp_min(1e-12) if self.cosine else nodes
        own = rows.numpy()
        similarity = own @ own.T  # numpy computes half of what is symmetric, torch all of it
        there = similarity.diagonal() > 0
        joined = self._joined(similarity, there, number)
        known = None if before is None else (before.edges, before.cliques)
        while True:
            edges = bits(shared(joined, self.common))
            try:
                cliques = maximal_cliques(edges, _PER_NODE * len(nodes) + 1, before=known)
                return Found(edges, cliques, there.tolist())
            except TooMany:
                joined = by_level(np.where(joined, similarity, -np.inf), np.quantile(similarity[joined], 0.1))

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
        """Announce the state: nodes at the last rebuild, None where the first ones tell their width, the image's number
        then, -1 for never, and whether what they are made of has changed since."""
        for part, initial in (("built", -1), ("changed", 0)):
            number = torch.full((), initial, dtype=torch.int64)
            state.declare(f"{self.name}.{part}", number, initial=initial, kind="memory", merge="first", host=True)
        if width is None:
            state.expect(f"{self.name}.nodes", length=nodes, host=True)
            return
        none = torch.zeros(nodes, width)
        state.declare(f"{self.name}.nodes", none, initial=0.0, kind="memory", merge="first", host=True)

    def built(self, state: State) -> int:
        """The number of the image at the last rebuild, -1 before the first."""
        return int(state[f"{self.name}.built"])

    def changed(self, state: State, now: bool) -> bool:
        """Whether what the nodes are made of has changed since the last rebuild, `now` or before."""
        if now:
            state[f"{self.name}.changed"].fill_(1)
        return bool(state[f"{self.name}.changed"])

    def rebuild(self, state: State, nodes: Tensor, number: int) -> HyperClasses:
        """From the nodes of this moment."""
        if f"{self.name}.nodes" not in state:
            state.fulfil(f"{self.name}.nodes", torch.zeros_like(nodes))
        state[f"{self.name}.nodes"].copy_(nodes)
        state[f"{self.name}.built"].fill_(number)
        state[f"{self.name}.changed"].zero_()
        return self.current(state)

    def current(self, state: State) -> HyperClasses:
        """As of the last rebuild, none before the first; searched only for nodes that are others than the last time,
        since the state may come from elsewhere."""
        number = self.built(state)
        if number < 0:
            return HyperClasses.of((), torch.zeros(0, 0))
        nodes, known = state[f"{self.name}.nodes"], _derived(state).get(self.name)
        if known is not None and known.rule == self.rule and (self.rule.lasts or known.number == number):
            if known.place is nodes and known.written == nodes._version:
                return known.classes
            if torch.equal(known.nodes, nodes):  # written since, and the same
                known.place, known.written = nodes, nodes._version
                return known.classes
        found = self.rule.search(nodes, number, None if known is None else known.found)
        classes = HyperClasses.of(found.present(), nodes)
        _derived(state)[self.name] = _Derived(self.rule, number, nodes.clone(), nodes, nodes._version, found, classes)
        return classes


@dataclass(slots=True)
class _Derived:
    """What was found of nodes that were written then, at that place: a state that comes back may bring another."""

    rule: Rule
    number: int
    nodes: Tensor
    place: Tensor
    written: int
    found: Found
    classes: HyperClasses


def _derived(state: State) -> dict[str, _Derived]:
    """What can be found again from declared state, next to the model that it is of."""
    return state.model.__dict__.setdefault("derived", {})
