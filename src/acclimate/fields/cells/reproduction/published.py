"""The papers' tables: accuracy in %, as printed; M is Matek-19, A Acevedo-20, S a hospital's own pictures."""

from __future__ import annotations

from acclimate.experiment.reproduce.part import Grid, Line

__all__ = ["published"]

_BCSAM = {
    "ResNeXt": (96.10, 8.10, 7.30, 85.70, 49.30),
    "AE-CFE-RF": (83.70, 21.90, 45.10, 65.20, 53.98),
    "BC-SAM-RF": (89.03, 24.07, 51.94, 70.41, 58.86),
    "BC-SAM-SVM (poly)": (90.95, 24.77, 50.67, 72.99, 59.85),
    "BC-SAM-XGBoost": (91.41, 36.84, 49.22, 74.52, 63.00),
    "BC-SAM-SVM (rbf)": (92.51, 47.50, 34.53, 78.27, 63.20),
    "BC-SAM-ANN": (92.28, 41.21, 42.93, 77.74, 63.54),
}
_DORL = {
    "ResNeXt": (96.41, 19.63, 13.51, 9.32, 93.25, 0.81, 38.82),
    "DANN": (82.37, 29.15, 16.71, 34.71, 58.42, 13.99, 39.23),
    "AE-CFE-RF": (83.70, 21.90, 15.23, 45.10, 65.20, 11.63, 40.46),
    "LEAD": (69.23, 52.54, 26.08, 44.36, 64.69, 16.31, 45.54),
    "BC-SAM-RF": (89.54, 23.36, 21.03, 47.21, 72.30, 20.84, 45.71),
    "BC-SAM-XGBoost": (91.94, 34.10, 23.14, 47.63, 76.24, 26.71, 49.96),
    "BC-SAM-SVM (linear)": (92.22, 37.12, 25.68, 37.02, 77.24, 26.46, 49.29),
    "BC-SAM-ANN": (92.79, 39.59, 28.94, 38.84, 79.01, 22.66, 50.31),
    "DoRL-RF": (91.77, 22.73, 22.66, 31.48, 84.65, 23.26, 46.09),
    "DoRL-XGBoost": (94.54, 50.53, 25.98, 38.96, 86.82, 24.83, 53.61),
    "DoRL-SVM (linear)": (94.25, 63.18, 27.61, 55.42, 88.05, 33.65, 60.36),
    "DoRL-LR": (94.95, 50.75, 26.16, 62.91, 88.16, 24.53, 56.38),
    "DoRL-ANN": (95.34, 61.99, 29.73, 49.64, 88.89, 12.69, 57.91),
}


def published() -> list[Grid]:
    """Both tables. The last two averages of the second look swapped in print: the cells give 57.91 and 56.38."""
    head = ("M > M", "M > A", "A > M", "A > A", "average")
    wide = ("M > M", "M > A", "M > S", "A > M", "A > A", "A > S", "average")
    return [
        Grid(key="bcsam-published", head=head, lines=_lines(_BCSAM), title="BC-SAM (arXiv 2408.06716), accuracy, %"),
        Grid(key="dorl-published", head=wide, lines=_lines(_DORL), title="DoRL (arXiv 2408.07467), accuracy, %"),
    ]


def _lines(table: dict[str, tuple[float, ...]]) -> list[Line]:
    return [Line("published", name, [f"{value:.2f}" for value in values]) for name, values in table.items()]
