"""Settings as text."""

from __future__ import annotations

from typing import Literal

import pytest
import torch

from acclimate.cli.choosing import choose_methods, parse_value
from acclimate.cli.threads import choose_threads
from acclimate.models.threads import one_thread


@pytest.mark.parametrize(
    ("text", "hint", "value"),
    [
        ("3", int, 3),
        ("3", float, 3.0),
        ("1e-4", float, 1e-4),
        ("none", float | None, None),
        ("0.5", float | None, 0.5),
        ("no", bool, False),
        ("On", bool, True),
        ("12", int | str, 12),
        ("sgd", int | str, "sgd"),
        ("mean", Literal["sum", "mean"], "mean"),
        ("1, 2", tuple[int, ...], (1, 2)),
    ],
)
def test_a_text_becomes_a_value_of_the_field(text: str, hint: object, value: object) -> None:
    parsed = parse_value(text, hint)
    assert parsed == value and type(parsed) is type(value)


@pytest.mark.parametrize(
    ("text", "hint", "expected"),
    [("x", int, "a whole number"), ("2.5", int | None, "none"), ("median", Literal["sum", "mean"], "'sum' or 'mean'")],
)
def test_what_is_no_value_is_told(text: str, hint: object, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        parse_value(text, hint)


def test_settings_apply_to_one_label_only() -> None:
    chosen = choose_methods(["palm", "palm:stable"], ["palm:stable.alpha=0.25", "palm.threshold_quantile=0.5"])
    assert chosen["palm"].alpha == 0.5 and chosen["palm"].threshold_quantile == 0.5
    assert chosen["palm:stable"].alpha == 0.25 and chosen["palm:stable"].threshold_quantile is None


def test_threads_are_chosen_and_given_back() -> None:
    before = torch.get_num_threads()
    try:
        chosen = choose_threads(torch.nn.Linear(4, 2), torch.rand(8, 4))
        assert chosen == torch.get_num_threads() <= before
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == chosen
    finally:
        torch.set_num_threads(before)
