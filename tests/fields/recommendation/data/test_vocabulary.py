"""Vocabularies against a plain count, and the hash against its formula in whole numbers."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from acclimate.fields.recommendation.data.counting import ValueCounts
from acclimate.fields.recommendation.data.hashing import stable_hash
from acclimate.fields.recommendation.data.reading import Rows
from acclimate.fields.recommendation.data.vocabulary import FieldVocabulary

VALUES = st.sampled_from(
    [b"", b"a", b"b", b"aa", b"abcdefgh", b"abcdefghi", b"a longer text than any word", b"\xff\xfe"]
)
TABLES = st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=60)


def rows_of(table: list[tuple[bytes, ...]], fields: tuple[str, ...] = ("user", "item")) -> Rows:
    columns = tuple(np.array(column, dtype=bytes) for column in zip(*table, strict=True))
    labels = (np.arange(len(table)) % 2).astype(np.float32)
    return Rows(Path("made"), np.arange(1, len(table) + 1), fields, columns, labels)


def in_blocks(table: list[tuple[bytes, ...]], size: int) -> list[Rows]:
    return [rows_of(table[start : start + size]) for start in range(0, len(table), size)]


def by_hand(train: list[bytes], threshold: int) -> list[bytes]:
    """Values in the order of their ids: by count, highest first, then by value."""
    counts = Counter(train)
    return sorted((v for v in counts if counts[v] >= threshold), key=lambda v: (-counts[v], v))


@settings(max_examples=100, deadline=None)
@given(TABLES, TABLES, st.integers(1, 4), st.integers(1, 4), st.integers(1, 20))
def test_ids_are_those_of_a_plain_count(
    train: list[tuple[bytes, bytes]], test: list[tuple[bytes, bytes]], first: int, second: int, size: int
) -> None:
    """Whatever the blocks; values that are rare or were never seen have the last id of their field."""
    vocabulary = FieldVocabulary.fit(in_blocks(train, size), thresholds={"user": first, "item": second})
    listed = [by_hand([row[place] for row in train], [first, second][place]) for place in (0, 1)]
    assert vocabulary.sizes == (len(listed[0]) + 1, len(listed[1]) + 1)
    clicks = vocabulary.encode(rows_of(test))
    expected = [
        [
            offset + (values.index(value) if value in values else len(values))
            for value, values, offset in zip(row, listed, (0, vocabulary.sizes[0]), strict=True)
        ]
        for row in test
    ]
    assert clicks.ids.tolist() == expected
    assert clicks.labels.tolist() == [i % 2 for i in range(len(test))]


def test_missing_is_a_value_of_its_own_and_rare_ones_share_the_last_id() -> None:
    table = [(b"", b"x")] * 3 + [(b"a", b"x")] * 2 + [(b"rare", b"x")]
    vocabulary = FieldVocabulary.fit([rows_of(table)], thresholds={"user": 2})
    assert vocabulary.sizes == (3, 2)
    seen = vocabulary.encode(rows_of([(b"", b"x"), (b"a", b"x"), (b"rare", b"x"), (b"new", b"")]))
    assert seen.ids.tolist() == [[0, 3], [1, 3], [2, 3], [2, 4]]


def test_an_id_is_reserved_even_where_nothing_was_rare() -> None:
    vocabulary = FieldVocabulary.fit([rows_of([(b"a", b"b")])])
    assert vocabulary.encode(rows_of([(b"a", b"b"), (b"z", b"z")])).ids.tolist() == [[0, 2], [1, 3]]


@settings(max_examples=50, deadline=None)
@given(TABLES, TABLES, TABLES)
def test_test_rows_never_move_the_vocabulary(train, test, other) -> None:
    """Whatever stands in the rows that are not for training; unless all are asked for."""
    found = set()
    for rest in (test, other):
        training = np.array([True] * len(train) + [False] * len(rest))
        found.add(FieldVocabulary.fit([rows_of(train), rows_of(rest)], training=training).fingerprint())
    assert found == {FieldVocabulary.fit([rows_of(train)]).fingerprint()}
    training = np.array([True] * len(train) + [False] * len(test))
    everything = FieldVocabulary.fit([rows_of(train), rows_of(test)], training=training, fit_on="all")
    assert everything.fingerprint() == FieldVocabulary.fit([rows_of([*train, *test])]).fingerprint()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(VALUES, max_size=20), max_size=12))
def test_counts_merge(blocks: list[list[bytes]]) -> None:
    counts = ValueCounts()
    for block in blocks:
        counts.add(np.array(block, dtype=bytes))
    values, times = counts.total()
    assert dict(zip(values.tolist(), times.tolist(), strict=True)) == Counter(v for block in blocks for v in block)
    assert values.tolist() == sorted(values.tolist())


@settings(max_examples=40, deadline=None)
@given(TABLES, st.integers(1, 3))
def test_json_keeps_everything(tmp_path_factory: pytest.TempPathFactory, table, threshold: int) -> None:
    """Bytes that are no UTF-8, too."""
    path = tmp_path_factory.mktemp("kept") / "vocabulary.json"
    vocabulary = FieldVocabulary.fit([rows_of(table)], thresholds=threshold, hashed={"item": 7})
    vocabulary.save(path)
    again = FieldVocabulary.load(path)
    assert again.fingerprint() == vocabulary.fingerprint()
    assert again.constant() == vocabulary.constant()
    rows = rows_of([*table, (b"new", b"new")])
    assert torch.equal(again.encode(rows).ids, vocabulary.encode(rows).ids)


MASK = (1 << 64) - 1


def splitmix(x: int) -> int:
    z = (x + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def hash_by_hand(text: bytes) -> int:
    state = 0
    for start in range(0, len(text), 8):
        state = splitmix(state ^ int.from_bytes(text[start : start + 8].ljust(8, b"\0"), "big"))
    return state


def test_the_formula_is_the_published_generator() -> None:
    """The first number of splitmix64 from the seed 1234567, as published with its reference implementation."""
    assert splitmix(1234567) == 6457827717110365317


@given(st.lists(st.binary(max_size=30).map(lambda b: b.replace(b"\0", b"-")), min_size=1, max_size=8))
def test_the_hash_is_its_formula(texts: list[bytes]) -> None:
    """Of the text alone, however wide the column that holds it."""
    expected = [hash_by_hand(text) for text in texts]
    assert stable_hash(np.array(texts, dtype=bytes)).tolist() == expected
    assert stable_hash(np.array(texts, dtype="S64")).tolist() == expected


def test_hashed_fields() -> None:
    table = [(b"%d" % i, b"%d" % (i % 3)) for i in range(4000)]
    everything = FieldVocabulary.hashing(("user", "item"), 16)
    assert everything.sizes == (17, 17)
    ids = everything.encode(rows_of(table)).ids
    assert ids[:, 0].tolist() == [hash_by_hand(user) % 16 for user, _ in table]
    assert ids[:, 1].tolist() == [17 + hash_by_hand(item) % 16 for _, item in table]
    assert torch.bincount(ids[:, 0], minlength=17)[:16].min() > 180, "about 250 each"
    fitted = FieldVocabulary.fit([rows_of(table)], hashed=16)
    assert fitted.fingerprint() == everything.fingerprint()
    mixed = FieldVocabulary.fit([rows_of(table)], hashed={"user": 16})
    assert mixed.sizes == (17, 4)
    assert mixed.encode(rows_of(table)).ids[:, 0].tolist() == ids[:, 0].tolist()


def test_hashing_needs_one_block_only() -> None:
    def blocks():
        yield rows_of([(b"a", b"b")])
        raise AssertionError("read on")

    assert FieldVocabulary.fit(blocks(), hashed=5).sizes == (6, 6)


def test_without_constant_fields() -> None:
    """A field with a common value and a rare one is not constant."""
    table = [(b"a", b"x", b"1")] * 4 + [(b"b", b"x", b"1")] * 4 + [(b"b", b"x", b"2")]
    vocabulary = FieldVocabulary.fit([rows_of(table, ("user", "item", "hour"))], thresholds=2)
    assert vocabulary.constant() == ("item",)
    assert vocabulary.without(vocabulary.constant()).fields == ("user", "hour")
    clicks = vocabulary.without(["item"]).encode(rows_of(table, ("user", "item", "hour")))
    assert clicks.sizes == (3, 2)


def test_bad_arguments(tmp_path: Path) -> None:
    rows = [rows_of([(b"a", b"b")] * 3)]
    for arguments, what in (
        ({"thresholds": 0}, "threshold of field user must be a whole number of at least 1, found 0"),
        ({"thresholds": {"users": 2}}, "thresholds names users; expected some of the fields user, item"),
        ({"hashed": {"users": 2}}, "hashed names users"),
        ({"hashed": 0}, "buckets must be a whole number of at least 1, found 0"),
        ({"fit_on": "test"}, "fit_on must be one of 'train', 'all', found 'test'"),
        ({"training": np.array([True])}, "training says of 1 rows"),
        ({"training": np.array([True] * 4)}, "training says of 4 rows what they are for, but there are 3"),
        ({"training": np.array([False] * 3)}, "no training rows"),
    ):
        with pytest.raises(ValueError, match=what):
            FieldVocabulary.fit(rows, **arguments)
    with pytest.raises(ValueError, match="no training rows"):
        FieldVocabulary.fit([])
    with pytest.raises(ValueError, match="buckets has no number for item"):
        FieldVocabulary.hashing(["user", "item"], {"user": 3})
    with pytest.raises(ValueError, match="made has no field item"):
        FieldVocabulary.fit(rows).encode(rows_of([(b"a",)], ("user",)))
    with pytest.raises(FileNotFoundError, match="no vocabulary"):
        FieldVocabulary.load(tmp_path / "absent.json")
    for text in ("{", "[]", json.dumps({"format": 2}), json.dumps({"format": 1, "fields": [{"name": "a"}]})):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(ValueError, match=r"bad\.json is no vocabulary"):
            FieldVocabulary.load(tmp_path / "bad.json")
