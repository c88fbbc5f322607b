"""Which cells are held out, what copies are, and what a threshold can promise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as some

from acclimate.fields.cells.data.laboratory import UNKNOWN, Laboratory
from acclimate.fields.cells.data.problems import Severity
from acclimate.fields.cells.desk.calibration import calibrated, held_out, once, promise
from acclimate.fields.cells.desk.copies import copies, copies_note
from acclimate.fields.cells.desk.model import digests
from acclimate.fields.cells.desk.naming import relabelled

torch.set_num_threads(1)


def test_labels_mean_the_same_in_all_laboratories(laboratories: list[Laboratory]) -> None:
    turned = relabelled(laboratories[0], ("monocyte", "neutrophil"))
    names = [laboratories[0].classes[label] for label in laboratories[0].labels]
    assert [turned.classes[label] if label >= 0 else "" for label in turned.labels] == [
        name if name in ("monocyte", "neutrophil") else "" for name in names
    ]


def test_held_out_cells_are_drawn_by_the_seed_and_rare_classes_stay() -> None:
    labels = torch.tensor([0] * 50 + [1] * 4 + [UNKNOWN] * 20)
    first, again, other = (held_out(labels, seed) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first[:50].sum() == 10 and not first[50:].any()


def test_a_fifth_is_drawn_of_each_class_and_each_laboratory() -> None:
    """Of 30, 20 and 4 cells of a class in three laboratories 10 are drawn: 6, 4, and the rest of one."""
    origins = torch.tensor([0] * 30 + [1] * 20 + [2] * 4)
    for seed in range(20):
        held = held_out(torch.zeros(54, dtype=torch.int64), seed, origins=origins)
        assert [int(held[origins == place].sum()) for place in range(3)] == [6, 4, 0]


@settings(max_examples=60, deadline=None)
@given(
    some.lists(some.tuples(some.integers(-1, 1), some.integers(0, 30)), min_size=1, max_size=80), some.integers(0, 9)
)
def test_copies_are_never_parted(cells: list[tuple[int, int]], seed: int) -> None:
    labels, words = torch.tensor([label for label, _ in cells]), [f"{word}" for _, word in cells]
    held = held_out(labels, seed, words=words)
    known = labels != UNKNOWN
    for word in set(words):
        own = torch.tensor([each == word for each in words]) & known
        assert held[own].all() or not held[own].any()
    assert not held[~known].any()
    first = {f"{word}": label for label, word in reversed(cells) if label != UNKNOWN}
    of_class = [list(first.values()).count(label) for label in range(2)]
    pictures = once(held, words)
    drawn = [first[word] for word, chosen in zip(words, pictures.tolist(), strict=True) if chosen]
    assert [drawn.count(label) for label in range(2)] == [count // 5 for count in of_class]
    assert not (pictures & ~held).any() and len({words[i] for i in pictures.nonzero()[:, 0].tolist()}) == pictures.sum()


def test_copies_under_two_classes_are_doubtful(laboratories: list[Laboratory]) -> None:
    first = laboratories[0].take(torch.arange(4))
    again = replace(first, name="again", labels=torch.tensor([0, 1, 2, 0]), classes=("Neutrophil", "lymphocyte", "x"))
    told = copies([first, again])
    assert [(each.laboratory, each.problem.severity) for each in told] == [
        ("again", Severity.REPAIRED),
        ("again", Severity.REPAIRED),
        ("again", Severity.DOUBTFUL),
        ("again", Severity.DOUBTFUL),
    ]
    assert told[2].problem.what == "is the same picture as made-up-1/0002 of made-up-1, which counts as monocyte"
    words = [*digests(first.images), *digests(again.images)]
    assert copies_note([first, again], words).startswith("4 pictures are there twice (made-up-1: made-up-1/0000 and ag")
    assert copies_note([first], words[:4]) == "" and copies([first]) == []


def test_a_promise_that_cannot_be_kept_is_told() -> None:
    random = np.random.default_rng(0)
    said = random.dirichlet(np.ones(3), 60)
    _, threshold = calibrated(said, random.integers(0, 3, 60), 0.05, ["oslo"] * 60)
    assert threshold.value is None and threshold.unsure(said).all()
    assert "Every cell is called unsure" in promise(threshold)
    assert "takes 104 held-out cells of a laboratory, and there are of oslo 60" in promise(threshold)
    right = np.eye(3)[np.arange(300) % 3] * 0.9 + 0.1 / 3
    _, threshold = calibrated(right, np.arange(300) % 3, 0.05, ["oslo"] * 280 + ["lima"] * 20)
    assert threshold.value is not None and "5% of the sure answers are wrong in oslo" in promise(threshold)
    told = promise(threshold, ["basophil"])
    assert "lima, with 20 of the 117 held-out cells" in told and "basophil, of which no cell was held out" in told
    _, threshold = calibrated(right, (np.arange(300) // 150 + np.arange(300)) % 3, 0.05, ["a"] * 150 + ["b"] * 150)
    assert threshold.value is None and "cannot be promised" in promise(threshold)
