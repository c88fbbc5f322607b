"""Scenes, their truth and what models made of them, as one figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from acclimate.experiment.plots.style import INK, blank
from acclimate.streams.camvid import CAMVID_CLASSES

__all__ = ["painted", "scene_grid"]

_GUTTER = 4
_BLACK = (0.1, 0.1, 0.12)
_COLOURS = {
    "sky": "#7ec8e3", "building": "#8d8d8d", "pole": "#e0c097", "road": "#6a3d73", "pavement": "#d98bd1",
    "tree": "#4f8a3c", "sign": "#f2d13c", "fence": "#b5654a", "car": "#2340a8", "pedestrian": "#e0263c",
    "bicyclist": "#8f1d2c", "terrain": "#a9d18e", "wall": "#5c6470", "traffic light": "#f59e0b", "truck": "#0f1f5c",
    "bus": "#0e7490", "train": "#155e63", "motorcycle": "#4338ca",
}  # fmt: skip
_SAME = {
    "sidewalk": "pavement", "vegetation": "tree", "traffic sign": "sign", "person": "pedestrian", "rider": "bicyclist",
    "bicycle": "motorcycle",
}  # fmt: skip


def _rgb(name: str, position: int) -> tuple[float, float, float]:
    known = _SAME.get(name, name)
    text = _COLOURS.get(known) or list(_COLOURS.values())[position % len(_COLOURS)]
    red, green, blue = (int(text[start : start + 2], 16) / 255 for start in (1, 3, 5))
    return red, green, blue


def painted(labels: Tensor, classes: Sequence[str]) -> Tensor:
    """Label maps in colours, black where there is no class: int64 `[..., H, W]` -> float `[..., 3, H, W]`.

    >>> painted(torch.tensor([[0, -1]]), ("sky",)).shape
    torch.Size([3, 1, 2])
    """
    palette = torch.tensor([*(_rgb(name, number) for number, name in enumerate(classes)), _BLACK])
    known = (labels >= 0) & (labels < len(classes))
    return palette[torch.where(known, labels, len(classes))].movedim(-1, -3)


def scene_grid(
    images: Tensor,
    truth: Tensor,
    answers: Mapping[str, Tensor],
    *,
    classes: Sequence[str] = CAMVID_CLASSES,
    names: Sequence[str] = (),
) -> Figure:
    """A row for each scene: the image, its truth, and one column for each model.

    Arguments:
        images: float `[N, 3, H, W]` in [0, 1].
        truth: int64 `[N, H, W]`, -1 for no class.
        answers: predicted classes by title, each int64 `[N, H, W]`.
        classes: names, for the colours and their key.
        names: of the rows, such as the weather.

    Raises:
        ValueError: shapes that do not fit each other.
    """
    count, _, height, width = images.shape
    for title, labels in {"truth": truth, **answers}.items():
        if labels.shape != (count, height, width):
            raise ValueError(f"{title} has shape {list(labels.shape)}; expected {[count, height, width]}.")
    columns = [images, painted(truth, classes), *(painted(labels, classes) for labels in answers.values())]
    high, wide = height + _GUTTER, width + _GUTTER
    canvas = torch.ones(3, count * high - _GUTTER, len(columns) * wide - _GUTTER)
    for place, column in enumerate(columns):
        for row in range(count):
            canvas[:, row * high : row * high + height, place * wide : place * wide + width] = column[row]
    inches = 2.5
    figure, axes = blank(inches * len(columns) + 0.5, inches * height / width * count + 0.9)
    axes.imshow(canvas.permute(1, 2, 0).clamp(0, 1).numpy(), interpolation="nearest")
    axes.spines[:].set_visible(False)
    axes.set_xticks(
        [place * wide + width / 2 for place in range(len(columns))], ["image", "truth", *answers], color=INK
    )
    axes.xaxis.tick_top()
    axes.set_yticks(
        [row * high + height / 2 for row in range(len(names))], list(names), rotation=90, va="center", color=INK
    )
    seen = [
        number for number in range(len(classes)) if any(bool((m == number).any()) for m in (truth, *answers.values()))
    ]
    figure.legend(
        handles=[Patch(color=_rgb(classes[number], number), label=classes[number]) for number in seen],
        loc="outside lower center", ncols=min(len(seen), 11), frameon=False, fontsize=8, handlelength=1,
        columnspacing=1.2,
    )  # fmt: skip
    return figure
