"""Clicks, and how they are cut into parts."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from acclimate.fields.recommendation.data.clicks import Clicks, joined
from acclimate.fields.recommendation.data.splits import parts_at_random, parts_in_time, random_split, time_split
from acclimate.models.files import write_tensors


def some(rows: int = 6, seed: int = 0) -> Clicks:
    numbers = np.random.default_rng(seed).integers([0, 3], [3, 5], (rows, 2))
    return Clicks(torch.from_numpy(numbers), (torch.arange(rows) % 2).float(), (3, 2), ("user", "item"))


def numbered(rows: int) -> Clicks:
    """Row `i` has the id `i`."""
    return Clicks(torch.arange(rows)[:, None], (torch.arange(rows) % 2).float(), (rows,), ("row",))


def test_properties() -> None:
    clicks = Clicks(torch.tensor([[1, 4, 5]]), torch.ones(1), (3, 2, 4), ("a", "b", "c"))
    assert (len(clicks), clicks.vocabulary, clicks.offsets) == (1, 9, (0, 3, 5))


IDS, LABELS = torch.tensor([[0, 3], [2, 4], [1, 3]]), torch.tensor([0.0, 1.0, 0.0])


@pytest.mark.parametrize(
    ("ids", "labels", "sizes", "fields", "what"),
    [
        (IDS + torch.tensor([0, 2]), LABELS, (3, 2), ("a", "b"), "Row 0, field b: found id 5; expected 3 to 4"),
        (torch.where(IDS == 2, 3, IDS), LABELS, (3, 2), ("a", "b"), "Row 1, field a: found id 3; expected 0 to 2"),
        (IDS - 1, LABELS, (3, 2), ("a", "b"), "Row 0, field a: found id -1"),
        (IDS.int(), LABELS, (3, 2), ("a", "b"), r"ids are torch.int32 \[3, 2\]; expected torch.int64 \[N, 2\]"),
        (IDS[:, :1], LABELS, (3, 2), ("a", "b"), r"ids are torch.int64 \[3, 1\]"),
        (IDS[0], LABELS, (3, 2), ("a", "b"), r"ids are torch.int64 \[2\]"),
        (IDS, LABELS[:2], (3, 2), ("a", "b"), r"labels are torch.float32 \[2\]; expected torch.float32 \[3\]"),
        (IDS, LABELS.double(), (3, 2), ("a", "b"), "labels are torch.float64"),
        (IDS, torch.tensor([0, 0.5, 1]), (3, 2), ("a", "b"), "Row 1 has the label 0.5; expected 0 or 1"),
        (IDS, torch.tensor([0, 1, torch.nan]), (3, 2), ("a", "b"), "Row 2 has the label nan"),
        (IDS, torch.tensor([torch.inf, 1, 0]), (3, 2), ("a", "b"), "Row 0 has the label inf"),
        (IDS, LABELS, (3,), ("a", "b"), "2 fields and 1 sizes"),
        (IDS, LABELS, (), (), "0 fields and 0 sizes"),
        (IDS, LABELS, (3, 2), ("a", "a"), "Several fields are called a"),
        (IDS, LABELS, (3, 0), ("a", "b"), "size of field b must be a whole number of at least 1, found 0"),
    ],
)
def test_what_does_not_fit(ids, labels, sizes, fields, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        Clicks(ids, labels, sizes, fields)


def test_take_by_place_and_by_mask() -> None:
    clicks = numbered(5)
    assert clicks.take(torch.tensor([3, 0])).ids.flatten().tolist() == [3, 0]
    assert clicks.take(clicks.labels == 1).ids.flatten().tolist() == [1, 3]
    assert len(clicks.take(torch.zeros(5, dtype=torch.bool))) == 0


def test_files_keep_everything(tmp_path: Path) -> None:
    clicks = some(40)
    clicks.save(tmp_path / "in/clicks.safetensors")
    again = Clicks.load(tmp_path / "in/clicks.safetensors")
    assert torch.equal(again.ids, clicks.ids) and again.ids.dtype == torch.int64
    assert torch.equal(again.labels, clicks.labels) and again.labels.dtype == torch.float32
    assert (again.sizes, again.fields) == (clicks.sizes, clicks.fields)
    assert again.fingerprint() == clicks.fingerprint()


def test_fingerprints_tell_apart() -> None:
    clicks = some()
    others = [
        Clicks(clicks.ids.flip(0), clicks.labels, clicks.sizes, clicks.fields),
        Clicks(clicks.ids, 1 - clicks.labels, clicks.sizes, clicks.fields),
        Clicks(clicks.ids, clicks.labels, (3, 3), clicks.fields),
        Clicks(clicks.ids, clicks.labels, clicks.sizes, ("item", "user")),
    ]
    assert len({each.fingerprint() for each in (clicks, *others)}) == 5


def test_files_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ends in '\.npz'"):
        some().save(tmp_path / "clicks.npz")
    write_tensors(tmp_path / "other.safetensors", {"weight": torch.zeros(2)}, {})
    with pytest.raises(ValueError, match="holds weight; expected what"):
        Clicks.load(tmp_path / "other.safetensors")
    with pytest.raises(FileNotFoundError):
        Clicks.load(tmp_path / "absent.safetensors")


def test_joined() -> None:
    both = joined([some(3), some(4, seed=1)])
    assert both.ids.tolist() == [*some(3).ids.tolist(), *some(4, seed=1).ids.tolist()]
    with pytest.raises(ValueError, match="cannot follow"):
        joined([some(), numbered(3)])
    with pytest.raises(ValueError, match="no clicks to join"):
        joined([])


@given(st.integers(30, 500), st.integers(0, 5))
def test_random_parts_are_complete_and_of_their_shares(rows: int, seed: int) -> None:
    parts = parts_at_random(rows, seed)
    sizes = np.bincount(parts, minlength=3)
    assert sizes.sum() == rows
    assert np.abs(sizes - rows * np.array([0.8, 0.1, 0.1])).max() <= 1
    assert np.array_equal(parts, parts_at_random(rows, seed))


def test_a_random_split_takes_every_row_once_and_keeps_their_order() -> None:
    ids = [part.ids.flatten().tolist() for part in random_split(numbered(1000), seed=3)]
    assert [len(part) for part in ids] == [800, 100, 100]
    assert sorted(chain.from_iterable(ids)) == list(range(1000))
    assert ids == [sorted(part) for part in ids]
    assert ids[2] == np.flatnonzero(parts_at_random(1000, 3) == 2).tolist()


def test_another_seed_is_another_split_and_rows_are_mixed() -> None:
    one, other = parts_at_random(1000, 1), parts_at_random(1000, 2)
    assert (one != other).mean() > 0.2
    assert abs((one[:500] == 0).mean() - 0.8) < 0.06


def test_in_order_of_time() -> None:
    split = time_split(numbered(100))
    assert [part.ids.flatten().tolist() for part in split] == [
        list(range(80)),
        list(range(80, 90)),
        list(range(90, 100)),
    ]
    times = torch.arange(100).flip(0) // 2
    turned = time_split(numbered(100), times)
    assert turned.train.ids.flatten().tolist()[:4] == [98, 99, 96, 97], "rows of one time keep their order"
    assert turned.test.ids.flatten().tolist()[-2:] == [0, 1]


def test_every_part_has_a_row() -> None:
    assert parts_in_time(3).tolist() == [0, 1, 2]
    assert np.bincount(parts_in_time(5, (0.98, 0.01, 0.01))).tolist() == [3, 1, 1]


def test_bad_splits() -> None:
    with pytest.raises(ValueError, match="rows must be a whole number of at least 3"):
        parts_at_random(2)
    with pytest.raises(ValueError, match="expected three numbers"):
        parts_in_time(10, (0.8, 0.2))
    with pytest.raises(ValueError, match="share must be a finite number above 0"):
        parts_in_time(10, (0.8, 0.2, 0.0))
    constant = Clicks(torch.zeros(50, 1, dtype=torch.int64), torch.zeros(50), (1,), ("a",))
    with pytest.raises(
        ValueError, match="train part has 40 rows that are all labelled 0; expected rows of both labels"
    ):
        random_split(constant)
    late = Clicks(constant.ids, (torch.arange(50) < 45).float() * (torch.arange(50) % 2), (1,), ("a",))
    with pytest.raises(ValueError, match="test part has 5 rows that are all labelled 0"):
        time_split(late)
    with pytest.raises(ValueError, match=r"times is \[3\]"):
        time_split(constant, torch.zeros(3))
    with pytest.raises(ValueError, match="none NaN"):
        time_split(constant, torch.full((50,), torch.nan))
