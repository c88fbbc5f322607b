"""All maximal cliques of a sparse graph, by rows of bits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Clique", "TooMany", "bits", "maximal_cliques"]

Clique: TypeAlias = tuple[int, ...]


class TooMany(ValueError):
    """More cliques than were allowed."""


def bits(adjacency: NDArray[np.bool_]) -> list[int]:
    """Neighbours of each node `[N, N]` as the set bits of one number."""
    packed = np.packbits(adjacency, axis=1, bitorder="little")
    width, data = packed.shape[1], packed.tobytes()
    return [int.from_bytes(data[start : start + width], "little") for start in range(0, len(data), max(1, width))]


def maximal_cliques(
    neighbours: Sequence[int], most: int | None = None, *, before: tuple[Sequence[int], Sequence[Clique]] | None = None
) -> list[Clique]:
    """Every maximal clique, its nodes ascending, in lexicographic order; isolated nodes are cliques of one.

    `neighbours` has bit b of number a set where a and b are joined, the same both ways and none with itself. Bron and
    Kerbosch's search with Tomita's pivot over a degeneracy order: `O(b N 3^(b / 3))` for N nodes of degeneracy b, which
    is small in sparse graphs.

    `before`: neighbours of as many nodes, and their maximal cliques. Those without a node that has other neighbours now
    are maximal still, since no edge at any of their nodes has come or gone; only others are searched for.

    Raises TooMany beyond `most` cliques.

    >>> maximal_cliques([0b0110, 0b0101, 0b0011, 0])
    [(0, 1, 2), (3,)]
    """
    changed, found = range(len(neighbours)), list[Clique]()
    if before is not None:
        changed = [node for node, (old, new) in enumerate(zip(before[0], neighbours, strict=True)) if old != new]
        touched = set(changed)
        found = [clique for clique in before[1] if touched.isdisjoint(clique)]
    for clique in _holding(neighbours, changed):
        found.append(tuple(sorted(clique)))
        if most is not None and len(found) > most:
            raise TooMany(f"there are more than {most} maximal cliques among {len(neighbours)} nodes.")
    return sorted(found)


def _holding(neighbours: Sequence[int], nodes: Sequence[int]) -> Iterator[list[int]]:
    """The maximal cliques that hold any of these nodes, each once."""
    yield from ([node] for node in nodes if not neighbours[node])
    done = 0
    for node in _degeneracy_order(neighbours, [node for node in nodes if neighbours[node]]):
        mine = neighbours[node]
        yield from _extend(neighbours, node, mine & ~done, mine & done)
        done |= 1 << node


def _degeneracy_order(neighbours: Sequence[int], nodes: Sequence[int]) -> Iterator[int]:
    """The node with the fewest neighbours among those that are left, again and again."""
    degrees = {node: neighbours[node].bit_count() for node in nodes}
    waiting: list[set[int]] = [set() for _ in range(max(degrees.values(), default=0) + 1)]
    for node, degree in degrees.items():
        waiting[degree].add(node)
    lowest = 0
    while degrees:
        while not waiting[lowest]:
            lowest += 1
        node = min(waiting[lowest])
        waiting[lowest].remove(node)
        del degrees[node]
        yield node
        for other in _places(neighbours[node]):
            degree = degrees.get(other)
            if degree is not None:
                waiting[degree].remove(other)
                waiting[degree - 1].add(other)
                degrees[other] = degree - 1
        lowest = max(0, lowest - 1)


def _extend(neighbours: Sequence[int], first: int, open_: int, closed: int) -> Iterator[list[int]]:
    """Maximal cliques of `first` and nodes of `open_`; none of `closed`, which are joined to all of it as well.

    A clique may have more nodes than calls may be nested, so levels are kept in a list.
    """
    clique, levels = [first], [_Level(open_, closed, _branches(neighbours, open_, closed))]
    if not open_ and not closed:
        yield [first]
    while levels:
        level = levels[-1]
        if not level.branches:
            levels.pop()
            clique.pop()
            continue
        low = level.branches & -level.branches
        node = low.bit_length() - 1
        mine = neighbours[node]
        open_, closed = level.open_ & mine, level.closed & mine
        level.branches ^= low
        level.open_ ^= low
        level.closed |= low
        if open_:
            clique.append(node)
            levels.append(_Level(open_, closed, _branches(neighbours, open_, closed)))
        elif not closed:
            yield [*clique, node]


@dataclass(slots=True)
class _Level:
    """Nodes that the clique may take, those that it may not, and those of the first that are still to be tried."""

    open_: int
    closed: int
    branches: int


def _branches(neighbours: Sequence[int], open_: int, closed: int) -> int:
    """Nodes of `open_` that are not joined to the pivot, the node that is joined to most of them."""
    found, most = open_, 0
    enough = open_.bit_count() - (not closed)  # no node is joined to itself
    for node in _places(open_ | closed):
        shared = neighbours[node] & open_
        count = shared.bit_count()
        if count > most:
            found, most = open_ & ~shared, count
            if count == enough:
                break
    return found


def _places(row: int) -> Iterator[int]:
    """Set bits, lowest first."""
    while row:
        low = row & -row
        yield low.bit_length() - 1
        row ^= low
