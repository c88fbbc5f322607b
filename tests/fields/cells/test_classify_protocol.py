"""The protocol: who is fitted on what and asked about what, and tables that are means of it."""

from __future__ import annotations

import numpy as np
import pytest

from acclimate.fields.cells.classify.classifiers import build
from acclimate.fields.cells.classify.matrix import Answers, Matrix
from acclimate.fields.cells.classify.protocol import cross_laboratory, stratified_folds
from acclimate.fields.cells.classify.scores import interval, scores
from acclimate.fields.cells.classify.separability import chance, separability

model_selection = pytest.importorskip("sklearn.model_selection")
LABS = ("a", "b", "c")


def laboratories(sizes: tuple[int, ...] = (60, 45, 30)) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    random = np.random.default_rng(0)
    labels = {lab: np.arange(size) % 3 for lab, size in zip(LABS, sizes, strict=True)}
    centres = random.normal(size=(3, 4)) * 1.5
    features = {
        lab: (centres[y] + random.normal(size=(len(y), 4)) + shift).astype(np.float32)
        for shift, (lab, y) in zip((0, 0.5, 1.5), labels.items(), strict=True)
    }
    return features, labels


X, Y = laboratories()


def test_each_fold_answers_what_it_was_not_fitted_on_and_every_other_laboratory_whole() -> None:
    found = cross_laboratory(X, Y, "logistic", classes=3)
    assert found.laboratories == LABS and not found.notes
    for source in LABS:
        cuts = list(model_selection.StratifiedKFold(5, shuffle=True, random_state=1234).split(X[source], Y[source]))
        for fold, (train, held) in enumerate(cuts):
            own = found.answers[source, source][fold]
            assert (own.cells == held).all() and (own.true == Y[source][held]).all()
            fitted = build("logistic").fit(X[source][train], Y[source][train])
            assert (own.predicted == fitted.predict(X[source][held])).all()
            for target in set(LABS) - {source}:
                other = found.answers[source, target][fold]
                assert (other.predicted == fitted.predict(X[target])).all()
                assert (other.true == Y[target]).all()


def test_tables_are_means_over_fits_and_places() -> None:
    found = cross_laboratory(X, Y, "logistic", classes=3)
    each = np.array(
        [[[scores(f.predicted, f.true, 3).macro_f1 for f in found.answers[s, t]] for t in LABS] for s in LABS]
    )
    assert found.mean("macro_f1") == pytest.approx(each.mean(2), abs=1e-12)
    assert found.spread("macro_f1") == pytest.approx(np.sqrt((each**2).mean(2) - each.mean(2) ** 2), abs=1e-7)
    places = each.mean(2)
    assert found.within("macro_f1") == pytest.approx(np.trace(places) / 3)
    assert found.cross("macro_f1") == pytest.approx((places.sum() - np.trace(places)) / 6)
    assert found.average("macro_f1") == pytest.approx(places.mean())
    assert found.confusion("a", "a").sum() == 60 and found.confusion("a", "b").sum() == 5 * 45


def test_one_fit_on_all_cells_of_the_source() -> None:
    found = cross_laboratory(X, Y, "logistic", classes=3, fit_on="all")
    assert len(found.answers["a", "a"]) == 5 and len(found.answers["a", "b"]) == 1
    expected = build("logistic").fit(X["a"], Y["a"]).predict(X["b"])
    assert (found.answers["a", "b"][0].predicted == expected).all()
    assert found.spread("accuracy")[0, 1] == 0


def test_a_class_that_the_source_lacks_is_never_right() -> None:
    labels = {"a": Y["a"] % 2, "b": Y["b"], "c": Y["c"]}
    found = cross_laboratory(X, labels, "logistic", classes=3, folds=2)
    assert (found.confusion("a", "b")[:, 2] == 0).all() and found.confusion("a", "b")[2].sum() == 2 * 15


def test_folds_shrink_to_the_smallest_class_with_a_note() -> None:
    labels = np.repeat([0, 1], [20, 3])
    cuts, notes = stratified_folds(labels, 5, 0)
    assert len(cuts) == 3 and notes == ["3 folds instead of 5, since class 1 has 3 members"]
    assert sorted(np.concatenate([held for _, held in cuts])) == list(range(23))
    assert [labels[held].sum() for _, held in cuts] == [1, 1, 1]
    rare = {**Y, "a": np.r_[2, Y["a"][1:] % 2]}
    found = cross_laboratory(X, rare, "logistic", classes=3)
    assert found.notes == ("a: 2 folds instead of 5, since class 2 has 1 member",)
    assert len(found.answers["a", "b"]) == 2 and found.confusion("a", "a").sum() == 60


def test_the_interval_of_one_fit_is_that_of_its_cells_and_more_cells_make_it_narrower() -> None:
    found = cross_laboratory(X, Y, "logistic", classes=3, fit_on="all")
    (fit,) = found.answers["a", "b"]
    expected = interval(fit.predicted, fit.true, 3, "macro_f1", resamples=4000)
    assert found.interval("a", "b", "macro_f1", resamples=4000) == pytest.approx(expected, abs=0.015)
    folds = cross_laboratory(X, Y, "logistic", classes=3)
    for source, target in (("a", "a"), ("a", "b")):
        low, high = folds.interval(source, target, "accuracy")
        assert low < folds.mean("accuracy")[LABS.index(source), LABS.index(target)] < high


def test_fits_that_say_the_same_add_no_certainty() -> None:
    """The cells are what is drawn: five equal fits leave the interval as wide as one, on a diagonal they do not."""
    random = np.random.default_rng(1)
    true = random.integers(0, 2, 80)
    fit = Answers(np.arange(80), np.where(random.random(80) < 0.75, true, 1 - true), true)
    answers = {("a", "b"): (fit,) * 5, ("b", "a"): (fit,), ("a", "a"): (fit,) * 5, ("b", "b"): (fit,)}
    found = Matrix(("a", "b"), 2, answers)

    def width(source: str, target: str) -> float:
        low, high = found.interval(source, target, "accuracy", resamples=4000)
        return high - low

    assert width("a", "b") == pytest.approx(width("b", "a"), rel=0.05)
    assert width("a", "a") == pytest.approx(width("b", "b") / np.sqrt(5), rel=0.1)


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="expected the same laboratories"):
        cross_laboratory(X, {"a": Y["a"]}, "logistic", classes=3)
    with pytest.raises(ValueError, match="c: The features have 2 columns"):
        cross_laboratory({**X, "c": X["c"][:, :2]}, Y, "logistic", classes=3)
    with pytest.raises(ValueError, match=r"a: .* out of range"):
        cross_laboratory(X, Y, "logistic", classes=2)
    with pytest.raises(ValueError, match="c has no cells"):
        cross_laboratory({**X, "c": X["c"][:0]}, {**Y, "c": Y["c"][:0]}, "logistic", classes=3)
    with pytest.raises(ValueError, match="fit_on must be one of"):
        cross_laboratory(X, Y, "logistic", classes=3, fit_on="some")
    with pytest.raises(KeyError, match="The laboratories: a, b, c"):
        cross_laboratory(X, Y, "logistic", classes=3).counts("a", "z")


def test_separability_is_chance_for_one_cloud_and_one_for_clouds_apart() -> None:
    random = np.random.default_rng(2)
    same = {lab: random.normal(size=(200, 4)) for lab in LABS}
    assert chance(same) == pytest.approx(1 / 3)
    assert separability(same) == pytest.approx(1 / 3, abs=0.08)  # 3.5 standard errors of 600 guesses
    apart = {lab: cloud + 50 * place for place, (lab, cloud) in enumerate(same.items())}
    assert separability(apart) == 1
    unequal = {"a": same["a"], "b": same["b"][:20]}
    assert separability(unequal) == pytest.approx(0.5, abs=0.28)
    assert separability(unequal) == separability(unequal)
    with pytest.raises(ValueError, match="two laboratories or more"):
        separability({"a": same["a"]})
    with pytest.raises(ValueError, match="b has 1 cells"):
        separability({"a": same["a"], "b": same["b"][:1]})
