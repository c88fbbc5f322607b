"""SURGEON's published numbers, with where they were published. Facts, typed in once.

Tables and ablation of Ma et al., CVPR 2025 (arXiv 2503.20354). Errors in percent; caches in MiB, counted as four bytes
for each value that is kept of the inputs of layers that learn: what autograd holds besides is not in them. The column
of caches of the two CIFAR tables is known where the ablation has it (SURGEON), or where the formula gives it (source,
batch norm, Tent, full tuning).
"""

from __future__ import annotations

from collections.abc import Mapping

from acclimate.experiment.reproduce.published import Row, read_rows

__all__ = ["CACHE", "CONTINUAL", "IMPORTANCE", "SURGEON", "published_numbers"]

SURGEON = "SURGEON, CVPR 2025 (arXiv 2503.20354)"

_CIFAR10 = """
source               72.3 65.7 72.9 46.9 54.3 34.8 42.0  25.1 41.3 26.0  9.3 46.7 26.6 58.5 30.3  43.5
bn                   28.3 26.0 36.2 12.6 34.9 13.9 12.0  17.5 17.6 14.9  8.2 13.0 23.5 19.5 27.2  20.4
full_tuning          26.8 22.5 30.9 12.0 31.4 14.0 12.0  17.3 16.5 15.6  9.8 13.3 21.5 16.9 22.5  18.9
tent                 26.1 21.3 29.6 11.8 30.6 13.9 11.6  17.1 16.4 15.9  9.5 13.6 22.2 17.3 21.9  18.6
cotta                24.3 21.3 26.6 11.6 27.6 12.2 10.3  14.8 14.1 12.4  7.5 10.6 18.3 13.4 17.3  16.2
ecotta               23.5 18.5 26.1 11.4 29.3 14.1 11.5  15.7 14.4 13.6  8.6 12.1 19.4 15.2 19.6  16.8
mecta                28.5 20.6 28.8 15.4 32.3 15.7 12.4  19.8 16.4 15.9  8.7 14.5 22.0 19.2 22.5  19.5
mecta_eata           27.1 19.0 27.3 15.6 31.2 15.7 12.3  18.5 15.9 15.1  9.2 14.0 20.6 18.0 20.6  18.6
surgeon              27.0 22.8 31.3 11.8 31.0 13.2 10.9  16.0 15.0 13.8  8.1 11.7 20.6 16.2 22.8  18.1
surgeon+css          26.9 22.6 31.1 11.8 30.8 13.0 10.9  16.1 15.0 13.9  8.2 11.5 20.3 16.0 21.8  18.0
surgeon+css+cr       25.7 21.1 28.6 11.9 28.4 13.0 10.8  15.3 14.2 13.6  8.2 11.7 18.2 14.3 18.7  16.9
surgeon-bn           26.5 21.6 29.9 12.0 30.3 13.5 10.9  15.4 14.5 13.9  8.4 11.7 21.0 15.2 22.2  17.8
surgeon-bn+css       26.0 21.1 29.4 11.9 30.2 13.4 10.9  15.6 14.9 14.5  8.3 12.4 20.8 15.3 21.0  17.7
surgeon-bn+css+cr    25.3 20.0 27.4 12.0 28.0 13.7 11.11 15.4 14.3 14.1  8.2 11.8 19.2 13.5 18.7  16.8
"""
_CIFAR100 = """
source               73.0 68.0 39.4 29.4 54.1 30.8 28.8 39.5 45.8 50.3 29.5 55.1 37.2 74.7 41.2  46.5
bn                   42.3 40.9 43.3 27.7 41.9 29.8 27.9 35.1 35.0 41.7 26.3 30.3 35.6 33.4 41.3  35.5
full_tuning          40.7 36.0 37.7 26.8 38.2 29.5 27.6 34.3 33.3 40.2 28.0 33.0 35.3 32.7 40.5  34.3
tent                 41.0 37.0 38.4 25.9 37.8 28.1 25.7 32.4 31.8 37.4 25.2 29.2 32.8 29.9 38.9  32.8
cotta                40.1 37.7 39.7 26.9 38.0 27.9 26.4 32.8 31.8 40.3 24.7 26.9 32.5 28.3 33.5  32.5
ecotta               40.7 38.1 41.2 26.4 41.1 28.6 26.5 32.8 31.9 38.9 24.8 28.6 33.5 29.7 37.2  33.3
mecta                42.9 39.4 41.3 29.9 42.2 29.2 26.8 36.2 33.9 42.8 25.0 32.8 34.7 32.7 38.1  35.2
mecta_eata           43.4 39.6 41.2 30.4 43.1 29.5 27.9 37.5 34.4 41.6 25.6 32.8 35.2 33.1 38.6  35.5
surgeon              41.7 38.4 39.9 26.3 38.5 28.3 25.9 32.4 31.8 38.9 25.1 29.1 32.7 29.9 37.8  33.1
surgeon+css          41.1 37.2 38.6 26.2 37.2 28.0 25.5 31.5 30.3 36.8 25.0 27.9 31.2 28.0 35.5  32.1
surgeon+css+cr       41.1 36.9 38.4 26.2 36.6 27.9 25.4 31.2 30.0 36.9 24.9 27.9 31.2 27.7 35.0  31.8
surgeon-bn           41.6 38.1 40.1 26.3 38.6 28.0 25.6 32.5 31.6 37.4 24.5 28.0 32.3 29.3 38.2  32.8
surgeon-bn+css       40.4 35.8 38.3 26.2 37.1 27.9 25.2 31.8 30.7 35.1 25.0 27.3 31.5 28.7 37.3  31.8
surgeon-bn+css+cr    40.3 35.6 38.1 26.4 36.7 28.1 25.5 31.2 30.0 35.6 24.8 27.2 31.3 28.2 36.1  31.7
"""
_IMAGENET = {
    "source": (74.4, 196.0),
    "bn": (60.5, 196.0),
    "tent": (55.2, 2714.0),
    "cotta": (54.4, 5317.0),
    "ecotta": (54.2, 1503.0),
    "mecta": (70.1, 651.0),
    "mecta_eata": (64.4, 648.0),
    "surgeon": (55.5, 1125.0),
    "surgeon+css": (55.3, 1084.0),
    "surgeon+css+cr": (54.2, 2201.0),
    "surgeon-bn": (55.2, 912.0),
    "surgeon-bn+css": (54.6, 907.0),
    "surgeon-bn+css+cr": (53.9, 1834.0),
}

CONTINUAL: Mapping[str, Mapping[str, Row]] = {
    "cifar10-c": read_rows(_CIFAR10),
    "cifar100-c": read_rows(_CIFAR100),
    "imagenet-c": {name: (*(None,) * 15, error) for name, (error, _) in _IMAGENET.items()},
}
"""The fifteen corruptions at severity 5, then their mean; of ImageNet-C only the mean, over ten orders."""

IMPORTANCE: Mapping[str, Mapping[str, tuple[float, float]]] = {
    "cifar10-c": {
        "full_tuning": (18.9, 3697.0), "no_gradient": (20.3, 1568.0), "no_memory": (17.8, 704.0),
        "surgeon": (18.1, 325.0),
    },
    "cifar100-c": {
        "full_tuning": (34.3, 5403.0), "no_gradient": (34.0, 2396.0), "no_memory": (32.8, 1108.0),
        "surgeon": (33.1, 820.0),
    },
}  # fmt: skip
"""The ablation: error and cache without gradient importance G, without memory importance M, without and with both."""

CACHE: Mapping[str, Mapping[str, float]] = {
    "cifar10-c": {"source": 125.0, "bn": 125.0, "tent": 1763.0, "cotta": 3697.0},
    "cifar100-c": {"source": 200.0, "bn": 200.0, "tent": 2725.0, "cotta": 5403.0},
    "imagenet-c": {name: cache for name, (_, cache) in _IMAGENET.items()},
}
"""Caches beyond those of the ablation."""


def published_numbers(benchmark: str, name: str) -> tuple[float | None, float | None]:
    """Mean error and cache of a row; None for what is not published."""
    error, cache = IMPORTANCE.get(benchmark, {}).get(name, (None, None))
    row = CONTINUAL.get(benchmark, {}).get(name)
    return (error if row is None else row[-1]), CACHE.get(benchmark, {}).get(name, cache)
