"""Whether the labels of a batch cluster, told without labels."""

from __future__ import annotations

import torch
from torch import Tensor

from acclimate.core.normalization import wide

__all__ = ["label_clustering"]


@torch.no_grad()
def label_clustering(logits: Tensor) -> Tensor:
    """How much likelier two answers of a batch are of the same class than if all C classes came alike, about 0 to 1.

    `(a - 1/C) / (1 - 1/C)`, where `a = sum_{i != j} p_i . p_j / (n (n - 1))` over the predictions of n rows. Its mean
    is 0 for balanced classes drawn independently, whatever the size of the batch, since no row is compared with itself;
    its deviation is then at most `sqrt(2 / ((C - 1) n (n - 1)))`, that of sure answers. It is 1 where all rows are
    surely of one class. Predictions for several positions are averaged over them. 0 for a single row or class. Costs
    O(n C).

    >>> float(label_clustering(torch.eye(4)[[2, 2, 2]] * 200))
    1.0
    """
    predictions = logits.to(wide(logits.dtype)).softmax(1)
    rows = predictions.flatten(2).mean(2) if logits.ndim > 2 else predictions
    count, classes = rows.shape
    if count < 2 or classes < 2:
        return rows.new_zeros(())
    total = rows.sum(0)
    alike = (total @ total - rows.square().sum()) / (count * (count - 1))
    return (alike - 1 / classes) / (1 - 1 / classes)
