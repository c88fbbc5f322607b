"""A classifier as a module: the same answers, gradients, and a model that acclimate.adapt takes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import acclimate
from acclimate.fields.cells.classify.classifiers import build
from acclimate.fields.cells.classify.linear import as_module
from acclimate.methods.tent import Tent

pytest.importorskip("sklearn")
RANDOM = np.random.default_rng(5)
X = (RANDOM.normal(size=(120, 6)) * [1, 50, 0.1, 1, 1, 1] + 3).astype(np.float32)
Y = (X[:, 0] > 3).astype(np.int64) + 2 * (X[:, 3] > 3.5)
NEW = (RANDOM.normal(size=(70, 6)) * [2, 90, 0.2, 1, 1, 1] + 3).astype(np.float32)


@pytest.mark.parametrize("labels", [Y, Y % 2], ids=["four", "two"])
@pytest.mark.parametrize("name", ["logistic", "svm-linear", "neural"])
def test_softmax_of_the_module_is_the_classifier(name: str, labels: np.ndarray) -> None:
    classifier = build(name).fit(X, labels)
    total = int(labels.max()) + 1
    exact = as_module(classifier, dtype=torch.float64)(torch.from_numpy(NEW).double())
    np.testing.assert_allclose(exact.softmax(1).detach(), classifier.probabilities(NEW, total), atol=1e-7)
    single = as_module(classifier)(torch.from_numpy(NEW))
    assert single.dtype == torch.float32 and single.shape == (70, total)
    np.testing.assert_allclose(single.softmax(1).detach(), classifier.probabilities(NEW, total), atol=1e-4)
    assert (exact.argmax(1).numpy() == classifier.predict(NEW)).all()


@pytest.mark.parametrize("name", ["logistic", "svm-linear", "neural"])
def test_classes_that_were_never_seen_have_no_probability_and_entropy_is_finite(name: str) -> None:
    classifier = build(name).fit(X, 2 * Y + 1)
    features = torch.from_numpy(NEW).requires_grad_()
    logits = as_module(classifier, classes=10)(features)
    probabilities = logits.softmax(1)
    assert (probabilities[:, [0, 2, 4, 6, 8, 9]] == 0).all()
    np.testing.assert_allclose(probabilities.detach(), classifier.probabilities(NEW, 10), atol=1e-4)
    (-(probabilities * logits.log_softmax(1)).sum(1).mean()).backward()
    gradient = features.grad
    assert gradient is not None and gradient.isfinite().all() and gradient.abs().max() > 0


@pytest.mark.parametrize("name", ["logistic", "svm-linear", "neural"])
def test_gradients_are_those_of_the_function(name: str) -> None:
    head = as_module(build(name).fit(X, Y), dtype=torch.float64)
    features = torch.from_numpy(NEW[:3]).double().requires_grad_()
    assert torch.autograd.gradcheck(head, (features,))
    head(features).logsumexp(1).sum().backward()
    assert all(weight.grad is not None for weight in head.parameters())


def test_it_is_the_head_of_a_model_that_adapts_and_draws_no_random_numbers() -> None:
    before = torch.random.get_rng_state()
    head = as_module(build("logistic").fit(X, Y))
    assert torch.equal(torch.random.get_rng_state(), before)
    model = nn.Sequential(nn.LayerNorm(6), head).eval()
    adapted = acclimate.adapt(model, Tent(learning_rate=1e-2))
    shifted = torch.from_numpy(NEW)
    first = adapted(shifted)
    assert first.shape == (70, 4) and first.isfinite().all()
    assert not torch.equal(adapted(shifted), first)


def test_a_forest_has_no_such_form() -> None:
    with pytest.raises(ValueError, match="Fit logistic, svm-linear or neural"):
        as_module(build("forest").fit(X, Y))
    with pytest.raises(ValueError, match="label 3 was fitted"):
        as_module(build("logistic").fit(X, Y), classes=3)
    with pytest.raises(RuntimeError, match="not fitted"):
        as_module(build("logistic"))
