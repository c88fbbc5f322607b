"""SURGEON's published table of segmentation, and its ablation there. Facts, typed in once.

Ma et al., CVPR 2025 (arXiv 2503.20354): Cityscapes to ACDC, 100 minus mean intersection over union in percent, fog,
night, rain and snow in the rounds 1, 4, 7 and 10, then the mean over all ten, then the cache in MiB as that paper
counts it, which is not what autograd holds. DeepLabV3+ has a ResNet-50 and batches of 2, SegFormer is B5, batches of 1.
"""

from __future__ import annotations

from collections.abc import Mapping

from acclimate.experiment.reproduce.published import Row, read_rows

__all__ = ["IMPORTANCE", "ROUNDS", "SEGMENTATION"]

ROUNDS = (1, 4, 7, 10)
"""Those that the table has."""

_DEEPLAB = """
source       38.6 82.4 47.3 53.9 38.6 82.4 47.3 53.9 38.6 82.4 47.3 53.9 38.6 82.4 47.3 53.9 55.6 301
bn           57.5 73.1 55.2 57.8 57.5 73.1 55.2 57.8 57.5 73.1 55.2 57.8 57.5 73.1 55.2 57.8 60.9 301
full_tuning  57.0 72.5 53.3 55.5 52.8 72.1 50.8 54.4 54.7 74.5 52.8 56.9 57.6 77.0 55.7 59.6 59.4 9974
tent         57.4 73.0 54.8 57.3 55.7 72.2 53.1 55.8 54.6 71.7 51.9 54.8 53.8 71.3 51.2 54.2 58.9 4646
cotta        38.7 84.0 47.3 53.8 38.8 84.1 47.3 53.9 38.8 84.1 47.3 53.9 38.8 84.1 47.3 53.9 56.0 9974
mecta        56.9 75.2 52.0 55.2 54.5 74.1 50.3 53.8 53.1 74.0 50.1 53.4 53.1 74.0 50.1 53.4 58.2 1354
surgeon      51.6 72.5 51.8 54.0 48.7 71.7 48.1 50.9 47.1 71.7 46.9 49.4 46.7 72.0 46.6 49.0 54.7 1403
surgeon-bn   51.7 72.4 51.9 54.0 47.7 70.9 48.2 50.0 46.4 70.8 47.2 49.2 45.6 71.1 47.5 49.2 54.4 1300
"""
_SEGFORMER = """
source       30.9 59.7 40.3 42.2 30.9 59.7 40.3 42.2 30.9 59.7 40.3 42.2 30.9 59.7 40.3 42.2 43.3 380
cotta        29.1 58.8 37.6 40.3 29.1 59.0 37.3 40.3 29.1 59.0 37.2 40.3 29.2 59.0 37.2 40.3 41.4 2793
mecta        30.9 59.8 40.0 42.6 33.1 63.1 41.1 45.7 35.2 66.5 46.0 48.2 37.3 69.4 47.1 51.0 47.2 380
surgeon      30.9 59.7 40.0 42.2 30.4 59.1 39.1 41.7 30.0 58.7 38.3 41.3 29.7 58.3 37.9 41.0 42.2 380
"""

SEGMENTATION: Mapping[str, Mapping[str, Row]] = {
    "DeepLabV3+": read_rows(_DEEPLAB),
    "SegFormer-B5": read_rows(_SEGFORMER),
}
"""By network and method: sixteen errors, the mean, the cache."""

IMPORTANCE: Mapping[str, tuple[float, float]] = {
    "surgeon without G": (56.5, 2385.0),
    "surgeon without M": (54.8, 1596.0),
}
"""The ablation on DeepLabV3+: mean error and cache; with neither it is full tuning, with both SURGEON."""
