"""Source images in every form they may come in."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from acclimate.core.state import State
from acclimate.parts.source_images import source_batches

IMAGES = torch.arange(10 * 3 * 4, dtype=torch.float32).view(10, 3, 4)
LABELS = torch.arange(10)


def read(source: object, size: int = 4, **options) -> list[tuple[Tensor, Tensor | None]]:
    return list(source_batches(State(nn.Linear(4, 2)), source, size, **options))


def test_images_are_cut_and_a_pair_keeps_its_labels() -> None:
    alone, paired = read(IMAGES), read((IMAGES, LABELS), labelled=True)
    assert [len(x) for x, _ in alone] == [4, 4, 2]
    assert all(labels is None for _, labels in alone)
    assert torch.equal(torch.cat([x for x, _ in paired]), IMAGES)
    assert torch.equal(torch.cat([labels for _, labels in paired]), LABELS)


@pytest.mark.parametrize(
    "source",
    [[IMAGES[:7], IMAGES[7:]], [[IMAGES[:7]], [IMAGES[7:]]], [(IMAGES[:7], LABELS[:7]), (IMAGES[7:], LABELS[7:])]],
)
def test_batches_are_taken_as_they_come(source: list) -> None:
    assert [len(x) for x, _ in read(source, size=2)] == [7, 3]
    assert torch.equal(torch.cat([x for x, _ in read(source)]), IMAGES)


def test_two_batches_of_images_are_no_pair() -> None:
    assert [len(x) for x, labels in read([IMAGES, IMAGES]) if labels is None] == [10, 10]


def test_shuffling_moves_images_and_labels_together() -> None:
    first, again = (read((IMAGES, LABELS), shuffle=torch.Generator().manual_seed(3)) for _ in range(2))
    order = torch.cat([labels for _, labels in first])
    assert not torch.equal(order, LABELS)
    assert torch.equal(order.sort().values, LABELS)
    assert torch.equal(torch.cat([x for x, _ in first]), IMAGES[order])
    assert torch.equal(order, torch.cat([labels for _, labels in again]))


def test_reading_stops_at_the_wanted_number() -> None:
    assert [len(x) for x, _ in read(IMAGES, samples=5)] == [4, 4]


def test_images_take_the_type_of_the_model() -> None:
    state = State(nn.Linear(4, 2).to(torch.bfloat16))
    assert {x.dtype for x, _ in source_batches(state, IMAGES, 4)} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        (IMAGES, {"labelled": True}, "images without labels, expected images and labels"),
        (5, {}, "source is a int, expected images"),
        ([], {}, "holds no images"),
        (["a"], {}, "a batch of str, expected images"),
        ([torch.zeros(0, 3, 4)], {}, r"a batch of shape \[0, 3, 4\]"),
        ((IMAGES, LABELS.float()), {"labelled": True}, "images without labels"),
    ],
)
def test_anything_else_is_refused(source: object, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(source, **options)
