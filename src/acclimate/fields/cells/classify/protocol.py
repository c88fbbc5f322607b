"""The papers' protocol: cross-validation within each laboratory, and from each laboratory to each other."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping

import numpy as np

from acclimate.core.config import one_of, whole
from acclimate.fields.cells.classify.arrays import Array, Features, Labels, as_features, as_labels
from acclimate.fields.cells.classify.classifiers import build
from acclimate.fields.cells.classify.matrix import Answers, Matrix
from acclimate.streams.shared import require

__all__ = ["Matrix", "cross_laboratory", "stratified_folds"]


def cross_laboratory(
    features: Mapping[str, Array],
    labels: Mapping[str, Array],
    classifier: str,
    *,
    classes: int,
    folds: int = 5,
    seed: int = 1234,
    fit_on: str = "folds",
) -> Matrix:
    """Train on each laboratory and test on all.

    Each source is cut into stratified folds, shuffled by the seed. A classifier is fitted on all folds but one; it
    answers the fold that was held out and, as in the papers, the whole of every other laboratory.

    Arguments:
        features: of each laboratory's cells, finite, `[N, D]` with one D.
        labels: of the same cells, whole numbers in `0..classes - 1`, `[N]`.
        classifier: a name in `CLASSIFIERS`.
        classes: how many, 2 or more.
        folds: 2 or more. A laboratory with a class of fewer members gets that many folds, 2 at least, with a note.
        seed: of folds and classifiers.
        fit_on: "folds", or "all" for a single fit on the whole source for the other laboratories.

    Raises:
        ValueError: laboratories that differ in features and labels, an argument out of range, or a source (or all but
            a fold of it) with a single class.
    """
    one_of("folds", "all", fit_on=fit_on)
    whole(2, classes=classes, folds=folds)
    x, y = _checked(features, labels, classes)
    answers: dict[tuple[str, str], list[Answers]] = {(source, target): [] for source in x for target in x}
    notes: list[str] = []
    for source in x:
        cuts, note = stratified_folds(y[source], folds, seed)
        notes += [f"{source}: {text}" for text in note]
        training = [(train, held) for train, held in cuts]
        if fit_on == "all":
            training.append((np.arange(len(y[source])), np.empty(0, dtype=np.int64)))
        for train, held in training:
            fitted = build(classifier, seed=seed).fit(x[source][train], y[source][train])
            notes += [text for text in (f"{source}: {note}" for note in fitted.notes) if text not in notes]
            for target in _targets(source, x, own=len(held) > 0, others=fit_on == "folds" or len(held) == 0):
                cells = held if target == source else np.arange(len(y[target]))
                predicted = fitted.predict(x[target][cells])
                answers[source, target].append(Answers(cells, predicted, y[target][cells]))
    return Matrix(tuple(x), classes, {pair: tuple(found) for pair, found in answers.items()}, tuple(notes))


def _targets(source: str, laboratories: Mapping[str, Features], *, own: bool, others: bool) -> Iterator[str]:
    for name in laboratories:
        if own if name == source else others:
            yield name


def stratified_folds(labels: Labels, folds: int, seed: int) -> tuple[list[tuple[Labels, Labels]], list[str]]:
    """Positions to train on and to hold out for each fold, and notes.

    Every class is spread evenly over the folds. There are no more folds than the smallest class has members, but two at
    least: a class with one member is in one of both parts only.

    Arguments:
        labels: whole numbers, `[N]`.
        folds: how many at most, 2 or more.
        seed: of the shuffle.

    Raises:
        ValueError: every class has a single member.
    """
    classes, counts = np.unique(labels, return_counts=True)
    smallest = int(counts.min())
    used = max(2, min(folds, smallest))
    if counts.max() < 2:
        raise ValueError(f"Each of the {len(counts)} classes has a single cell. Add cells: folds need two of a class.")
    notes: list[str] = []
    if used < folds:
        few = f"class {classes[counts.argmin()]} has {smallest} {'member' if smallest == 1 else 'members'}"
        notes.append(f"{used} folds instead of {folds}, since {few}")
    build = require("sklearn.model_selection", "Cross-validation", "cells").StratifiedKFold
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        cuts = [(np.asarray(train), np.asarray(held)) for train, held in _split(build, used, seed, labels)]
    return cuts, notes


def _split(build: type, folds: int, seed: int, labels: Labels) -> Iterator[tuple[Labels, Labels]]:
    return build(folds, shuffle=True, random_state=seed).split(np.zeros(len(labels)), labels)


def _checked(
    features: Mapping[str, Array], labels: Mapping[str, Array], classes: int
) -> tuple[dict[str, Features], dict[str, Labels]]:
    if not features or features.keys() != labels.keys():
        raise ValueError(
            f"There are features of {sorted(features) or 'no laboratory'} and labels of {sorted(labels)}; expected the "
            "same laboratories, one or more."
        )
    x: dict[str, Features] = {}
    y: dict[str, Labels] = {}
    for name, each in features.items():
        try:
            x[name] = as_features(each, next(iter(x.values())).shape[1] if x else None)
            y[name] = as_labels(labels[name], len(x[name]), classes)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        if not len(y[name]):
            raise ValueError(f"{name} has no cells. Leave it out.")
    return x, y
