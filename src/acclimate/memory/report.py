"""What backward keeps of each layer, told and drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from acclimate.memory.keeper import Keeper, Kept

__all__ = ["MemoryReport"]


@dataclass(frozen=True, kw_only=True)
class MemoryReport:
    """One line for each tensor that backward kept in a step, in the order of the forward.

    `peak` is what was held at the peak, `stock` what PyTorch alone would have held; `shares`, where inputs are kept by
    importance, each layer's share. A tensor that several operations save stands where it was saved first.
    """

    lines: Sequence[Kept]
    peak: int
    stock: int
    shares: Mapping[str, float]

    @classmethod
    def of(cls, keeper: Keeper, shares: Mapping[str, float]) -> MemoryReport:
        return cls(lines=tuple(keeper.lines), peak=keeper.held.peak, stock=keeper.dense.peak, shares=dict(shares))

    def __str__(self) -> str:
        head = f"{'operation':<14}{'layer':<34}{'what':<10}{'how':<12}{'dense kB':>12}{'kept kB':>12}{'share':>8}"
        rows = [head]
        for line in self.lines:
            share = self.shares.get(line.layer) if line.codec in ("Sparse", "Indexed") else None
            rows.append(
                f"{line.operation:<14}{line.layer:<34}{line.role:<10}{line.codec:<12}{line.dense / 1e3:>12.1f}"
                f"{line.held / 1e3:>12.1f}{'' if share is None else f'{share:.3f}':>8}"
            )
        part = self.peak / self.stock if self.stock else 1.0
        rows.append(f"peak {self.peak / 1e6:.2f} MB, {part:.3f} of the {self.stock / 1e6:.2f} MB that PyTorch holds")
        return "\n".join(rows)

    def plot(self, path: str | Path) -> Path:
        """Draw dense and kept bytes of each line as bars, into a PNG or SVG file; needs matplotlib (acclimate[cli])."""
        from acclimate.memory.plot import draw

        return draw(self, Path(path))
