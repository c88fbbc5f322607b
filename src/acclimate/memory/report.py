"""What backward keeps of each layer, told and drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from acclimate.memory.keeper import Keeper, Kept

__all__ = ["MemoryReport"]


def _nothing() -> Mapping[str, float]:
    return {}


@dataclass(frozen=True, kw_only=True)
class MemoryReport:
    """One line for each tensor that backward kept in a step, in the order in which it was saved.

    `peak` is what was held at the peak, `stock` what PyTorch alone would have held. A storage that several operations
    save brings its `dense` bytes to the first line only; later ones have 0, shown as "same", and in `held` what they
    add. So the lines of one forward sum up to `stock`, but for tensors below 4,096 values, which are kept as they are
    and have no line; those of several forwards to more, where PyTorch does not hold all at once.

    Where inputs are kept by importance there are, by adapted tensor, `shares`, and of a step that probed
    `gradient_importance` G and `memory_importance` M, of which a share is the product over its maximum; `probed` is the
    number of samples probed and `probe_peak` what was held at most for them, in bytes. Else these are empty or 0.
    """

    lines: Sequence[Kept]
    peak: int
    stock: int
    shares: Mapping[str, float] = field(default_factory=_nothing)
    gradient_importance: Mapping[str, float] = field(default_factory=_nothing)
    memory_importance: Mapping[str, float] = field(default_factory=_nothing)
    probed: int = 0
    probe_peak: int = 0

    @classmethod
    def of(cls, keeper: Keeper) -> MemoryReport:
        """Of the step whose books these are; the only moment in which numbers of a device are read."""
        read = {
            name: dict(zip(names, values.tolist(), strict=True)) for name, (names, values) in keeper.details.items()
        }
        return cls(
            lines=tuple(keeper.lines),
            peak=keeper.held.peak,
            stock=keeper.dense.peak,
            shares=read.get("share", {}),
            gradient_importance=read.get("gradient_importance", {}),
            memory_importance=read.get("memory_importance", {}),
            probed=keeper.probed,
            probe_peak=keeper.opening if keeper.probed else 0,
        )

    def __str__(self) -> str:
        head = f"{'operation':<14}{'layer':<34}{'what':<10}{'how':<12}{'dense kB':>12}{'kept kB':>12}"
        rows = [f"{head}{'G':>10}{'M':>7}{'share':>8}" if self.probed else f"{head}{'share':>8}"]
        for line in self.lines:
            dense = f"{line.dense / 1e3:.1f}" if line.dense else "same"
            row = f"{line.operation:<14}{line.layer:<34}{line.role:<10}{line.codec:<12}{dense:>12}"
            row += f"{line.held / 1e3:>12.1f}"
            if self.probed:
                found = "" if line.role == "output" else line.layer
                row += _number(self.gradient_importance.get(found), ".2e", 10)
                row += _number(self.memory_importance.get(found), ".2f", 7)
            share = self.shares.get(line.layer) if line.codec in ("Sparse", "Indexed") else None
            rows.append(row + _number(share, ".3f", 8))
        if self.probed:
            samples = "1 sample" if self.probed == 1 else f"{self.probed} samples"
            rows.append(f"probe of {samples}, before the step: peak {self.probe_peak / 1e6:.2f} MB")
        part = self.peak / self.stock if self.stock else 1.0
        rows.append(f"peak {self.peak / 1e6:.2f} MB, {part:.3f} of the {self.stock / 1e6:.2f} MB that PyTorch holds")
        return "\n".join(rows)

    def plot(self, path: str | Path) -> Path:
        """Draw dense and kept bytes of each line as bars, into a PNG or SVG file; needs matplotlib (acclimate[cli])."""
        from acclimate.memory.plot import draw

        return draw(self, Path(path))


def _number(value: float | None, form: str, width: int) -> str:
    return f"{'' if value is None else format(value, form):>{width}}"
