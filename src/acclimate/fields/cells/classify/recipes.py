"""How each classifier is fitted: the settings of the papers, and what to do where few cells forbid them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib.util import find_spec
from itertools import combinations
from math import ceil
from typing import Any

import numpy as np

from acclimate.fields.cells.classify.arrays import Features, Floats, Labels
from acclimate.fields.cells.classify.duels import KernelDuels, LinearDuels
from acclimate.fields.cells.classify.fitted import Fitted, Scaler
from acclimate.fields.cells.classify.networks import Network
from acclimate.fields.cells.classify.trees import Boosted, Forest, HistogramBoosted
from acclimate.streams.shared import require

__all__ = ["FAMILIES", "RECIPES", "boosting_family"]

_THREADS = 2
"""Fixed, so that an answer does not depend on the machine's processors."""

Recipe = Callable[[Features, Labels, int, list[str]], Fitted]
"""Features `[N, D]`, labels 0..K-1 of which each occurs, seed, and notes to add to."""

FAMILIES = {
    "forest": "random forest",
    "svm": "support vector machine, rbf kernel",
    "svm-poly": "support vector machine, cubic kernel",
    "svm-linear": "support vector machine, linear",
    "neural": "neural network",
    "logistic": "logistic regression",
}
"""Names for people; that of boosting is found by `boosting_family`."""


def boosting_family() -> str:
    """`xgboost` where it is installed, else `HistGradientBoostingClassifier`."""
    return "xgboost" if find_spec("xgboost") else "HistGradientBoostingClassifier"


def _sklearn(module: str) -> Any:
    return require(f"sklearn.{module}", "A classifier of cells", "cells")


def _quietly(estimator: Any, features: Any, labels: Labels, notes: list[str]) -> Any:
    """Fit; that it stopped at its last iteration becomes a note."""
    convergence: type[Warning] = _sklearn("exceptions").ConvergenceWarning
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always", convergence)
        estimator.fit(features, labels)
    if any(issubclass(warning.category, convergence) for warning in seen):
        notes.append(f"stopped after {estimator.max_iter} iterations, before it converged")
    return estimator


def _forest(features: Features, labels: Labels, seed: int, notes: list[str]) -> Fitted:
    build = _sklearn("ensemble").RandomForestClassifier
    return Forest.fitted(build(200, max_depth=16, random_state=seed, n_jobs=_THREADS).fit(features, labels))


def _boosting(features: Features, labels: Labels, seed: int, notes: list[str]) -> Fitted:
    if boosting_family() == "xgboost":
        build = require("xgboost", "Gradient boosting", "cells").XGBClassifier
        estimator = build(tree_method="hist", random_state=seed, n_jobs=_THREADS).fit(features, labels)
        return Boosted(bytes(estimator.get_booster().save_raw("ubj")), _THREADS)
    stop = "auto" if _can_hold_out(labels) else False
    build = _sklearn("ensemble").HistGradientBoostingClassifier
    return HistogramBoosted(build(random_state=seed, early_stopping=stop).fit(features, labels))


def _svm(kernel: str) -> Recipe:
    def fit(features: Features, labels: Labels, seed: int, notes: list[str]) -> Fitted:
        scaler = Scaler.fit(features)
        scaled = scaler(features)
        build = _sklearn("svm").SVC
        machine = build(C=1.0, kernel=kernel, degree=3, gamma="scale", random_state=seed).fit(scaled, labels)
        classes = len(machine.classes_)
        sign = -1.0 if classes == 2 else 1.0  # scikit-learn turns the single margin around
        offset, shares = sign * machine.intercept_, sign * _shares(machine)
        if kernel == "linear":
            return LinearDuels(scaler, shares.T @ machine.support_vectors_, offset, classes)
        spread = scaled.var()
        gamma = 1 / (scaled.shape[1] * spread) if spread > 0 else 1.0
        degree = 3 if kernel == "poly" else 0
        return KernelDuels(scaler, machine.support_vectors_, shares, offset, gamma, degree, classes)

    return fit


def _shares(machine: Any) -> Floats:
    """What each support vector adds to each margin, `[V, P]`: row j - 1 of the coefficients is for the duel with j."""
    ends = np.cumsum(machine.n_support_)
    own = [slice(end - count, end) for end, count in zip(ends, machine.n_support_, strict=True)]
    pairs = list(combinations(range(len(own)), 2))
    shares = np.zeros((ends[-1], len(pairs)))
    for place, (first, second) in enumerate(pairs):
        shares[own[first], place] = machine.dual_coef_[second - 1, own[first]]
        shares[own[second], place] = machine.dual_coef_[first, own[second]]
    return shares


def _neural(features: Features, labels: Labels, seed: int, notes: list[str]) -> Fitted:
    stop = _can_hold_out(labels)
    if not stop:
        notes.append("no early stopping: too few cells to hold out a tenth with every class in it")
    scaler = Scaler.fit(features)
    build = _sklearn("neural_network").MLPClassifier
    network = _quietly(build(max_iter=1000, early_stopping=stop, random_state=seed), scaler(features), labels, notes)
    return Network.ending(scaler, [weights.T for weights in network.coefs_], network.intercepts_)


def _logistic(features: Features, labels: Labels, seed: int, notes: list[str]) -> Fitted:
    scaler = Scaler.fit(features)
    line = _quietly(_sklearn("linear_model").LogisticRegression(C=1.0, max_iter=500), scaler(features), labels, notes)
    return Network.ending(scaler, [line.coef_], [line.intercept_])


def _can_hold_out(labels: Labels) -> bool:
    """Whether a stratified tenth can be held out: two members of each class, and a place for each on both sides."""
    counts = np.bincount(labels)
    held = ceil(0.1 * len(labels))
    return counts.min() >= 2 and min(held, len(labels) - held) >= len(counts)


RECIPES: dict[str, Recipe] = {
    "forest": _forest,
    "boosting": _boosting,
    "svm": _svm("rbf"),
    "svm-poly": _svm("poly"),
    "svm-linear": _svm("linear"),
    "neural": _neural,
    "logistic": _logistic,
}
