"""The record: round trip, truncation, damage, later versions."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acclimate.experiment import read_record
from acclimate.experiment.record import RecordWriter
from acclimate.experiment.rows import BatchRow, pack_bits, unpack_bits


def test_what_is_written_is_read(tiny_record, tmp_path: Path) -> None:
    path = tmp_path / "copy.jsonl"
    with RecordWriter.create(path, tiny_record.header) as writer:
        for row in tiny_record.rows:
            writer.write("batch", row.json())
        for unit in tiny_record.units:
            writer.write("unit", unit.json())
    copy = read_record(path)
    assert copy.rows == tiny_record.rows
    assert copy.units == tiny_record.units
    assert copy.header == tiny_record.header
    assert copy.complete and copy.dropped == 0


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_truncated_last_line_is_left_out(tiny_record, cut: int) -> None:
    whole = tiny_record.path.read_bytes()
    lines = whole.splitlines(keepends=True)
    tiny_record.path.write_bytes(whole[: -len(lines[-1])][:-cut])
    record = read_record(tiny_record.path)
    assert record.dropped == 1
    assert record.summary is None
    assert len(record.units) == len(tiny_record.units) - 1
    assert not record.complete


def test_a_last_line_without_its_end_is_not_trusted_even_if_it_parses(tiny_record) -> None:
    lines = tiny_record.path.read_bytes().splitlines(keepends=True)
    tiny_record.path.write_bytes(b"".join(lines[:3]) + b'{"kind":"batch"}')
    assert read_record(tiny_record.path).dropped == 1


def test_a_record_cut_anywhere_can_be_read_or_says_why(tiny_record) -> None:
    whole = tiny_record.path.read_bytes()
    head = whole.index(b"\n") + 1
    for end in range(0, len(whole), 997):
        tiny_record.path.write_bytes(whole[:end])
        if end < head:
            with pytest.raises(ValueError, match="header"):
                read_record(tiny_record.path)
        else:
            assert len(read_record(tiny_record.path).rows) <= len(tiny_record.rows)


def test_damage_in_the_middle_is_refused_with_its_line(tiny_record) -> None:
    lines = tiny_record.path.read_bytes().splitlines(keepends=True)
    lines[4] = lines[4][:20] + b"\n"
    tiny_record.path.write_bytes(b"".join(lines))
    with pytest.raises(ValueError, match=r"line 5 of .* is damaged"):
        read_record(tiny_record.path)


def test_a_later_format_is_refused_and_a_later_line_skipped(tiny_record) -> None:
    lines = tiny_record.path.read_text().splitlines()
    lines.insert(2, json.dumps({"kind": "weather", "sunny": True}))
    tiny_record.path.write_text("\n".join(lines) + "\n")
    assert read_record(tiny_record.path).rows == tiny_record.rows
    header = json.loads(lines[0])
    header["format"] = 99
    tiny_record.path.write_text("\n".join([json.dumps(header), *lines[1:]]) + "\n")
    with pytest.raises(ValueError, match="format 99"):
        read_record(tiny_record.path)


def test_no_record_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no record"):
        read_record(tmp_path)


def test_values_that_are_not_finite_become_null(tiny_record, tmp_path: Path) -> None:
    row = dataclasses.replace(tiny_record.rows[0], values={"loss": float("nan")})
    with RecordWriter.create(tmp_path / "nan.jsonl", tiny_record.header) as writer:
        writer.write("batch", row.json())
    read = read_record(tmp_path / "nan.jsonl").rows
    assert [type(r) for r in read] == [BatchRow]
    assert read[0].values == {"loss": None}


@given(st.lists(st.booleans(), max_size=70))
def test_bits_round_trip(flags: list[bool]) -> None:
    np.testing.assert_array_equal(unpack_bits(pack_bits(flags), len(flags)), np.array(flags, dtype=bool))
