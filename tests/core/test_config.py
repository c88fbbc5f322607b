"""Settings are frozen, keyword-only and checked."""

from __future__ import annotations

import dataclasses

import pytest

from acclimate.core.config import at_least, between, one_of, positive
from acclimate.core.method import methods
from acclimate.methods.tent import Tent

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("value", [0, -1, NAN, INF, -INF, -0.0])
def test_positive_refuses(value: float) -> None:
    with pytest.raises(ValueError, match=r"rate .* found"):
        positive(rate=value)


@pytest.mark.parametrize("value", [1e-300, 1, 3.5, 10**9])
def test_positive_accepts(value: float) -> None:
    positive(rate=value)


def test_at_least() -> None:
    at_least(0, a=0, b=INF)
    for value in (-1e-9, NAN, -INF):
        with pytest.raises(ValueError, match="a must be at least 0"):
            at_least(0, a=value)


def test_between() -> None:
    between(0, 1, a=0, b=1, c=0.5)
    for value in (-1e-9, 1 + 1e-9, NAN, INF):
        with pytest.raises(ValueError, match="a must lie between 0 and 1"):
            between(0, 1, a=value)


def test_one_of() -> None:
    one_of("x", "y", a="x", b="y")
    with pytest.raises(ValueError, match="a must be one of 'x', 'y', found 'z'"):
        one_of("x", "y", a="z")


@pytest.mark.parametrize("name", methods.classes())
def test_methods_are_frozen_and_keyword_only(name: str) -> None:
    method = methods.classes()[name]()
    assert dataclasses.is_dataclass(method)
    with pytest.raises(dataclasses.FrozenInstanceError):
        method.steps = 2
    with pytest.raises(TypeError):
        type(method)("batch")
    assert method == type(method)() and method.config() == type(method)().config()


def test_steps_are_whole() -> None:
    for steps in (0, -1, 1.5, NAN):
        with pytest.raises(ValueError, match="steps"):
            Tent(steps=steps)
