"""All maximal cliques of a sparse graph, by rows of bits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["TooMany", "bits", "maximal_cliques"]


class TooMany(ValueError):
    """More cliques than were allowed."""


def bits(adjacency: NDArray[np.bool_]) -> list[int]:
    """Neighbours of each node `[N, N]` as the set bits of one number."""
    packed = np.packbits(adjacency, axis=1, bitorder="little")
    return [int.from_bytes(row.tobytes(), "little") for row in packed]


def maximal_cliques(neighbours: Sequence[int], most: int | None = None) -> list[tuple[int, ...]]:
    """Every maximal clique, its nodes ascending, in lexicographic order; isolated nodes are cliques of one.

    `neighbours` has bit b of number a set where a and b are joined, the same both ways and none with itself. Bron and
    Kerbosch's search with Tomita's pivot over a degeneracy order of each component: `O(b N 3^(b / 3))` for N nodes of
    degeneracy b, which is small in sparse graphs.

    Raises TooMany beyond `most` cliques.

    >>> maximal_cliques([0b0110, 0b0101, 0b0011, 0])
    [(0, 1, 2), (3,)]
    """
    found: list[tuple[int, ...]] = []
    for clique in _all(neighbours):
        if most is not None and len(found) >= most:
            raise TooMany(f"there are more than {most} maximal cliques among {len(neighbours)} nodes.")
        found.append(tuple(sorted(clique)))
    return sorted(found)


def _all(neighbours: Sequence[int]) -> Iterator[list[int]]:
    joined = [node for node, row in enumerate(neighbours) if row]
    yield from ([node] for node, row in enumerate(neighbours) if not row)
    left = sum(1 << node for node in joined)
    done = 0
    for node in _degeneracy_order(neighbours, joined):
        mine = neighbours[node]
        left &= ~(1 << node)
        yield from _extend(neighbours, node, mine & left, mine & done)
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
