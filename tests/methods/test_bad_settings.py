"""Settings and inputs that a method cannot use are refused at once, in words."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import acclimate
from acclimate.anatomy import everything
from acclimate.core.config import at_least, between, positive, whole, whole_or_none
from acclimate.core.method import methods
from methods.reference import small_net, stream

COUNTS = {
    "rotta": ("capacity", "update_every"),
    "note": ("capacity", "update_every"),
    "t3a": ("filter_size",),
    "lame": ("neighbours", "iterations"),
    "memo": ("copies",),
    "cotta": ("copies",),
    "adacontrast": ("queue_size", "neighbours", "warm_up"),
    "ecotta": ("parts", "warm_up_batch"),
    "eata": ("samples", "batch_size"),
    "foa": ("samples", "batch_size", "prompts", "rows_at_once"),
    "rdumb": ("reset_every",),
    "tent": ("steps",),
}
OPTIONAL = {
    "cotta": ("rows_at_once",),
    "nctta": ("top_k",),
    "sar": ("full_batch",),
    "deyo": ("full_batch",),
    "roid": ("batch_size", "classes"),
    **dict.fromkeys(("dss", "eta", "eata", "rotta", "note", "rdumb", "adacontrast"), ("classes",)),
}
VIEWS = {
    **dict.fromkeys(("cotta", "dss", "palm", "law", "surgical", "rotta", "roid", "memo"), ("views",)),
    "adacontrast": ("weak", "strong"),
}


def _pairs(table: dict[str, tuple[str, ...]]) -> list[tuple[str, str]]:
    return [(method, field) for method, fields in table.items() for field in fields]


def _build(method: str, **settings: Any) -> Any:
    return methods.classes()[method](**settings)


@pytest.mark.parametrize("value", [0, -1, 2.5, 4.0, True, "4", None])
@pytest.mark.parametrize(("method", "field"), _pairs(COUNTS))
def test_counts_are_whole(method: str, field: str, value: Any) -> None:
    assert getattr(_build(method, **{field: 7}), field) == 7
    with pytest.raises(ValueError, match=rf"{field} must be a whole number of at least [12], found"):
        _build(method, **{field: value})


@pytest.mark.parametrize(("method", "field"), _pairs(OPTIONAL))
def test_optional_counts_are_none_or_whole(method: str, field: str) -> None:
    for value in (None, 1, 7):
        assert getattr(_build(method, **{field: value}), field) == value
    for value in (0, -1, 2.5, False):
        with pytest.raises(ValueError, match=rf"{field} must be a whole number of at least 1, found {value}"):
            _build(method, **{field: value})


@pytest.mark.parametrize("value", [3, "368", (3, 2.5), (-1,), None])
def test_decay_epochs_are_whole_numbers(value: Any) -> None:
    with pytest.raises(ValueError, match=r"decay_epochs must be a .*whole number.*found"):
        _build("ecotta", decay_epochs=value)
    assert _build("ecotta", decay_epochs=[3, 6], warm_up_epochs=0).decay_epochs == [3, 6]


@pytest.mark.parametrize("value", ["1e-3", None, [1], 1j])
def test_what_is_no_number_is_a_value_error(value: Any) -> None:
    for check in (positive, lambda **v: at_least(0, **v), lambda **v: between(0, 1, **v), lambda **v: whole(1, **v)):
        with pytest.raises(ValueError, match=r"rate must .*found"):
            check(rate=value)
    with pytest.raises(ValueError, match="learning_rate must be a finite number above 0"):
        _build("tent", learning_rate=value)
    whole_or_none(1, rate=None)


@pytest.mark.parametrize("momentum", [1, 1.0, 1.5, -0.1])
def test_momentum_of_shot_is_below_one(momentum: float) -> None:
    with pytest.raises(ValueError, match="momentum must"):
        _build("shot", momentum=momentum)


@pytest.mark.parametrize(("method", "field"), _pairs(VIEWS))
def test_views_are_callable(method: str, field: str) -> None:
    with pytest.raises(ValueError, match=rf"{field} must be a callable \(x, generator\) -> x, found None"):
        _build(method, **{field: None})


@pytest.mark.parametrize("method", [name for name in VIEWS if name != "dss"])
def test_views_of_ones_own_take_any_range(method: str) -> None:
    own = {field: lambda x, generator: x * 0.9 for field in VIEWS[method]}
    settings = own | {"select": everything} | ({"crop": "none", "copies": 2} if method == "memo" else {})
    x = next(iter(stream(1, 16))) * 4 - 2
    assert acclimate.adapt(small_net(), _build(method, **settings))(x).isfinite().all()
    named = "weak= and strong= of" if method == "adacontrast" else "views= of"
    with pytest.raises(ValueError, match=rf"\[0, 1\], found values from -.*pass {named} your own, or choose"):
        acclimate.adapt(small_net(), _build(method, select=everything))(x)


def test_mirroring_takes_any_range() -> None:
    method = _build("adacontrast", strong=lambda x, generator: x)
    assert acclimate.adapt(small_net(), method)(next(iter(stream(1, 16))) * 4 - 2).isfinite().all()


@pytest.mark.parametrize("method", [*VIEWS, "deyo"])
def test_what_are_no_images_are_named_by_their_shape(method: str) -> None:
    net = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 5))
    built = _build(method, select=everything)
    with pytest.raises(
        ValueError, match=r"images \[N, C, H, W\].*found (shape )?\[16, 6\].*[Cc]hoose a method without"
    ) as e:
        acclimate.adapt(net, built)(torch.rand(16, 6))
    own = {"deyo": "", "adacontrast": "Pass weak= and strong= of your own"}.get(method, "Pass views= of your own")
    assert own in str(e.value)
