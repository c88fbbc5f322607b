"""A laboratory: what fits together, and what is taken from it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from acclimate.fields.cells.data.classes import ACEVEDO_CODES, COMMON, FOUR, MATEK_CODES, UNIFIED
from acclimate.fields.cells.data.laboratory import UNKNOWN, Laboratory, Problem, check_classes
from acclimate.streams.opening import stream_dataset
from acclimate.streams.scenes import VOID


def lab(**changes: Any) -> Laboratory:
    """Five cells: 0 1 2 0 unknown; image i is filled with i; the mask of the last is not known."""
    images = torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1).expand(5, 3, 8, 8).contiguous()
    masks = torch.zeros(5, 8, 8, dtype=torch.int8)
    masks[:, 2:6, 2:6], masks[:, 3:5, 3:5], masks[4] = 1, 2, VOID
    given: dict[str, Any] = {
        "name": "here",
        "images": images,
        "labels": torch.tensor([0, 1, 2, 0, UNKNOWN]),
        "classes": ("monocyte", "basophil", "eosinophil"),
        "keys": ("a", "b", "c", "d", "e"),
        "masks": masks,
        "problems": (Problem("f", "is empty"),),
    }
    return Laboratory(**{**given, **changes})


PARTLY = torch.zeros(5, 8, 8, dtype=torch.int8)
PARTLY[0, 0, 0] = VOID


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": torch.zeros(5, 3, 8, 8)}, "float32"),
        ({"images": torch.zeros(5, 3, 8, 9, dtype=torch.uint8)}, r"expected torch.uint8 \[N, 3, S, S\]"),
        ({"images": torch.zeros(0, 3, 8, 8, dtype=torch.uint8)}, "at least one"),
        ({"labels": torch.zeros(5)}, "float32"),
        ({"labels": torch.zeros(4, dtype=torch.int64)}, r"expected torch.int64 \[5\]"),
        ({"labels": torch.tensor([0, 1, 2, 3, 0])}, "from 0 to 3, but it names 3"),
        ({"labels": torch.tensor([0, 1, 2, -2, 0])}, "from -2 to 2"),
        ({"classes": ("monocyte", "basophil", "monocyte")}, "'monocyte' 2 times"),
        ({"keys": ("a", "b", "c", "d")}, "4 keys for 5 images"),
        ({"keys": ("a", "b", "c", "d", "a")}, "'a' 2 times"),
        ({"masks": torch.zeros(5, 8, 8)}, "float32"),
        ({"masks": torch.zeros(5, 4, 4, dtype=torch.int8)}, r"expected torch.int8 \[5, 8, 8\]"),
        ({"masks": torch.full((5, 8, 8), 3, dtype=torch.int8)}, "from 3 to 3"),
        ({"masks": PARTLY}, "1 masks of 'here' are -1 in places"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lab(**changes)


@given(st.permutations(range(5)), st.integers(1, 5))
@settings(max_examples=20, deadline=None)
def test_take_keeps_what_belongs_together(order: list[int], count: int) -> None:
    index = torch.tensor(order[:count])
    some = lab().take(index)
    assert len(some) == count
    assert some.keys == tuple("abcde"[i] for i in index.tolist())
    assert some.images[:, 0, 0, 0].tolist() == index.tolist()
    assert torch.equal(some.labels, lab().labels[index])
    assert some.masked.tolist() == [i != 4 for i in index.tolist()]
    assert some.problems == lab().problems


def test_take_by_truth_values_and_nothing() -> None:
    assert lab().take(lab().labels == 0).keys == ("a", "d")
    with pytest.raises(ValueError, match="at least one"):
        lab().take(torch.tensor([], dtype=torch.int64))
    with pytest.raises(ValueError, match="'b' 2 times"):
        lab().take(torch.tensor([1, 1]))


def test_of_classes_drops_others_and_unknown_and_relabels() -> None:
    some = lab().of_classes(("eosinophil", "monocyte"))
    assert some.keys == ("a", "c", "d")
    assert some.labels.tolist() == [1, 0, 1]
    assert some.classes == ("eosinophil", "monocyte")
    with pytest.raises(ValueError, match="Did you mean 'monocyte'"):
        lab().of_classes(("monozyte",))
    with pytest.raises(ValueError, match="is the string"):
        lab().of_classes("monocyte")
    with pytest.raises(ValueError, match="no cell of basophil"):
        lab().take(torch.tensor([0, 4])).of_classes(("basophil",))


def test_masks_may_be_absent() -> None:
    bare = lab(masks=None)
    assert not bare.masked.any()
    assert bare.take(torch.tensor([3])).masks is None


def test_the_fingerprint_knows_pixels_labels_keys_and_masks_but_not_problems() -> None:
    images, masks = lab().images.clone(), lab().masks
    assert masks is not None
    images[2, 1, 3, 3] += 1
    changed = [
        {"images": images},
        {"masks": masks.clamp(max=1)},
        {"masks": None},
        {"labels": torch.tensor([0, 1, 2, 1, UNKNOWN])},
        {"keys": ("a", "b", "c", "d", "f")},
        {"name": "there"},
    ]
    prints = {lab().fingerprint(), *(lab(**change).fingerprint() for change in changed)}
    assert len(prints) == len(changed) + 1
    assert lab(problems=()).fingerprint() == lab().fingerprint()


def test_a_laboratory_becomes_a_stream() -> None:
    with pytest.raises(ValueError, match="1 of the 5 cells of 'here' are of unknown class"):
        lab().dataset()
    data = lab().of_classes(lab().classes).dataset("train")
    assert (data.name, data.split, data.classes, len(data)) == ("here", "train", lab().classes, 4)
    batches = list(stream_dataset(data, "clean", batch_size=3))
    assert sorted(label for batch in batches for label in batch.labels.tolist()) == [0, 0, 1, 2]


def test_check_classes_counts_those_with_cells() -> None:
    check_classes(lab(), least=3)
    with pytest.raises(ValueError, match=r"cells of 1 class \(monocyte\); expected at least 2"):
        check_classes(lab().take(torch.tensor([0, 3])))
    with pytest.raises(ValueError, match=r"0 classes \(none\)"):
        check_classes(lab().take(torch.tensor([4])))


def test_codes_are_those_of_the_papers() -> None:
    assert len(UNIFIED) == 13
    assert COMMON[:4] == FOUR
    assert len(MATEK_CODES) == 15
    assert {code for code, name in MATEK_CODES.items() if name is None} == {"PMB"}
    assert MATEK_CODES["MOB"] == MATEK_CODES["MON"] == "monocyte"
    assert {name for name in MATEK_CODES.values() if name} == set(UNIFIED)
    assert {code for code, name in ACEVEDO_CODES.items() if name is None} == {"IG", "NEUTROPHIL", "PLATELET"}
    assert {UNIFIED.index(name) for name in ACEVEDO_CODES.values() if name} == {0, 1, 2, 4, 5, 6, 7, 8, 9, 10}
