"""Recorded traces, and files that are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from acclimate.links.traces import recorded

GOOD = "seconds,bits_per_second\n10,100\n12,50\n13,0\n15,200\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "trace.csv"
    path.write_text(GOOD)
    return path


def test_rows_hold_until_the_next(file: Path) -> None:
    trace = recorded(file)
    assert [trace.bandwidth(t) for t in (0, 1.9, 2, 2.9, 3, 4.9, 5, 6.9)] == [100, 100, 50, 50, 0, 0, 200, 200]
    assert trace.bits(0, 7) == 2 * 100 + 50 + 0 + 2 * 200
    assert trace.finish(2.5, 25 + 100) == 5.5


def test_a_trace_begins_again_or_ends_for_good(file: Path) -> None:
    again, once = recorded(file), recorded(file, repeat=False)
    assert [again.bandwidth(t) for t in (7, 9, 14, 700)] == [100, 50, 100, 100]
    assert [once.bandwidth(t) for t in (5, 7, 9, 700)] == [200] * 4


def test_a_trace_is_scaled(file: Path) -> None:
    assert recorded(file, scale=0.5).bits(0, 7) == 325
    with pytest.raises(ValueError, match="scale"):
        recorded(file, scale=0.0)


def test_a_single_row_holds_for_good_and_spreadsheets_are_read(tmp_path: Path) -> None:
    path = tmp_path / "one.csv"
    path.write_bytes(b"\xef\xbb\xbfseconds, bits_per_second\r\n3, 7\r\n\r\n")
    assert recorded(path).bits(0, 100) == 700


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "first line is ''"),
        ("time,rate\n0,1\n", "first line is 'time,rate'"),
        ("seconds,bits_per_second\n", "0 rows"),
        ("seconds,bits_per_second\n0,0\n1,0\n", "2 rows"),
        ("seconds,bits_per_second\n0,1\n1,fast\n", "line 3 is '1,fast'"),
        ("seconds,bits_per_second\n0,1\n1\n", "line 3 is '1'"),
        ("seconds,bits_per_second\n0,1\n1,2,3\n", "line 3 is '1,2,3'"),
        ("seconds,bits_per_second\n0,1\n0,2\n", "line 3 has the time 0.0"),
        ("seconds,bits_per_second\nnan,1\n", "line 2 has the time nan"),
        ("seconds,bits_per_second\n0,-1\n", "line 2 has -1.0 bit/s"),
        ("seconds,bits_per_second\n0,inf\n", "line 2 has inf bit/s"),
    ],
)
def test_files_that_are_none_are_named_with_their_line(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=told) as caught:
        recorded(path)
    assert str(path) in str(caught.value)


def test_files_without_text_or_existence_are_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(ValueError, match=r"bad\.csv is no recorded trace: it is not text"):
        recorded(path)
    with pytest.raises(FileNotFoundError, match=r"absent\.csv"):
        recorded(tmp_path / "absent.csv")
    with pytest.raises(FileNotFoundError):
        recorded(tmp_path)


def test_a_last_outage_cannot_last(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    path.write_text("seconds,bits_per_second\n0,5\n1,0\n")
    assert recorded(path).bits(0, 4) == 10
    with pytest.raises(ValueError, match=r"out\.csv ends with 0 bit/s"):
        recorded(path, repeat=False)
