"""Hyper-classes: cliques of alike classes, each with the mean of its members as its centre."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["HyperClasses"]


@dataclass(frozen=True, slots=True)
class HyperClasses:
    """Cliques of N nodes: `members` of all of them one after another, from `starts[m]` to `starts[m + 1]`."""

    members: NDArray[np.int64]
    starts: NDArray[np.int64]
    centres: Tensor
    """Float `[M, D]`, means of the members' features, not normalised."""

    @classmethod
    def of(cls, cliques: Sequence[Sequence[int]], nodes: Tensor) -> HyperClasses:
        """From cliques of rows of `nodes` `[N, D]`."""
        sizes = np.array([len(clique) for clique in cliques], dtype=np.int64)
        members = np.fromiter(chain.from_iterable(cliques), dtype=np.int64, count=int(sizes.sum()))
        starts = np.concatenate([np.zeros(1, dtype=np.int64), sizes.cumsum()])
        rows, places = torch.from_numpy(members), torch.from_numpy(starts[:-1])
        return cls(members, starts, F.embedding_bag(rows, nodes, places, mode="mean"))

    def __len__(self) -> int:
        return len(self.starts) - 1

    def nearest(self, query: Tensor, share: float, *, cosine: bool = False, upward: bool = False) -> NDArray[np.int64]:
        """Nodes of the `max(1, floor(share M))` cliques nearest to a query `[D]`, ascending, each once.

        Nearness is the product with the centre, or its cosine; cliques that are level come in their own order. With
        `upward` the count is rounded up.
        """
        near = self.centres @ query
        if cosine:
            near = near / self.centres.norm(dim=1).clamp_min(1e-12)
        wanted = max(1, int(np.ceil(share * len(self)) if upward else share * len(self)))
        order = torch.sort(near, descending=True, stable=True).indices[:wanted].numpy()
        return np.unique(np.concatenate([self.members[self.starts[m] : self.starts[m + 1]] for m in order]))
