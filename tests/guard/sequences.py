"""Sequences that tell detectors apart: with no change, with sudden, slow and repeated ones, and of the spread alone."""

from __future__ import annotations

import numpy as np


def sequences() -> dict[str, list[float]]:
    draw = np.random.default_rng(0)
    rates = np.repeat([0.2, 0.25, 0.6], 800)
    return {
        "stationary": draw.normal(size=1500).tolist(),
        "abrupt": np.concatenate([draw.normal(size=1000), draw.normal(2, 1, size=1000)]).tolist(),
        "gradual": (0.3 * draw.normal(size=2000) + np.linspace(0, 2, 2000)).tolist(),
        "spread": np.concatenate([draw.normal(size=800), draw.normal(0, 4, size=1200)]).tolist(),
        "errors": (draw.random(2400) < rates).astype(float).tolist(),
        "constant": [1.0] * 300,
        "far from 0": (1e6 + draw.normal(size=800)).tolist(),
    }
