"""What `adapt` and a call refuse, in words that say what to do."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import nn

import acclimate
from acclimate.methods.tent import Tent
from acclimate.normalization.batch import BatchStatistics
from conformance.models import MODELS
from conformance.tools import assert_same, book

FACTORY, BATCH = MODELS["batch_norm"]


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"method": "tnet"}, "tent"),
        ({"method": "tent:cifra"}, "cifar"),
        ({"method": Tent}, "instance|Tent"),
        ({"method": 3}, "method"),
        ({"method": None}, "method"),
        ({"method": BatchStatistics()}, "method"),
        ({"method": "tent", "normalization": "bach"}, "batch"),
        ({"method": "tent", "normalization": Tent()}, "normali[sz]ation"),
        ({"method": "tent", "answer": "now"}, "before"),
        ({"method": "tent", "seed": "a"}, "seed"),
    ],
    ids=["typo", "preset", "class", "number", "nothing", "normalization", "other typo", "method", "answer", "seed"],
)
def test_wrong_arguments_are_value_errors(arguments: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        acclimate.adapt(FACTORY(), **arguments)


@pytest.mark.parametrize("model", [None, torch.nn.functional.relu, "resnet", torch.zeros(3)])
def test_only_modules_adapt(model: Any) -> None:
    with pytest.raises(ValueError, match="Module"):
        acclimate.adapt(model, "tent")


def test_an_adapted_model_is_not_adapted_again() -> None:
    with pytest.raises(ValueError, match="unwrap"):
        acclimate.adapt(acclimate.adapt(FACTORY(), "tent"), "tent")


def test_models_that_cannot_be_cloned_say_why() -> None:
    locked = FACTORY()
    locked.lock = threading.Lock()
    with pytest.raises(ValueError, match="lock"):
        acclimate.adapt(locked, "tent")
    lazy = nn.Sequential(nn.LazyConv2d(4, 3), nn.BatchNorm2d(4))
    with pytest.raises(ValueError, match="not initialised"):
        acclimate.adapt(lazy, "tent")
    with pytest.raises(ValueError, match="Sequential"):
        acclimate.adapt(nn.BatchNorm2d(3), "bn")
    grown = FACTORY()
    grown.register_buffer("scale", grown.head.weight * 2)
    with pytest.raises(ValueError, match="graph"):
        acclimate.adapt(grown, "tent")


def test_a_model_with_broken_weights_is_refused() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    with torch.no_grad():
        net[0].weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        acclimate.adapt(net, "tent")


def test_hyper_parameters_out_of_range() -> None:
    for wrong in ({"learning_rate": 0}, {"learning_rate": float("nan")}, {"steps": 0}, {"normalization": "x"}):
        with pytest.raises(ValueError, match=next(iter(wrong)).replace("z", ".")):
            Tent(**wrong)


def test_calls_without_a_batch_say_what_is_expected() -> None:
    adapted = acclimate.adapt(FACTORY(), "tent")
    for args, match in [
        ((), "tensor"),
        (("cat",), "tensor"),
        ((BATCH(0)[:0],), "empty"),
        ((torch.tensor(1.0),), "batch"),
        (((BATCH(0) * 255).byte(),), "255"),
        ((BATCH(0)[:, :2],), r"N, 3, H, W"),
        ((BATCH(0).double(),), "float32"),
        ((BATCH(0)[0],), r"N, 3, H, W|rows"),
    ]:
        with pytest.raises(ValueError, match=match):
            adapted(*args)
    assert_same(book(adapted), book(acclimate.adapt(FACTORY(), "tent")), "state after refused calls")


def test_a_single_output_is_refused() -> None:
    """Entropy over one class is 0 whatever the model says: nothing could ever be learned."""
    adapted = acclimate.adapt(nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 1)), "tent")
    with pytest.raises(ValueError, match="one class"):
        adapted(torch.rand(6, 3))
    assert adapted.state.batches == 0
