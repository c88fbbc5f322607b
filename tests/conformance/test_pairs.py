"""Any method with any normalisation: it runs, or says why not and what to choose."""

from __future__ import annotations

import pytest
import torch

import acclimate
from acclimate.core.method import methods

from .declarations import normalization_specs, subjects
from .models import MODELS
from .tools import answers, assert_same, book, flat

SUBJECTS = subjects()
NORMALIZATIONS = normalization_specs()


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("method", methods.classes())
def test_pair(method: str, normalization: str) -> None:
    """Three batches: finite answers, `reset` exact, bad batches without trace."""
    spec, declared = SUBJECTS[method]
    factory, batch = MODELS[declared.model]
    try:
        adapted = acclimate.adapt(factory(), spec, normalization=NORMALIZATIONS[normalization])
    except ValueError as error:
        assert "hoose" in str(error), "a pair that cannot work says what to choose"
        return
    fresh = book(adapted)
    found = answers(adapted, map(batch, range(3)))
    assert all(bool(tensor.isfinite().all()) for output in found for tensor in flat(output))
    after = book(adapted)
    bad = batch(3)
    bad[:] = float("nan")
    adapted(bad)
    assert_same(book(adapted), after, "state after a bad batch")
    adapted.reset()
    assert_same(book(adapted), fresh, "state after reset()")
    assert_same(answers(adapted, map(batch, range(3))), found, "answers after reset()")


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_without_running_statistics(normalization: str) -> None:
    """A batch norm that keeps none: works, or a ValueError says so when the model is wrapped."""
    factory, batch = MODELS["batch_norm_without_statistics"]
    try:
        adapted = acclimate.adapt(factory(), "tent", normalization=NORMALIZATIONS[normalization])
    except ValueError as error:
        assert "running statistics" in str(error) and "hoose" in str(error)
        return
    assert bool(adapted(batch(0)).isfinite().all())


def test_ema_keeps_two_vectors_for_each_layer() -> None:
    factory, batch = MODELS["batch_norm"]
    adapted = acclimate.adapt(factory(), "bn:ema")
    adapted(batch(0))
    channels = sum(m.num_features for m in factory().modules() if isinstance(m, torch.nn.BatchNorm2d))
    assert adapted.memory().state == {"statistics": 2 * 4 * channels}
