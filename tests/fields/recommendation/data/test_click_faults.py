"""Everything that can be wrong with a file: the error names file, row and column, and what to do."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest

from acclimate.fields.recommendation.data.adult import ADULT
from acclimate.fields.recommendation.data.avazu import AVAZU
from acclimate.fields.recommendation.data.criteo import CRITEO
from acclimate.fields.recommendation.data.kdd12 import KDD12
from acclimate.fields.recommendation.data.libfm import FRAPPE, libfm
from acclimate.fields.recommendation.data.reading import Format, read, read_files

GOOD = {
    "criteo": "\t".join(["0", *["1"] * 13, *["aa"] * 26]),
    "avazu": "1000,1,14102100,1005,0,1f,f3,28,ec,78,07,a9,dd,44,1,2,15706,320,50,1722,0,35,-1,79",
    "kdd12": "0\t1\t42\t76\t385\t3\t3\t1601\t5521\t7709\t576\t490234",
    "adult": "39, State-gov, 77516, Bachelors, 13, Single, Clerk, Wife, White, Male, 0, 0, 40, Cuba, <=50K",
    "frappe": "1 " + " ".join(f"{i}:1" for i in range(10)),
}
LAYOUTS = {layout.name: layout for layout in (CRITEO, AVAZU, KDD12, ADULT, FRAPPE)}


def with_cell(name: str, place: int, text: str) -> str:
    """A good row with another text at one of its columns."""
    separator = "," if name in ("avazu", "adult") else "\t"
    cells = GOOD[name].split(separator)
    cells[place] = text
    return separator.join(cells)


BAD = {
    "commas for tabs": (
        "criteo",
        GOOD["criteo"].replace("\t", ","),
        "column label",
        "one column and 39 commas; expected 40",
    ),
    "tabs for commas": ("avazu", GOOD["avazu"].replace(",", "\t"), "column id", "one column and 23 tabs; expected 24"),
    "semicolons": ("adult", GOOD["adult"].replace(", ", ";"), "column age", "one column and 14 semicolons"),
    "no separator": ("kdd12", "nothing-else", "column click", "one column and no separator"),
    "a column less": ("criteo", GOOD["criteo"].rpartition("\t")[0], "column C26", "found 39 columns.*expected 40"),
    "a column more": ("kdd12", GOOD["kdd12"] + "\t7", "column 13", "found 13 columns; expected 12.*user_id"),
    "separators in disorder": (
        "frappe",
        GOOD["frappe"].replace("1:1 2:1", "1 1:2:1"),
        "column item",
        "found ' ' after it",
    ),
    "a label of text": ("criteo", with_cell("criteo", 0, "yes"), "column label", "found 'yes'; expected '0' or '1'"),
    "a label of 2": ("avazu", with_cell("avazu", 1, "2"), "column click", "found '2'; expected '0' or '1'"),
    "no label": ("criteo", with_cell("criteo", 0, ""), "column label", "found nothing"),
    "a label that is nan": ("criteo", with_cell("criteo", 0, "nan"), "column label", "found 'nan'"),
    "clicks below zero": ("kdd12", with_cell("kdd12", 0, "-1"), "column click", "found '-1'"),
    "no clicks": ("kdd12", with_cell("kdd12", 0, ""), "column click", "found nothing"),
    "an unknown income": ("adult", with_cell("adult", 14, " 50K"), "column income", "found '50K'"),
    "an infinite integer": (
        "criteo",
        with_cell("criteo", 3, "inf"),
        "column I3",
        "found 'inf'; expected a whole number",
    ),
    "minus infinity": ("criteo", with_cell("criteo", 3, "-Infinity"), "column I3", "found '-Infinity'"),
    "an integer of text": ("criteo", with_cell("criteo", 13, "12a"), "column I13", "found '12a'"),
    "a lone minus": ("criteo", with_cell("criteo", 1, "-"), "column I1", "found '-'"),
    "a fraction": ("criteo", with_cell("criteo", 1, "1.5"), "column I1", "found '1.5'"),
    "an underscore": ("criteo", with_cell("criteo", 1, "1_000"), "column I1", "found '1_000'"),
    "a huge integer": ("criteo", with_cell("criteo", 1, "9" * 30), "column I1", "found '9+'"),
    "an age of text": ("adult", with_cell("adult", 0, "old"), "column age", "found 'old'; expected a finite number"),
    "an infinite age": ("adult", with_cell("adult", 0, "inf"), "column age", "found 'inf'"),
    "no hour": ("avazu", with_cell("avazu", 2, ""), "column hour", "found nothing; expected an hour YYMMDDHH"),
    "no such day": ("avazu", with_cell("avazu", 2, "14023000"), "column hour", "found '14023000'"),
    "a value that is not 1": ("frappe", GOOD["frappe"].replace("3:1", "3:0.5"), "column value of", "found '0.5'"),
    "a cell without end": ("criteo", with_cell("criteo", 20, "a" * 5000), "column C7", "a cell of 5000 bytes"),
}


@pytest.mark.parametrize(("name", "line", "column", "what"), BAD.values(), ids=BAD.keys())
@pytest.mark.parametrize("zipped", [False, True])
def test_a_bad_row_is_named(tmp_path: Path, name: str, line: str, column: str, what: str, zipped: bool) -> None:
    """Row 4, where a blank line counts; read in small blocks, too."""
    data = "\n".join([GOOD[name], "", GOOD[name], line, GOOD[name], ""]).encode()
    path = tmp_path / "clicks.txt"
    path.write_bytes(gzip.compress(data) if zipped else data)
    for size in (1 << 20, 64):
        with pytest.raises(ValueError, match=what) as raised:
            list(read(path, LAYOUTS[name], size=size))
        assert f"{path}, row 4, {column}" in str(raised.value)
        assert "expected" in str(raised.value)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_the_good_rows_are_good(tmp_path: Path, layout: Format) -> None:
    path = tmp_path / "good.txt"
    path.write_text(GOOD[layout.name])
    (rows,) = read(path, layout)
    assert len(rows) == 1
    assert len(rows.cells) == len(rows.fields) == len(layout.fields)


def test_headers_with_missing_and_extra_columns(tmp_path: Path) -> None:
    path = tmp_path / "avazu.csv"
    names = list(AVAZU.columns)
    for given, what in (
        ([name for name in names if name != "C14"], "no column C14"),
        ([*names, "more"], "the column more"),
        ([*names[:-1], "other"], "no column C21 and the column other"),
        ([*names, "C1"], "a column twice"),
    ):
        path.write_text(",".join(given) + "\n" + GOOD["avazu"] + "\n")
        with pytest.raises(ValueError, match=re.escape(f"{path}, row 1: found {what}; expected id, click")):
            list(read(path, AVAZU))


@pytest.mark.parametrize("data", [b"", b"\n\n \r\n", b"\r\n"])
def test_empty_files(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "empty.tsv"
    for content in (data, gzip.compress(data)):
        path.write_bytes(content)
        with pytest.raises(
            ValueError, match=r"empty\.tsv (is empty|has no rows)|row 3, column label: found one column"
        ):
            list(read(path, CRITEO))


def test_a_header_alone_is_no_row(tmp_path: Path) -> None:
    path = tmp_path / "avazu.csv"
    path.write_text(",".join(AVAZU.columns) + "\n")
    with pytest.raises(ValueError, match="has no rows"):
        list(read(path, AVAZU))


@pytest.mark.parametrize("damage", ["truncated", "altered"])
def test_damaged_gzip(tmp_path: Path, damage: str) -> None:
    """Rows before the damage are counted in the message."""
    lines = "\n".join(GOOD["criteo"].replace("aa", f"{i:08x}") for i in range(3000)) + "\n"
    data = bytearray(gzip.compress(lines.encode()))
    if damage == "altered":
        data[-6] ^= 0xFF  # of the checksum
    path = tmp_path / "criteo.tsv.gz"
    path.write_bytes(bytes(data[: len(data) // 2] if damage == "truncated" else data))
    with pytest.raises(ValueError, match=r"row \d+: found the end of what can be unpacked.*fetch it again"):
        list(read(path, CRITEO, size=4096))


def test_files_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "wide.tsv"
    path.write_bytes((GOOD["criteo"] + "\n").encode() + GOOD["criteo"].encode("utf-16-le"))
    with pytest.raises(ValueError, match="row 2: found a zero byte"):
        list(read(path, CRITEO))
    path.write_bytes(b"a" * (3 << 20))
    with pytest.raises(ValueError, match="row 1: found a line of more than"):
        list(read(path, CRITEO, size=1 << 19))


def test_no_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no file .*absent\.tsv"):
        list(read(tmp_path / "absent.tsv", CRITEO))
    with pytest.raises(ValueError, match="expected a sequence of one file or more"):
        list(read_files([], CRITEO))
    with pytest.raises(ValueError, match="expected a sequence of one file or more"):
        list(read_files("criteo.tsv", CRITEO))
    with pytest.raises(ValueError, match="expected a sequence of one name or more"):
        libfm("none", [])
