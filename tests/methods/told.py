"""A net that is told its answers: batch norms that adapt, and logits that one corner of each image decides."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from normalization.layered import deep_net, images, oracle

__all__ = ["CLASSES", "Told", "Watcher", "answered", "balanced", "clustering", "novelty", "one_class"]

CLASSES = 4


class Told(nn.Module):
    """Ten batch norms in the trunk, whose logits the first four pixels of the first row outweigh."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = deep_net()

    def forward(self, x: Tensor) -> Tensor:
        return self.trunk(x) + 8 * x[:, 0, 0, :CLASSES]


def _told(labels: Tensor, mixed: bool, seed: int) -> Tensor:
    x = images(len(labels), mixed, seed)
    x[:, 0, 0, :CLASSES] = nn.functional.one_hot(labels, CLASSES).double()
    return x


def balanced(seed: int, count: int = 20, mixed: bool = False) -> Tensor:
    """As many images of each class; of two domains, if `mixed`."""
    return _told(torch.arange(count) % CLASSES, mixed, seed)


def one_class(seed: int, count: int = 20) -> Tensor:
    """Images of one class, which the seed tells."""
    return _told(torch.full((count,), seed % CLASSES), False, seed)


def answered(x: Tensor, share: float) -> tuple[Tensor, float | None]:
    """Logits of the unlearned net with this share of the batch's statistics in deep layers, and the spread."""
    logits, spread = oracle(deep_net(), x, share=share, groups="auto" if len(x) >= 16 else "never")
    return logits + 8 * x[:, 0, 0, :CLASSES], None if spread is None else float(spread)


def clustering(logits: Tensor) -> float:
    """How much likelier two rows are of one class than by chance, pair by pair."""
    p = [row.softmax(0).tolist() for row in logits.double()]
    n, classes = len(p), logits.shape[1]
    pairs = [sum(a * b for a, b in zip(p[i], p[j], strict=True)) for i in range(n) for j in range(n) if i != j]
    return (sum(pairs) / (n * (n - 1)) - 1 / classes) / (1 - 1 / classes)


def novelty(logits: Tensor, usual: list[float]) -> float:
    """How far the classes of these answers are from the usual shares, pair by pair."""
    p = [row.softmax(0).tolist() for row in logits.double()]
    n, classes = len(p), logits.shape[1]
    away = [[share - other for share, other in zip(row, usual, strict=True)] for row in p]
    pairs = [sum(a * b for a, b in zip(away[i], away[j], strict=True)) for i in range(n) for j in range(n) if i != j]
    return sum(pairs) / (n * (n - 1)) / (1 - 1 / classes)


class Watcher:
    """What auto must keep and decide, of a net whose weights do not move."""

    def __init__(self, limit: float, rows: float) -> None:
        self.limit, self.rows = limit, rows
        self.kept, self.usual = 1.5 * limit, [1 / CLASSES] * CLASSES

    def learns(self, x: Tensor) -> bool:
        return len(x) >= 8 and self.kept < self.limit

    def see(self, x: Tensor) -> None:
        """One batch: a probe of it and its answers where it learns, else all of its answers by source statistics."""
        if len(x) < 8:
            return
        learns, count = self.learns(x), len(x)
        most = min(count, max(16, -(-count // 10)))
        rows = [place * count // most for place in range(most)] if learns else list(range(count))
        logits, _ = answered(x[rows], share=0.0)
        found = max(0.0, novelty(logits, self.usual))
        if learns:
            found = max(found, clustering(answered(x, share=1.0)[0]) - (2 / (CLASSES - 1)) ** 0.5 / count)
        mean = logits.double().softmax(1).mean(0).tolist()
        self.usual = [0.9 * share + 0.1 * new for share, new in zip(self.usual, mean, strict=True)]
        self.kept = min(self.kept + count / (count + self.rows) * (found - self.kept), 4 * self.limit)
