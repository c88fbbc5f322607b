"""What the methods cost in time and memory."""

from __future__ import annotations

from matplotlib.figure import Figure

from acclimate.experiment.plots.style import GREY, blank, colours
from acclimate.experiment.results import Results
from acclimate.experiment.sizes import readable_bytes

__all__ = ["cost_bars", "memory_bars"]

_KINDS = {
    "weights": "#0072b2",
    "optimizer": "#56b4e9",
    "statistics": "#009e73",
    "memory": "#cc79a7",
    "buffers": "#7a5195",
    "counters": "#455a64",
    "rollback": "#e69f00",
    "saved for backward": "#d55e00",
}


def _height(rows: int) -> float:
    return 0.9 + 0.36 * max(1, rows)


def cost_bars(results: Results) -> Figure:
    """Measured time of a batch as a multiple of the source's, with the passes that were counted."""
    labels = list(results.methods)
    palette = colours(labels)
    ratios = [results.ratio(label) for label in labels]
    relative = all(ratio is not None for ratio in ratios)
    lengths = [ratio if relative and ratio is not None else results.milliseconds(label)
               for label, ratio in zip(labels, ratios, strict=True)]  # fmt: skip
    figure, axes = blank(11, _height(len(labels)))
    axes.barh(range(len(labels)), lengths, color=[palette[label] for label in labels], height=0.62)
    for row, (label, length) in enumerate(zip(labels, lengths, strict=True)):
        passes = f"{results.average(label, 'forwards'):.3g} forward, {results.average(label, 'backwards'):.3g} backward"
        shown = f"{length:.1f}x, {results.milliseconds(label):.1f} ms" if relative else f"{length:.1f} ms"
        axes.annotate(
            f"{shown}  ({passes})", (length, row), (5, 0), textcoords="offset points", va="center", fontsize=8.5
        )
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.45 * max(lengths))
    axes.set_xlabel("time of a batch, source model = 1" if relative else "milliseconds a batch")
    axes.spines["left"].set_visible(False)
    return figure


def _parts(results: Results, label: str) -> dict[str, int]:
    memory = results.memory(label)
    parts = {kind: int(size) for kind, size in memory.get("state", {}).items()}
    parts["rollback"] = int(memory.get("rollback") or 0)
    parts["saved for backward"] = int(memory.get("saved") or 0)
    return {kind: size for kind, size in parts.items() if size}


def memory_bars(results: Results) -> Figure:
    """Bytes beyond the model: declared state by kind, the copy for rollback, and what backward keeps."""
    labels = list(results.methods)
    parts = {label: _parts(results, label) for label in labels}
    kinds = [kind for kind in _KINDS if any(kind in each for each in parts.values())]
    kinds += sorted({kind for each in parts.values() for kind in each} - set(kinds))
    most = max((sum(each.values()) for each in parts.values()), default=0) or 1
    unit, scale = ("MB", 1e6) if most >= 1e6 else ("kB", 1e3)
    figure, axes = blank(11, _height(len(labels)) + 0.3)
    for row, label in enumerate(labels):
        left = 0.0
        for kind in kinds:
            size = parts[label].get(kind, 0) / scale
            axes.barh(row, size, left=left, color=_KINDS.get(kind, GREY), height=0.62)
            left += size
        state = sum(size for kind, size in parts[label].items() if kind != "saved for backward")
        axes.annotate(
            f"{left:.3g} {unit}  (state and rollback {readable_bytes(state)})" if left else "nothing",
            (left, row), (5, 0), textcoords="offset points", va="center", fontsize=8.5,
        )  # fmt: skip
    for kind in kinds:
        axes.barh(0, 0, color=_KINDS.get(kind, GREY), label=kind)
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.4 * most / scale)
    axes.set_xlabel(f"{unit} beyond the model")
    axes.spines["left"].set_visible(False)
    if kinds:
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=len(kinds), frameon=False, borderaxespad=0.2)
    return figure
