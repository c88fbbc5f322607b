"""Published errors in percent, with where they were published. Facts, typed in once.

PALM's tables are those of Maharana et al., AAAI 2025 (arXiv 2403.10650). The library's row is that of
mariodoebler/test-time-adaptation, mean over the seeds 1 to 5 under the same protocol: the fairer mark for baselines.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = [
    "CONTINUAL",
    "CORRUPTIONS",
    "FIGURE_3",
    "GRADUAL",
    "LAMBDA",
    "LIBRARY",
    "MODELS",
    "OPTIMIZERS",
    "PALM",
    "PSEUDO_LABEL",
    "SHARE",
    "Row",
    "read_rows",
]

PALM = "PALM, AAAI 2025 (arXiv 2403.10650)"

CORRUPTIONS = (
    "gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "snow",
    "frost", "fog", "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression",
)  # fmt: skip

MODELS = {"cifar10-c": "WideResNet-28-10", "cifar100-c": "ResNeXt-29", "imagenet-c": "ResNet-50"}

_CIFAR10 = """
source       72.3 65.7 72.9 46.9 54.3 34.8 42.0 25.1 41.3 26.0  9.3 46.7 26.6 58.5 30.3  43.5
bn           28.1 26.1 36.3 12.8 35.3 14.2 12.1 17.3 17.4 15.3  8.4 12.6 23.8 19.7 27.3  20.4
tent         24.8 20.6 28.6 14.4 31.1 16.5 14.1 19.1 18.6 18.6 12.2 20.3 25.7 20.8 24.9  20.7
cotta        24.3 21.3 26.6 11.6 27.6 12.2 10.3 14.8 14.1 12.4  7.5 10.6 18.3 13.4 17.3  16.2
ecotta       23.8 18.7 25.7 11.5 29.8 13.3 11.3 15.3 15.0 13.0  7.9 11.3 20.2 15.1 20.5  16.8
adacontrast  29.1 22.5 30.0 14.0 32.7 14.1 12.0 16.6 14.9 14.4  8.1 10.0 21.9 17.7 20.0  18.5
surgical     27.7 24.1 33.8 12.2 33.1 13.1 10.9 15.9 15.6 13.8  7.8 10.8 21.2 16.6 22.9  18.6
dss          24.1 21.3 25.4 11.7 26.9 12.2 10.5 14.5 14.1 12.5  7.8 10.8 18.0 13.1 17.3  16.0
law          24.7 18.9 25.5 12.9 26.7 15.0 11.8 15.1 14.7 15.9 10.1 13.8 19.4 14.7 18.3  17.2
palm         25.8 18.1 22.7 12.3 25.3 13.1 10.7 13.5 13.1 12.2  8.5 11.8 17.9 12.0 15.4  15.5
"""
_CIFAR100 = """
source       73.0 68.0 39.4 29.3 54.1 30.8 28.8 39.5 45.8 50.3 29.5 55.1 37.2 74.7 41.2  46.4
bn           42.1 40.7 42.7 27.6 41.9 29.7 27.9 34.9 35.0 41.5 26.5 30.3 35.7 32.9 41.2  35.4
tent         37.2 35.8 41.7 37.9 51.2 48.3 48.5 58.4 63.7 71.1 70.4 82.3 88.0 88.5 90.4  60.9
cotta        40.1 37.7 39.7 26.9 38.0 27.9 26.4 32.8 31.8 40.3 24.7 26.9 32.5 28.3 33.5  32.5
adacontrast  42.3 36.8 38.6 27.7 40.1 29.1 27.5 32.9 30.7 38.2 25.9 28.3 33.9 33.3 36.2  33.4
surgical     40.7 36.3 37.8 25.5 39.0 27.6 25.2 32.2 30.4 37.3 23.7 26.8 32.3 27.6 37.2  32.0
dss          39.7 36.0 37.2 26.3 35.6 27.5 25.1 31.4 30.0 37.8 24.2 26.0 30.0 26.3 31.1  30.9
law          41.0 36.7 38.3 25.6 37.0 27.8 25.2 30.7 30.0 37.3 24.4 27.6 31.2 27.8 34.9  31.7
palm         37.3 32.5 34.9 26.2 35.3 27.5 24.6 28.8 29.1 34.1 23.5 26.9 31.2 26.6 34.1  30.1
"""
_IMAGENET = """
source       97.8 97.1 98.2 81.7 89.8 85.2 78.0 83.5 77.1 75.9 41.3 94.5 82.5 79.3 68.6  82.0
bn           85.0 83.7 85.0 84.7 84.3 73.7 61.2 66.0 68.2 52.1 34.9 82.7 55.9 51.3 59.8  68.6
tent         81.6 74.6 72.7 77.6 73.8 65.5 55.3 61.6 63.0 51.7 38.2 72.1 50.8 47.4 53.3  62.6
cotta        84.7 82.1 80.6 81.3 79.0 68.6 57.5 60.3 60.5 48.3 36.6 66.1 47.2 41.2 46.0  62.7
ecotta       - - - - - - - - - - - - - - -  63.4
adacontrast  82.9 80.9 78.4 81.4 78.7 72.9 64.0 63.5 64.5 53.5 38.4 66.7 54.6 49.4 53.0  65.5
surgical     83.4 79.5 77.2 86.1 82.4 72.2 61.1 63.1 64.7 51.2 35.9 72.9 56.2 46.7 50.2  65.5
dss          84.6 80.4 78.7 83.9 79.8 74.9 62.9 62.8 62.9 49.7 37.4 71.0 49.5 42.9 48.2  64.6
law          81.8 75.0 72.1 77.4 73.2 63.9 54.6 57.9 61.0 50.1 36.3 68.6 49.0 46.2 49.1  61.0
palm         81.1 73.3 70.8 77.0 71.8 62.3 53.9 56.7 60.8 50.4 36.2 65.9 48.0 45.2 48.0  60.1
"""

Row = tuple[float | None, ...]


def read_rows(text: str) -> dict[str, Row]:
    """A table typed in as text: a name and its numbers in each line, a dash for what is not published."""
    lines = [line.split() for line in text.strip().splitlines()]
    return {name: tuple(None if cell == "-" else float(cell) for cell in cells) for name, *cells in lines}


CONTINUAL: Mapping[str, Mapping[str, Row]] = {
    "cifar10-c": read_rows(_CIFAR10),
    "cifar100-c": read_rows(_CIFAR100),
    "imagenet-c": read_rows(_IMAGENET),
}
"""Tables 1, 2 and 3: the fifteen corruptions at severity 5, then their mean."""

LIBRARY: Mapping[str, Mapping[str, float]] = {
    "cifar10-c": {
        "source": 43.5, "bn": 20.4, "tent": 20.0, "cotta": 16.5, "adacontrast": 18.5, "roid": 16.2, "eata": 17.9,
        "sar": 20.4, "rotta": 19.3, "lame": 64.3,
    },
    "cifar100-c": {
        "source": 46.4, "bn": 35.4, "tent": 62.2, "cotta": 32.8, "adacontrast": 33.5, "roid": 29.3, "eata": 32.2,
        "sar": 32.0, "rotta": 34.8, "lame": 98.5,
    },
    "imagenet-c": {
        "source": 82.0, "bn": 68.6, "tent": 62.6, "cotta": 63.1, "adacontrast": 65.5, "roid": 54.5, "eata": 58.0,
        "sar": 61.9, "rotta": 67.3, "lame": 93.5,
    },
}  # fmt: skip
"""Means of the same protocol in the benchmark library, over five seeds."""

_GRADUAL = ("source", "bn", "tent", "cotta", "adacontrast", "surgical", "law", "palm")
GRADUAL: Mapping[str, Mapping[str, float]] = {
    "cifar10-c": dict(zip(_GRADUAL, (24.7, 13.7, 20.4, 10.9, 12.1, 11.3, 10.9, 9.5), strict=True)),
    "cifar100-c": dict(zip(_GRADUAL, (33.6, 29.9, 74.8, 26.3, 33.0, 25.3, 27.2, 26.1), strict=True)),
    "imagenet-c": dict(zip(_GRADUAL, (58.4, 48.3, 46.4, 38.8, 66.3, 41.4, 40.5, 38.5), strict=True)),
}
"""Table 4: the mean over all severities."""

SHARE: Mapping[str, Mapping[str, float]] = {
    "cifar10-c": {"palm": 4.34, "cotta": 100.0},
    "cifar100-c": {"palm": 6.65, "cotta": 100.0},
    "imagenet-c": {"palm": 17.21, "cotta": 100.0},
}
"""Table 5: the average share of adapted parameters of a task, percent."""

OPTIMIZERS: Mapping[str, Mapping[str, float]] = {
    "cifar10-c": {"palm": 15.5, "lars": 18.9, "prodigy": 20.4, "adafactor": 73.8},
    "cifar100-c": {"palm": 30.1, "lars": 34.1, "prodigy": 35.5, "adafactor": 97.7},
    "imagenet-c": {"palm": 60.1, "lars": 62.0, "prodigy": 68.6, "adafactor": 99.2},
}
"""Table 6."""

PSEUDO_LABEL: Mapping[str, Mapping[str, float]] = {
    "cifar10-c": {"pseudo_label": 17.9, "uniform": 15.5},
    "cifar100-c": {"pseudo_label": 33.8, "uniform": 30.1},
    "imagenet-c": {"pseudo_label": 68.6, "uniform": 60.1},
}
"""Table 7."""

_LAMBDAS = (0.0, 0.01, 0.05, 0.1, 0.5, 1.0)
LAMBDA: Mapping[str, Mapping[float, float]] = {
    "cifar10-c": dict(zip(_LAMBDAS, (16.8, 15.5, 16.4, 17.0, 17.6, 17.9), strict=True)),
    "cifar100-c": dict(zip(_LAMBDAS, (30.4, 30.1, 30.5, 30.5, 30.6, 30.7), strict=True)),
    "imagenet-c": dict(zip(_LAMBDAS, (63.9, 60.1, 60.3, 60.4, 60.4, 60.4), strict=True)),
}
"""Table 8, by lambda before the released code multiplies it by the number of classes."""

FIGURE_3: Mapping[str, str] = {
    "cifar10-c": "alpha best at 0.5 and collapsing at 0, T best at 50",
    "cifar100-c": "alpha best at 0.9 and collapsing at 0, T best at 100",
    "imagenet-c": "alpha best at 0.5 and collapsing at 0, error falling as T grows",
}
"""What the paper says about figure 3, which has curves and no numbers."""
