"""What was sent, and how well it was known: the books of one image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Books", "Key", "Stats"]


class Key(NamedTuple):
    """Which tensor: layer, the rank it comes from, its kind ("k", "v", ...), and the branch of guidance."""

    layer: int
    source: int
    kind: str
    branch: int = 0


@dataclass(frozen=True, slots=True)
class Stats:
    """Bytes and errors since the last reset.

    Attributes:
        evaluations: of the model, of all branches.
        sent: bytes of content that one device has sent to the others, copies counted; as many came in. In a
            simulation the mean over devices.
        whole: the same if everything had been sent as it is.
        overhead: bytes of headers that came on top of `sent`.
        errors: for each tensor `|a - b| / |a|` step by step, of what the receivers know; empty if not measured.
        changes: likewise `|a - b| / |a|` before the packet of the step: how large the change is that is compressed.
    """

    evaluations: int
    sent: float
    whole: float
    overhead: float
    errors: Mapping[Key, tuple[float, ...]]
    changes: Mapping[Key, tuple[float, ...]]

    @property
    def ratio(self) -> float:
        """`whole / sent`; 1 if nothing was sent."""
        return self.whole / self.sent if self.sent else 1.0

    def error_by_step(self, kinds: str = "kv") -> tuple[float, ...]:
        """Mean relative error over all tensors of these kinds, step by step of each branch.

        Where a branch of guidance has fewer steps than another, later means are over those that go on.

        >>> stats = Stats(2, 0, 0, 0, {Key(0, 0, "k"): (0.0, 0.5), Key(0, 0, "v"): (0.0, 0.25)}, {})
        >>> stats.error_by_step()
        (0.0, 0.375)
        """
        rows = [values for key, values in self.errors.items() if key.kind[0] in kinds]
        steps = range(max(map(len, rows), default=0))
        return tuple(fmean(row[step] for row in rows if step < len(row)) for step in steps)


@dataclass(slots=True)
class Books:
    """Counts up to `Stats`; numbers stay on their device until asked for."""

    evaluations: int = 0
    sent: float = 0
    whole: float = 0
    overhead: float = 0
    measures: dict[Key, list[Tensor]] = field(default_factory=dict)

    def count(self, sent: float, whole: float, overhead: float) -> None:
        """Bytes of one device."""
        self.sent += sent
        self.whole += whole
        self.overhead += overhead

    def measure(self, key: Key, true: Tensor, before: Tensor | None, after: Tensor) -> None:
        """Compare what the receivers know before and after a packet with the tensor."""
        wide = true.detach().float()
        size = wide.norm().clamp_min(torch.finfo(torch.float32).tiny)
        change = wide.norm() if before is None else (wide - before.float()).norm()
        pair = torch.stack(((wide - after.float()).norm(), change)) / size
        self.measures.setdefault(key, []).append(pair)

    def stats(self) -> Stats:
        rows = {key: torch.stack(pairs).tolist() for key, pairs in self.measures.items()}
        errors = {key: tuple(row[0] for row in table) for key, table in rows.items()}
        changes = {key: tuple(row[1] for row in table) for key, table in rows.items()}
        return Stats(self.evaluations, self.sent, self.whole, self.overhead, errors, changes)
