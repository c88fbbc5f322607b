"""Classifiers against scikit-learn itself, with missing classes, bad input, few cells, and as files."""

from __future__ import annotations

import warnings
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

from acclimate.fields.cells.classify import recipes
from acclimate.fields.cells.classify.arrays import Features, Labels
from acclimate.fields.cells.classify.classifiers import CLASSIFIERS, Classifier, build

sklearn = pytest.importorskip("sklearn")
from sklearn.ensemble import RandomForestClassifier  # noqa: E402
from sklearn.linear_model import LogisticRegression  # noqa: E402
from sklearn.neural_network import MLPClassifier  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402
from sklearn.svm import SVC  # noqa: E402


def cells(count: int = 150, classes: int = 3, seed: int = 0, apart: float = 1.0) -> tuple[Features, Labels]:
    """Overlapping clouds; features of very different size, one constant."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    x = random.normal(size=(count, 5)) + apart * np.random.default_rng(99).normal(size=(classes, 5))[labels]
    return np.c_[x * [1, 100, 0.01, 1, 1], np.ones(count)].astype(np.float32), labels


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", ["forest", "neural", "logistic"])
def test_as_scikit_learn_on_scaled_features(name: str, classes: int) -> None:
    (x, y), (new, _) = cells(classes=classes), cells(seed=1, classes=classes)
    scale = StandardScaler().fit(x.astype(np.float64))
    oracle = {
        "forest": RandomForestClassifier(200, max_depth=16, random_state=7),
        "neural": MLPClassifier(max_iter=1000, early_stopping=True, random_state=7),
        "logistic": LogisticRegression(max_iter=500, C=1.0),
    }[name]
    raw = name == "forest"
    oracle.fit(x if raw else scale.transform(x.astype(np.float64)), y)
    expected = oracle.predict_proba(new if raw else scale.transform(new.astype(np.float64)))
    found = build(name, seed=7).fit(x, y)
    np.testing.assert_allclose(found.probabilities(new, classes), expected, atol=1e-6)
    assert (found.predict(new) == expected.argmax(1)).all()


@pytest.mark.parametrize("classes", [2, 3, 4])
@pytest.mark.parametrize(("name", "kernel"), [("svm", "rbf"), ("svm-poly", "poly"), ("svm-linear", "linear")])
def test_support_vector_machines_predict_the_class_that_wins_all_its_duels(
    name: str, kernel: str, classes: int
) -> None:
    """And their decision values follow from scikit-learn's margins: minus the sum of lost duels."""
    (x, y), (new, _) = cells(classes=classes), cells(seed=1, classes=classes)
    scale = StandardScaler().fit(x.astype(np.float64))
    oracle = SVC(kernel=kernel, decision_function_shape="ovo").fit(scale.transform(x.astype(np.float64)), y)
    scaled = scale.transform(new.astype(np.float64))
    margins = oracle.decision_function(scaled).reshape(len(new), -1) * (-1 if classes == 2 else 1)
    expected = np.zeros((len(new), classes))
    for place, (first, second) in enumerate(combinations(range(classes), 2)):
        expected[:, first] += np.minimum(0, margins[:, place])
        expected[:, second] += np.minimum(0, -margins[:, place])
    found = build(name).fit(x, y)
    powers = np.exp(expected)
    np.testing.assert_allclose(found.probabilities(new, classes), powers / powers.sum(1, keepdims=True), atol=1e-5)
    wins_all = expected.max(1) == 0
    assert wins_all.mean() > 0.9
    assert (found.predict(new) == oracle.predict(scaled))[wins_all].all()


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_missing_classes_have_probability_zero_and_are_never_predicted(name: str) -> None:
    x, y = cells(900, apart=2)
    labels = np.array([1, 4, 9])[y]
    found = build(name).fit(torch.from_numpy(x), torch.from_numpy(labels))
    probabilities = found.probabilities(torch.from_numpy(x), 12)
    assert probabilities.dtype == np.float32 and probabilities.shape == (900, 12)
    assert (np.delete(probabilities, [1, 4, 9], axis=1) == 0).all()
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    predicted = found.predict(x)
    assert predicted.dtype == np.int64 and set(predicted) == {1, 4, 9}
    assert (predicted == probabilities.argmax(1)).all()
    assert (predicted == labels).mean() > 0.8
    with pytest.raises(ValueError, match="label 9 was fitted"):
        found.probabilities(x, 9)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_class_with_one_cell_and_two_classes_are_enough(name: str) -> None:
    x, y = cells(30, classes=2, apart=3)
    few = np.where(np.arange(30) == 0, 2, y)
    assert build(name).fit(x, few).probabilities(x, 3).shape == (30, 3)
    assert (build(name).fit(x, y).predict(x) == y).mean() > 0.9


def test_the_neural_network_says_where_it_cannot_stop_early() -> None:
    x, y = cells(30)
    assert any("no early stopping" in note for note in build("neural").fit(x, np.r_[3, y[1:]]).notes)
    assert not build("neural").fit(*cells(150)).notes


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_same_seed_gives_the_same_answers_and_a_file_keeps_every_bit(name: str, tmp_path: Path) -> None:
    (x, y), (new, _) = cells(60), cells(40, seed=1)
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    first, second = build(name, seed=3).fit(x, 2 * y), build(name, seed=3).fit(x, 2 * y)
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002
    assert (first.probabilities(new, 5) == second.probabilities(new, 5)).all()
    if "Hist" in first.family:
        pytest.skip("xgboost is not installed")
    loaded = Classifier.load(first.save(tmp_path / "c.safetensors"))
    assert (loaded.probabilities(new, 5) == first.probabilities(new, 5)).all()
    assert (loaded.predict(new) == first.predict(new)).all()
    assert (loaded.name, loaded.seed, loaded.family, loaded.notes) == (name, 3, first.family, first.notes)


def test_boosting_without_xgboost(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def missing(name: str) -> None:
        assert name == "xgboost"

    monkeypatch.setattr(recipes, "find_spec", missing)
    x, y = cells(60)
    found = build("boosting").fit(x, y)
    assert found.family == "HistGradientBoostingClassifier"
    assert (found.predict(x) == y).mean() > 0.8
    with pytest.raises(ValueError, match=r"Install xgboost .* or save one of forest"):
        found.save(tmp_path / "c.safetensors")


def test_boosting_with_xgboost_is_its_own_classifier() -> None:
    xgboost = pytest.importorskip("xgboost")
    for classes in (2, 3):
        (x, y), (new, _) = cells(classes=classes), cells(seed=1, classes=classes)
        expected = xgboost.XGBClassifier(tree_method="hist", random_state=1234).fit(x, y).predict_proba(new)
        found = build("boosting").fit(x, y)
        assert found.family == "xgboost"
        np.testing.assert_allclose(found.probabilities(new, classes), expected, atol=1e-6)


def test_what_is_refused(tmp_path: Path) -> None:
    x, y = cells(30)
    with pytest.raises(ValueError, match="classifier must be one of 'forest'"):
        build("oak")
    with pytest.raises(ValueError, match=r"the classes \[5\]; expected two classes or more"):
        build("logistic").fit(x, np.full(30, 5))
    spoiled = x.copy()
    spoiled[[3, 8], 0] = np.nan, np.inf
    with pytest.raises(ValueError, match="of 2 of 30 cells hold NaN or infinity, the first in row 3"):
        build("forest").fit(spoiled, y)
    with pytest.raises(ValueError, match="29 labels for 30 cells"):
        build("forest").fit(x, y[1:])
    with pytest.raises(ValueError, match="1 labels are out of range, -1"):
        build("forest").fit(x, np.r_[-1, y[1:]])
    with pytest.raises(RuntimeError, match="not fitted"):
        build("forest").predict(x)
    fitted = build("logistic").fit(x, y)
    with pytest.raises(ValueError, match="have 5 columns; the classifier was fitted on 6"):
        fitted.predict(x[:, 1:])
    with pytest.raises(ValueError, match="1 of 1 cells"):
        fitted.predict(np.full((1, 6), np.nan))
    assert len(fitted.predict(x[:0])) == 0
    with pytest.raises(FileNotFoundError):
        Classifier.load(tmp_path / "none.safetensors")


def test_no_warning_reaches_the_caller_and_a_short_fit_is_noted() -> None:
    x, y = cells(40)
    x[:, 0] += 1e6 * (y == 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build("logistic").fit(x, y)
        notes = build("neural").fit(x[:12], np.r_[3, y[1:12]]).notes
    assert notes
