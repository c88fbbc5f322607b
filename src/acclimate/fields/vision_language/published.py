"""Published accuracies of the two usual tables, top-1 in percent, with where they come from. Facts, typed in once.

COSMIC's cells are means over three seeds with standard deviations. Its released code, and DMN's, choose fusion weights
for each data set by accuracy on its test labels, so both belong beside `oracle_weights`, not beside fixed ones. DINOv2,
COSMIC's second encoder, was trained on images that were picked by likeness to ImageNet's, among others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from acclimate.fields.vision_language.data.catalogue import CROSS_DOMAIN, DATASETS, OUT_OF_DISTRIBUTION

__all__ = ["ABLATION", "BACKBONES", "COLUMNS", "ORACLES", "PUBLISHED", "SIZES", "SOURCES", "Number", "Row"]

BACKBONES = ("ViT-B/16", "RN50")

ORACLES = frozenset({"COSMIC", "DMN-ZS"})
"""Rows whose released code chooses weights on test labels, and has no other way to its numbers."""

_MEANS = {OUT_OF_DISTRIBUTION: ("mean", "OOD mean"), CROSS_DOMAIN: ("mean",)}

COLUMNS: Mapping[str, tuple[str, ...]] = {
    group: (*(name for name, facts in DATASETS.items() if facts.group == group), *means)
    for group, means in _MEANS.items()
}
"""What the numbers of a row are of; "OOD mean" leaves ImageNet out."""


@dataclass(frozen=True, slots=True)
class Number:
    """A mean with its standard deviation over seeds, where that is published."""

    value: float
    spread: float | None = None

    def __str__(self) -> str:
        return f"{self.value:.2f}" if self.spread is None else f"{self.value:.2f} ± {self.spread:.2f}"


Row: TypeAlias = tuple[Number | None, ...]
"""One cell for each of `COLUMNS`; None where none was found."""

_OOD_VIT = """
CLIP                66.73 47.87 60.86 73.98 46.09 59.11 57.20
CLIP, ensemble      68.34 49.89 61.88 77.65 48.24 61.20 59.42
CLIP, tip + CuPL    69.93 50.85 63.64 77.36 49.34 -     60.30
CoOp                71.51 49.71 64.20 75.21 47.99 61.72 59.28
CoCoOp              71.02 50.63 64.07 76.18 48.75 62.13 59.91
TPT                 68.98 54.77 63.45 77.06 47.94 62.44 60.81
DiffTPT             70.30 55.68 65.10 75.00 46.80 62.58 60.65
TDA                 69.51 60.11 64.67 80.24 50.54 65.01 63.89
BoostAdapter        -     -     -     -     -     -     -
DMN-ZS              72.25 58.28 65.17 78.55 53.20 65.49 63.80
ZERO                69.31 59.61 64.16 77.22 48.40 63.74 -
ZERO, ensemble      71.17 62.75 65.23 80.75 50.59 66.10 -
DPE                 71.91 59.63 65.44 80.40 52.26 65.93 64.43
OnZeta              70.81 -     -     -     -     -     -
COSMIC              78.19±0.56 73.32±0.32 69.62±0.19 85.60±0.12 62.79±0.10 73.90±0.05 72.83±0.10
"""
_OOD_RN50 = """
CLIP                58.16 21.83 51.41 56.15 33.37 44.18 40.69
CLIP, ensemble      59.81 23.24 52.91 60.72 35.48 46.43 43.09
CoOp                63.33 23.06 55.40 56.60 34.67 46.61 42.43
CoCoOp              62.81 23.32 55.72 57.74 34.48 46.81 42.82
Tip-Adapter         62.03 23.13 53.97 60.35 35.74 47.04 43.30
TPT                 60.74 26.67 54.70 59.11 35.09 47.26 43.89
DiffTPT             60.80 31.06 55.80 58.80 37.10 48.71 45.69
TDA                 61.35 30.29 55.54 62.58 38.12 49.58 46.63
DMN-ZS              63.87 28.57 56.12 61.44 39.84 49.97 46.49
DPE                 63.41 30.15 56.72 63.72 40.03 50.81 47.66
OnZeta              62.29 -     -     -     -     -     -
COSMIC              75.19±0.89 49.07±0.06 63.81±0.39 79.87±0.08 56.44±0.34 64.88±0.22 62.30±0.05
"""
_FINE_VIT = """
CLIP                23.67 93.35 65.48 44.27 42.01 67.44 83.65 88.25 62.59 65.13 63.58
CLIP, ensemble      23.22 93.55 66.11 45.04 50.42 66.99 82.86 86.92 65.63 65.16 64.59
CoOp                18.47 93.70 64.51 41.92 46.39 68.71 85.30 89.14 64.15 66.55 63.88
CoCoOp              22.29 93.79 64.90 45.45 39.23 70.85 83.97 90.46 66.89 68.44 64.63
TPT                 24.78 94.16 66.87 47.75 42.44 68.98 84.67 87.79 65.50 68.04 65.10
DiffTPT             25.60 92.49 67.01 47.00 43.13 70.10 87.23 88.22 65.74 62.67 64.92
ZERO                25.21 93.66 68.04 46.12 34.33 67.68 86.53 87.75 65.03 67.77 64.21
TDA                 23.91 94.24 67.28 47.40 58.00 71.42 86.14 88.63 67.62 70.66 67.53
BoostAdapter        27.45 94.77 69.30 45.69 61.22 71.66 87.17 89.51 68.09 71.93 68.68
DPE                 28.95 94.81 67.31 54.20 55.79 75.07 86.17 91.14 70.07 70.44 69.40
DMN-ZS              30.03 95.38 67.96 55.85 59.43 74.49 85.08 92.04 70.18 72.51 70.30
COSMIC              31.44±0.56 96.80±0.42 71.31±0.46 58.23±1.40 58.82±0.40 82.14±0.49 86.60±0.09 94.19±0.09 72.33±0.06 76.20±0.55 72.81±0.09
"""  # noqa: E501
_FINE_RN50 = """
CLIP                15.66 85.88 55.70 40.37 23.69 61.75 73.97 83.57 58.80 58.84 55.82
CoOp                15.12 86.53 55.32 37.29 26.20 61.55 75.59 87.00 58.15 59.05 56.18
CoCoOp              14.61 87.38 56.22 38.53 28.73 65.57 76.20 88.39 59.61 57.10 57.23
TPT                 17.58 87.02 58.46 40.84 28.33 62.69 74.88 84.49 61.46 60.82 57.66
DiffTPT             17.60 86.89 60.71 40.72 41.04 63.53 79.21 83.40 62.72 62.67 59.85
TDA                 17.61 89.70 57.78 43.74 42.11 68.74 77.75 86.18 62.53 64.18 61.03
DPE                 19.80 90.83 59.26 50.18 41.67 67.60 77.83 85.97 64.23 61.98 61.93
DMN-ZS              22.77 90.14 60.02 50.41 48.72 67.93 76.70 86.78 64.39 65.34 63.32
COSMIC              25.49±0.57 94.77±0.35 66.69±0.51 55.44±0.68 48.97±2.41 77.78±1.22 83.53±0.11 92.63±0.29 69.73±0.08 71.51±0.78 68.65±0.32
"""  # noqa: E501


def _read(text: str) -> dict[str, Row]:
    """A name, two blanks or more, then numbers, each with its deviation behind ± where it has one."""
    rows: dict[str, Row] = {}
    for line in text.strip().splitlines():
        name, cells = re.split(r"\s{2,}", line, maxsplit=1)
        rows[name] = tuple(_number(cell) for cell in cells.split())
    return rows


def _number(cell: str) -> Number | None:
    value, _, spread = cell.partition("±")
    return None if cell == "-" else Number(float(value), float(spread) if spread else None)


PUBLISHED: Mapping[str, Mapping[str, Mapping[str, Row]]] = {
    OUT_OF_DISTRIBUTION: {"ViT-B/16": _read(_OOD_VIT), "RN50": _read(_OOD_RN50)},
    CROSS_DOMAIN: {"ViT-B/16": _read(_FINE_VIT), "RN50": _read(_FINE_RN50)},
}
"""By table, backbone and method."""

SOURCES: Mapping[str, str] = {
    "both tables": "Huang et al., CVPR 2025 (arXiv 2503.23388), who took over the rows of other methods",
    "CLIP, tip + CuPL": "the log that DMN ships: seven templates and GPT-3's descriptions",
    "DMN-ZS": "Zhang et al., CVPR 2024; its shipped log shows that the fusion weight was chosen on test labels",
    "ZERO": "Farina et al., NeurIPS 2024",
    "DPE": "Zhang et al., NeurIPS 2024, which has 62.28 as DiffTPT's mean of the first table on ViT-B/16",
    "DiffTPT": "65.47 is its mean of the second table on ViT-B/16 in DPE and DOTA, 64.92 here",
    "BoostAdapter": "Zhang et al., NeurIPS 2024; its first table was not found and is left blank",
    "OnZeta": "as reported by a later paper, ImageNet alone",
}
"""Of the numbers; of all rows but those named, the first."""

ABLATION: Mapping[str, tuple[float, float]] = {
    "CLIP": (69.91, 72.64),
    "CSS alone": (71.88, 74.46),
    "AFV alone": (67.05, 77.71),
    "CLIP + CSS": (72.06, 75.07),
    "CLIP + AFV": (73.16, 79.74),
    "all": (73.79, 81.61),
}
"""COSMIC's parts on ViT-B/16 with DINOv2-S: ImageNet, Flowers."""

SIZES: Mapping[str, float] = {"S": 73.79, "B": 76.73, "L": 77.54}
"""COSMIC on ImageNet by the size of DINOv2."""
