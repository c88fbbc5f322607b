"""Logits are found, replaced and merged in whatever a model returns."""

from __future__ import annotations

import collections
from collections import OrderedDict

import pytest
import torch
from torch import Tensor

from acclimate.core.output import find_logits, merge_rows, replace_tensors, with_logits
from conformance.models import Answer, ModelOutput, Pair

LOGITS, OTHER = torch.arange(12.0).view(4, 3), torch.arange(8.0).view(4, 2)


@pytest.mark.parametrize(
    ("output", "selector"),
    [
        (LOGITS, None),
        ({"logits": LOGITS, "x": OTHER}, None),
        ({"y": LOGITS}, "y"),
        (OrderedDict(x=OTHER, logits=LOGITS), None),
        (Answer(LOGITS, (OTHER,)), None),
        (Pair(OTHER, LOGITS), None),
        (Pair(OTHER, LOGITS), 1),
        (Pair(OTHER, LOGITS), "logits"),
        ((LOGITS, OTHER), None),
        ((OTHER, LOGITS), 1),
        ((OTHER, LOGITS), -1),
        ([LOGITS], None),
        (ModelOutput(logits=LOGITS), None),
        (ModelOutput(hidden_states=LOGITS), "hidden_states"),
        ((OTHER, {"deep": LOGITS}), lambda out: out[1]["deep"]),
    ],
)
def test_found(output: object, selector: object) -> None:
    assert find_logits(output, selector) is LOGITS


@pytest.mark.parametrize(
    ("output", "selector"),
    [
        (torch.zeros(3), None),
        (None, None),
        ({}, None),
        ({"x": LOGITS}, None),
        ((), None),
        ((LOGITS,), 3),
        ((LOGITS,), "logits"),
        ("text", None),
        (Answer(torch.zeros(3), ()), None),
        ({"logits": LOGITS}, lambda out: out.get("nothing")),
    ],
)
def test_not_found(output: object, selector: object) -> None:
    with pytest.raises(ValueError, match=r"output=|position|expected logits"):
        find_logits(output, selector)


def test_errors_name_what_was_looked_for() -> None:
    with pytest.raises(ValueError, match="0"):
        find_logits({"x": LOGITS}, 0)


@pytest.mark.parametrize(
    "output",
    [
        LOGITS,
        {"logits": LOGITS, "other": OTHER, "n": 1},
        OrderedDict(logits=LOGITS, other=OTHER),
        collections.defaultdict(list, logits=LOGITS),
        Answer(LOGITS, (OTHER,)),
        Pair(OTHER, LOGITS),
        (LOGITS, [OTHER, None], "text"),
        [LOGITS, OTHER],
        ModelOutput(logits=LOGITS, hidden_states=(OTHER,)),
    ],
    ids=lambda output: type(output).__name__,
)
def test_replaced_in_place_of_its_own(output: object) -> None:
    new = torch.zeros(4, 3)
    changed = with_logits(output, new)
    assert type(changed) is type(output)
    assert find_logits(changed) is new and find_logits(output) is LOGITS, "the original is left alone"


def test_merged_by_rows() -> None:
    rows = torch.tensor([True, False, True, True])
    kept = {"a": torch.tensor([[1.0], [3.0], [4.0]]), "n": torch.tensor(5), "s": "x", "w": torch.zeros(9)}
    held = {"a": torch.tensor([[2.0]]), "n": torch.tensor(6), "s": "y", "w": torch.ones(9)}
    merged = merge_rows(kept, held, rows)
    assert merged["a"].flatten().tolist() == [1, 2, 3, 4]
    assert int(merged["n"]) == 5 and merged["s"] == "x" and torch.equal(merged["w"], torch.zeros(9))


def test_half_held_does_not_mix_up_what_has_no_rows() -> None:
    """Two kept and two held rows: a vector of length two that belongs to no row stays as it is."""
    rows = torch.tensor([True, False, True, False])
    scale = torch.tensor([0.5, 2.0])
    merged = merge_rows({"a": torch.ones(2, 3), "s": scale}, {"a": torch.zeros(2, 3), "s": scale.clone()}, rows)
    assert merged["a"][:, 0].tolist() == [1, 0, 1, 0]
    assert merged["s"].tolist() == [0.5, 2.0]


def test_half_held_mixes_whole_numbers_that_happen_to_be_alike() -> None:
    """Labels of either half may be the same; they belong to rows."""
    rows = torch.tensor([True, False, True, False])
    merged = merge_rows(
        {"a": torch.ones(2, 3), "y": torch.tensor([1, 1])}, {"a": LOGITS[:2], "y": torch.tensor([1, 1])}, rows
    )
    assert merged["y"].tolist() == [1, 1, 1, 1]


def test_merged_types() -> None:
    rows = torch.tensor([True, False])
    merged = merge_rows(torch.ones(1, 2, dtype=torch.bfloat16), torch.zeros(1, 2), rows)
    assert merged.dtype == torch.bfloat16 and merged.tolist() == [[1, 1], [0, 0]]


def test_replace_reaches_every_leaf() -> None:
    seen: list[Tensor] = []
    nested = {"a": (LOGITS, [OTHER]), "b": Answer(LOGITS, (OTHER, OTHER)), "c": Pair(OTHER, LOGITS), "d": 3}
    replace_tensors(nested, lambda tensor: seen.append(tensor) or tensor)
    assert len(seen) == 7
