"""Groups of samples that are each other's nearest neighbours: on the device, in a fixed number of operations."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["GROUPINGS", "METRICS", "components", "first_neighbours", "membership", "nearest"]


def _cosine(features: Tensor) -> Tensor:
    directions = F.normalize(features, dim=1, eps=1e-12)
    return directions @ directions.T


def _euclidean(features: Tensor) -> Tensor:
    return -torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist")


METRICS: Mapping[str, Callable[[Tensor], Tensor]] = {"cosine": _cosine, "euclidean": _euclidean}
"""How alike rows are: features `[N, C]` to similarities `[N, N]`, larger for what is closer."""


def nearest(features: Tensor, metric: str = "cosine") -> Tensor:
    """For each row the index of the other row that is most like it, int64 `[N]`; the lowest among equals.

    A row of zeros has cosine 0 with every other. A single row is its own neighbour.
    """
    with torch.autocast(features.device.type, enabled=False):  # it would halve the products
        alike = METRICS[metric](features)
    alike = (alike + alike.T).fill_diagonal_(float("-inf"))  # symmetric to the last bit: see `components`
    return alike.argmax(1)


def components(neighbours: Tensor) -> Tensor:
    """Connected components of the graph with an edge from each row i to row `neighbours[i]`, int64 labels `[N]`.

    Similarities that are symmetric, and the lowest index among equals, leave exactly one pair of mutual neighbours in
    each component. Going twice as far in each step, ceil(log2 N) + 1 steps lead every row there; the pair's lower index
    is the label. For other graphs, as NaN may give, rows may be labelled apart, in as many steps.
    """
    place = neighbours
    for _ in range((len(neighbours) - 1).bit_length() + 1):
        place = place[place]
    return torch.minimum(place, neighbours[place])


@torch.no_grad()
def first_neighbours(features: Tensor, metric: str = "cosine") -> Tensor:
    """Labels `[N]`, int64, of the first-neighbour graph of rows `[N, C]`: first partition of FINCH.

    Each row is joined to the one row most like it, and groups are the connected components: no threshold, no number of
    groups, two rows at least in each (one if there is no other). Nothing waits for the device.
    Source: Sarfraz et al., Efficient Parameter-free Clustering Using First Neighbor Relations, CVPR 2019.

    >>> first_neighbours(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.1], [0.1, 1.0]])).tolist()
    [0, 1, 0, 1]
    """
    return components(nearest(features, metric))


@torch.no_grad()
def _together(features: Tensor, metric: str = "cosine") -> Tensor:
    return torch.zeros(len(features), dtype=torch.int64, device=features.device)


GROUPINGS: Mapping[str, Callable[[Tensor, str], Tensor]] = {"first_neighbours": first_neighbours, "whole": _together}
"""From features `[N, C]` and the name of a metric to labels `[N]`; "whole" takes all rows for one group."""


def membership(labels: Tensor, dtype: torch.dtype) -> Tensor:
    """`[N, N]`: row i averages, by matrix product, over the rows that share the label of i. No sum depends on order."""
    same = (labels[:, None] == labels).to(dtype)
    return same / same.sum(1, keepdim=True)
