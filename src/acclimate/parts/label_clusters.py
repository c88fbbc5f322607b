"""Whether the labels of a batch cluster, told without labels."""

from __future__ import annotations

import torch
from torch import Tensor

from acclimate.core.normalization import wide

__all__ = ["class_shares", "label_clustering", "label_novelty"]


@torch.no_grad()
def class_shares(logits: Tensor, most: int | None = None) -> Tensor:
    """Each row's predictions `[n, C]`, averaged over positions; more than `most` classes are counted in turn.

    >>> class_shares(torch.zeros(1, 4), most=3).tolist()
    [[0.5, 0.25, 0.25]]
    """
    predictions = logits.to(wide(logits.dtype)).softmax(1)
    rows = predictions.flatten(2).mean(2) if logits.ndim > 2 else predictions
    if most is None or rows.shape[1] <= most:
        return rows
    places = torch.arange(rows.shape[1], device=rows.device) % most
    return rows.new_zeros(len(rows), most).index_add(1, places, rows)


@torch.no_grad()
def label_novelty(shares: Tensor, usual: Tensor) -> Tensor:
    """How far the classes of n rows `[n, C]` are from the usual shares q `[C]`, about 0 to 2.

    `(a - 2 p . q + q . q) / (1 - 1/C)`, where `a = sum_{i != j} p_i . p_j / (n (n - 1))` and p is the mean over rows.
    Its mean is 0 for rows drawn independently with these shares, whatever n, since no row is compared with itself.
    0 for a single row or class. Costs O(n C).

    >>> rows = torch.eye(4)[[2, 2, 2]]
    >>> [float(label_novelty(rows, q)) for q in (torch.full((4,), 0.25), rows[0])]
    [1.0, 0.0]
    """
    count, classes = shares.shape
    if count < 2 or classes < 2:
        return shares.new_zeros(())
    total = shares.sum(0)
    alike = (total @ total - shares.square().sum()) / (count * (count - 1))
    return (alike - 2 * (total @ usual) / count + usual @ usual) / (1 - 1 / classes)


@torch.no_grad()
def label_clustering(logits: Tensor) -> Tensor:
    """How much likelier two answers of a batch are of the same class than if all C classes came alike, about 0 to 1.

    The novelty of the predictions against `1 / C`: `(a - 1/C) / (1 - 1/C)`. For balanced classes its deviation is at
    most `sqrt(2 / ((C - 1) n (n - 1)))`, that of sure answers. It is 1 where all rows are surely of one class.

    >>> float(label_clustering(torch.eye(4)[[2, 2, 2]] * 200))
    1.0
    """
    shares = class_shares(logits)
    return label_novelty(shares, torch.full_like(shares[0], 1 / shares.shape[1]))
