"""Random sequences of verbs against a naive model that keeps deep copies of exported state and nothing else."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import acclimate
from acclimate.adapted import Adapted
from acclimate.core.method import Method
from acclimate.methods.palm import PALM
from acclimate.methods.rdumb import RDumb

from .models import MODELS
from .tools import assert_same, verdict_deferred

FACTORY, BATCH = MODELS["batch_norm"]

METHODS: dict[str, str | Method] = {
    "tent": "tent",
    "bn:ema": "bn:ema",
    "rdumb": RDumb(reset_every=3, diversity=0.9),
    "palm": PALM(threshold=1e9, normalization="ema"),
    "palm:paper": "palm:paper",
}

VERBS = st.lists(
    st.one_of(
        st.tuples(st.just("step"), st.integers(0, 3)),
        st.tuples(st.just("bad row"), st.integers(0, 3)),
        st.tuples(st.just("bad batch"), st.integers(0, 3)),
        st.tuples(st.just("frozen"), st.integers(0, 3)),
        st.tuples(st.just("source"), st.integers(0, 3)),
        st.tuples(st.just("snapshot"), st.integers(0, 1)),
        st.tuples(st.just("restore"), st.integers(0, 1)),
        st.tuples(st.just("reset"), st.just(0)),
        st.tuples(st.just("save and load"), st.just(0)),
        st.tuples(st.just("memory"), st.integers(0, 3)),
        st.tuples(st.just("merged"), st.just(0)),
    ),
    min_size=4,
    max_size=12,
)


def _exported(adapted: Adapted) -> tuple[dict[str, Any], dict[str, Any]]:
    adapted.settle()
    tensors, scalars = adapted.state.table.export()
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}, copy.deepcopy(scalars)


class Naive:
    """Between verbs it is nothing but a deep copy; for each step it is built anew."""

    def __init__(self, method: str | Method) -> None:
        self.method = method
        self.state = _exported(acclimate.adapt(FACTORY(), method))
        self.kept: dict[int, Any] = {}

    def built(self) -> Adapted:
        adapted = acclimate.adapt(FACTORY(), self.method)
        adapted.state.resume(*copy.deepcopy(self.state))
        return adapted

    def step(self, x: torch.Tensor) -> torch.Tensor:
        adapted = self.built()
        answer = adapted(x)
        self.state = _exported(adapted)
        return answer


def _run(method: str | Method, verbs: list[tuple[str, int]]) -> None:
    adapted, naive = acclimate.adapt(FACTORY(), method), Naive(method)
    good = torch.arange(8) != 2
    for verb, number in verbs:
        x = BATCH(number)
        bad = x.clone()
        bad[slice(None) if verb == "bad batch" else 2] = float("nan")
        if verb == "step":
            assert_same(adapted(x), naive.step(x), "answer")
        elif verb == "bad row":
            assert_same(adapted(bad)[good], naive.step(x[good]), "good rows")
        elif verb == "bad batch":
            adapted(bad)
        elif verb == "frozen":
            with adapted.frozen(), (twin := naive.built()).frozen():
                assert_same(adapted(x), twin(x), "frozen answer")
        elif verb == "source":
            with adapted.source() as source, torch.no_grad():
                assert_same(source(x), FACTORY()(x), "source answer")
        elif verb == "snapshot":
            adapted.snapshot(str(number))
            naive.kept[number] = copy.deepcopy(naive.state)
        elif verb == "restore":
            if number in naive.kept:
                adapted.restore(str(number))
                naive.state = copy.deepcopy(naive.kept[number])
            else:
                with pytest.raises(ValueError, match="no snapshot"):
                    adapted.restore(str(number))
        elif verb == "reset":
            adapted.reset()
            naive.state = Naive(method).state
        elif verb == "memory":
            adapted.memory(x)
        elif verb == "merged":
            adapted.merged()
        else:
            with tempfile.TemporaryDirectory() as folder:
                adapted.save(Path(folder) / "state")
                given_method = None if isinstance(method, str) else method
                loaded = acclimate.load(FACTORY(), Path(folder) / "state", method=given_method)
            assert_same(dict(_flat(loaded)), dict(_flat(adapted)), "loaded state")
            if not adapted._snapshots:
                adapted = loaded
        tensors, scalars = naive.state
        assert_same(dict(_flat(adapted)), {**_bits(tensors), "scalars": _stripped(scalars)}, f"state after {verb}")


def _bits(tensors: dict[str, Any]) -> dict[str, Any]:
    from .tools import bits

    return {name: bits(tensor) for name, tensor in tensors.items()}


def _stripped(scalars: dict[str, Any]) -> str:
    return repr(sorted(scalars["counters"].items())) + repr(scalars["optimizers"])


def _flat(adapted: Adapted) -> list[tuple[str, Any]]:
    tensors, scalars = _exported(adapted)
    return [*_bits(tensors).items(), ("scalars", _stripped(scalars))]


@pytest.mark.parametrize("method", METHODS)
def test_verbs_do_what_a_naive_model_does(method: str) -> None:
    @settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)
    @given(VERBS)
    def run(verbs: list[tuple[str, int]]) -> None:
        _run(METHODS[method], verbs)

    run()


@pytest.mark.parametrize("method", ["tent", "palm"])
def test_verbs_do_the_same_with_verdicts_deferred(method: str) -> None:
    @settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)
    @given(VERBS)
    def run(verbs: list[tuple[str, int]]) -> None:
        with verdict_deferred():
            _run(METHODS[method], verbs)

    run()
