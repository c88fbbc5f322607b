"""What the trials show, in numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from torch import Tensor

from acclimate.experiment.reproduce.part import Cell, Grid, Line
from acclimate.fields.diffusion.reproduction.measure import Outcome
from acclimate.fields.diffusion.reproduction.rows import Row

__all__ = ["HEAD", "mean_psnr", "pictures_of", "quality_grid", "shift"]

HEAD = [
    "PSNR, dB", "span, dB", "worst, dB", "SSIM", "seen, 1e-3", "Fréchet, 1e-3", "named, %", "error, %", "bytes, %",
]  # fmt: skip

WARMUP = 1


def quality_grid(
    key: str,
    title: str,
    rows: Sequence[Row],
    found: Mapping[str, Sequence[Outcome]],
    apart: Mapping[str, float],
) -> Grid:
    """Rows against the images without an exchange.

    Arguments: `found`, by row, an outcome for each seed; `apart`, by row, the Fréchet distance over all seeds.
    """
    moved = shift(found["whole"]) if "whole" in found else None
    lines = [Line("measured", row.title, _cells(row, found[row.key], apart[row.key], moved)) for row in rows]
    return Grid(key=key, head=HEAD, lines=lines, title=title)


def _cells(row: Row, outcomes: Sequence[Outcome], apart: float, moved: float | None) -> list[Cell]:
    psnr = mean_psnr(outcomes)
    each = [value for outcome in outcomes for value in outcome.each if value is not None]
    batches = [outcome.psnr for outcome in outcomes if outcome.psnr is not None]
    error = _error(row, outcomes, moved)
    return [
        "exact" if psnr is None else f"{psnr:.1f}",
        f"{max(batches) - min(batches):.1f}" if len(batches) > 1 else None,
        f"{min(each):.1f}" if each else None,
        f"{fmean(outcome.ssim for outcome in outcomes):.4f}",
        f"{1e3 * fmean(outcome.seen for outcome in outcomes):.2f}",
        f"{1e3 * apart:.2f}",
        f"{100 * fmean(outcome.named for outcome in outcomes):.0f}",
        None if error is None else f"{100 * error:.1f}",
        f"{100 * fmean(outcome.sent / outcome.whole for outcome in outcomes):.1f}",
    ]


def mean_psnr(outcomes: Sequence[Outcome]) -> float | None:
    """Mean over seeds; None where images do not differ."""
    values = [outcome.psnr for outcome in outcomes]
    known = [value for value in values if value is not None]
    return fmean(known) if known and len(known) == len(values) else None


def shift(outcomes: Sequence[Outcome]) -> float:
    """Mean relative change of keys and values from step to step."""
    return fmean(fmean(outcome.changes[1:]) for outcome in outcomes if outcome.changes[1:])


def _error(row: Row, outcomes: Sequence[Outcome], moved: float | None) -> float | None:
    if row.strategy == "stale":
        return moved  # what it uses is a step old
    warmup = max(1, row.settings.get("warmup", WARMUP))
    known = [value for value in (outcome.error(warmup) for outcome in outcomes) if value is not None]
    return fmean(known) if known else None


def pictures_of(images: Tensor) -> Tensor:
    """`[B, C, H, W]` in [-1, 1] as `[B, H, W, 3]` in [0, 1]."""
    return ((images.clamp(-1, 1) + 1) / 2).expand(-1, 3, -1, -1).permute(0, 2, 3, 1)
