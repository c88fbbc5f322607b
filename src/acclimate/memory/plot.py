"""A picture of what backward keeps: one bar for each layer, dense behind kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from acclimate.memory.report import MemoryReport

__all__ = ["draw"]

_DENSE, _KEPT, _INK = "#d5d9de", "#0072b2", "#1f2430"


def draw(report: MemoryReport, path: Path) -> Path:
    """Write the picture. ValueError for another kind of file; ImportError where matplotlib is missing."""
    path = path.expanduser()
    if path.suffix.lower() not in (".png", ".svg") or path.is_dir():
        raise ValueError(f"found {str(path)!r} for a picture, expected a file that ends in .png or .svg.")
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("drawing needs matplotlib. Install it with: pip install 'acclimate[cli]'.") from error
    lines = report.lines
    figure = Figure(figsize=(9.0, min(180.0, max(2.4, 0.19 * len(lines) + 1.3))), layout="constrained")
    axes = figure.add_subplot()
    places = range(len(lines))
    axes.barh(
        places,
        [line.dense / 1e6 for line in lines],
        color=_DENSE,
        height=0.82,
        label="what PyTorch holds, each storage once",
    )
    axes.barh(places, [line.held / 1e6 for line in lines], color=_KEPT, height=0.5, label="kept")
    names = [f"{line.operation} {line.role}  {line.layer.removesuffix('.weight')}".rstrip() for line in lines]
    shares = [report.shares.get(line.layer) if line.codec in ("Sparse", "Indexed") else None for line in lines]
    hows = [
        line.codec.lower() if share is None else f"{line.codec.lower()} {share:.3f}"
        for line, share in zip(lines, shares, strict=True)
    ]
    axes.set_yticks(places, [f"{name}  [{how}]" for name, how in zip(names, hows, strict=True)])
    axes.tick_params(axis="y", labelsize=7, length=0, colors=_INK)
    axes.invert_yaxis()
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.set_xlabel("MB that a tensor adds: to what PyTorch holds, and to what is held in its place")
    axes.set_title(
        f"peak {report.peak / 1e6:.1f} MB, where PyTorch alone holds {report.stock / 1e6:.1f} MB",
        fontsize=10,
        loc="left",
    )
    axes.grid(axis="x", color="#e3e5e8", linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.legend(edgecolor="none", framealpha=0.85, fontsize=8, loc="lower right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    return path
