"""What comes in: which tensor is the input, and which of its rows are fit to learn from."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from acclimate.core.inputs import LARGEST, Call, fit_rows

X = torch.rand(5, 3, 4, 4, generator=torch.Generator().manual_seed(0))
IDS = torch.arange(10).view(5, 2)


def test_floating_point_is_preferred() -> None:
    assert Call.of((IDS, X), {}, indices=True).x is X
    assert Call.of((IDS,), {"pixel_values": X}, indices=True).x is X
    assert Call.of((IDS,), {}, indices=True).x is IDS
    assert Call.of(("text", X), {}, indices=False).x is X


@pytest.mark.parametrize(
    ("args", "match"),
    [
        ((), "nothing"),
        ((1, "a"), "int, str"),
        ((torch.tensor(2.0),), "batch"),
        ((torch.zeros(3),), r"x\[None\]"),
        ((X[:0],), "empty"),
        (((X * 255).byte(),), "/ 255"),
        ((IDS,), "int64"),
        ((X > 0.5,), "bool"),
    ],
)
def test_refused(args: tuple[object, ...], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Call.of(args, {}, indices=False)


def test_rows_of_everything_that_has_them() -> None:
    mask = torch.tensor([True, False, True, True, False])
    call = Call.of((X, "text"), {"ids": IDS, "scale": torch.ones(2), "scalar": torch.tensor(1.0)}, indices=False)
    few = call.rows(mask)
    assert torch.equal(few.x, X[mask]) and torch.equal(few.kwargs["ids"], IDS[mask])
    assert few.kwargs["scale"].shape == (2,) and few.args[1] == "text" and few.kwargs["scalar"].ndim == 0
    assert torch.equal(call.x, X), "the original is left alone"


def test_replaced_in_its_place() -> None:
    new = torch.zeros(2, 3, 4, 4)
    assert Call.of((IDS, X), {}, indices=True).with_input(new).args == (IDS, new)
    assert Call.of((), {"x": X}, indices=True).with_input(new).kwargs["x"] is new


def test_inference_tensors_thaw() -> None:
    with torch.inference_mode():
        x = torch.rand(2, 3)
    call = Call.of((x,), {"y": x, "n": 1}, indices=False).ordinary()
    assert not call.x.is_inference() and not call.kwargs["y"].is_inference() and torch.equal(call.x, x.clone())


def _fit(x: Tensor) -> list[bool]:
    fit, _ = fit_rows(x)
    return [True] * len(x) if fit is None else fit.tolist()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e30, -1e30, LARGEST * 1.01])
@pytest.mark.parametrize("place", [(0, 0, 0), (2, 3, 3)])
def test_one_value_spoils_its_row_only(value: float, place: tuple[int, ...]) -> None:
    x = X.clone()
    x[(1, *place)] = value
    assert _fit(x) == [True, False, True, True, True]
    assert fit_rows(x)[1] == (float(X[[0, 2, 3, 4]].min()), float(X[[0, 2, 3, 4]].max()))


def test_constant_images_are_unfit_but_constant_rows_of_a_table_are_not() -> None:
    x = X.clone()
    x[4] = 0.25
    assert _fit(x) == [True, True, True, True, False]
    assert _fit(torch.ones(3, 4) * torch.arange(3.0)[:, None]) == [True] * 3


def test_identical_rows_are_suspicious_from_two_up() -> None:
    assert _fit(X[:1]) == [True]
    assert _fit(X[:1].repeat(2, 1, 1, 1)) == [False, False]
    assert _fit(torch.cat([X[:1]] * 4 + [X[1:2]])) == [True] * 5
    stalled = torch.cat([X[:1]] * 4 + [X[1:2] * float("nan")])
    assert _fit(stalled) == [False] * 5
    swapped = torch.stack([X[0], X[0].flip(-1)])
    assert _fit(swapped) == [True, True], "the same extremes are not the same frame"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_number_types(dtype: torch.dtype) -> None:
    x = X.to(dtype)
    assert _fit(x) == [True] * 5
    x[0, 0, 0, 0] = float("nan")
    assert _fit(x) == [False, True, True, True, True]


def test_extremes() -> None:
    assert fit_rows(X)[1] == (float(X.min()), float(X.max()))
    assert fit_rows(IDS)[0] is None
