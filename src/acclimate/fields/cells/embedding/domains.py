"""How far apart laboratories are in the mean."""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor

from acclimate.core.config import one_of

__all__ = ["PAIRS", "mean_discrepancy"]

PAIRS = ("anchor", "all")


def mean_discrepancy(codes: Tensor, domains: Tensor, pairs: str = "anchor") -> Tensor:
    """Sum over pairs of laboratories of the mean squared difference of their mean codes, `||m_i - m_j||^2 / D`.

    The maximum mean discrepancy under a linear kernel. Laboratories that the batch lacks are left out, and so is what
    has no partner.

    Arguments:
        codes: `[N, D]`.
        domains: int64 `[N]`, which laboratory.
        pairs: "anchor", laboratory 0 with each other one (published), or "all".

    Source: BC-SAM (arXiv 2408.06716), of two laboratories; DoRL (arXiv 2408.07467), of several.

    >>> float(mean_discrepancy(torch.tensor([[0.0, 0.0], [2.0, 4.0]]), torch.tensor([0, 1])))
    10.0
    """
    one_of(*PAIRS, pairs=pairs)
    present = domains.unique().tolist()
    means = {each: codes[domains == each].mean(0) for each in present}
    chosen = [(a, b) for a, b in combinations(present, 2) if pairs == "all" or a == 0]
    terms = [(means[a] - means[b]).square().mean() for a, b in chosen]
    return torch.stack(terms).sum() if terms else codes.sum() * 0.0
