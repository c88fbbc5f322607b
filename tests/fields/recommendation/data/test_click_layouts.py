"""Files in the published layouts, made by hand."""

from __future__ import annotations

import gzip
import math
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acclimate.fields.recommendation.data.adult import ADULT
from acclimate.fields.recommendation.data.avazu import AVAZU, date_parts
from acclimate.fields.recommendation.data.buckets import Buckets
from acclimate.fields.recommendation.data.cells import Table
from acclimate.fields.recommendation.data.criteo import CRITEO, squared_logarithm
from acclimate.fields.recommendation.data.formats import FORMATS
from acclimate.fields.recommendation.data.kdd12 import KDD12
from acclimate.fields.recommendation.data.libfm import FRAPPE, libfm
from acclimate.fields.recommendation.data.reading import Format, Rows, count_rows, read, read_files


def one(path: Path, text: str | bytes, layout: Format) -> Rows:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    (rows,) = read(path, layout)
    return rows


def cells(rows: Rows, field: str) -> list[bytes]:
    return rows.cells[rows.fields.index(field)].tolist()


def criteo(label: int, integers: list[str], categories: list[str]) -> str:
    return "\t".join([str(label), *integers, *[""] * (13 - len(integers)), *categories, *[""] * (26 - len(categories))])


def test_the_squared_logarithm_is_as_published() -> None:
    assert squared_logarithm(np.array([-1, 0, 1, 2, 3, 10, 100])).tolist() == [-1, 0, 1, 2, 1, 5, 21]


@given(st.lists(st.integers(-(10**6), 10**12), min_size=1, max_size=30))
def test_the_squared_logarithm_of_any_number(values: list[int]) -> None:
    expected = [math.floor(math.log(v) ** 2) if v > 2 else v for v in values]
    assert squared_logarithm(np.array(values)).tolist() == expected


def test_criteo(tmp_path: Path) -> None:
    """Missing integers (empty or nan) are no zero; 3.0 is 3; categories stay as they are."""
    text = "\n".join(
        [
            criteo(0, ["-1", "2", "3", "10", "100", "", "0"], ["68fd1e64", "", "80e26c9b"]),
            criteo(1, ["nan", "NaN", "3.0", "1e2", "-2", "+5"], ["68fd1e64"]),
        ]
    )
    rows = one(tmp_path / "criteo.tsv", text, CRITEO)
    assert rows.fields == (*(f"I{i}" for i in range(1, 14)), *(f"C{i}" for i in range(1, 27)))
    assert rows.labels.tolist() == [0, 1]
    assert [column[0] for column in rows.cells[:7]] == [b"-1", b"2", b"1", b"5", b"21", b"", b"0"]
    assert [column[1] for column in rows.cells[:6]] == [b"", b"", b"1", b"21", b"-2", b"2"]
    assert cells(rows, "C1") == [b"68fd1e64"] * 2
    assert cells(rows, "C2") == [b"", b""]
    assert cells(rows, "C3") == [b"80e26c9b", b""]


AVAZU_ROW = "1000,1,14102100,1005,0,1fbe,f384,2890,ecad,7801,07d7,a99f,ddd2,4495,1,2,15706,320,50,1722,0,35,-1,79"


def test_avazu_with_and_without_a_header(tmp_path: Path) -> None:
    """21 October 2014 was a Tuesday; 25 October, a Saturday, is weekend."""
    body = f"{AVAZU_ROW}\n{AVAZU_ROW.replace('14102100', '14102523')}\n"
    header = ",".join(AVAZU.columns) + "\n"
    assert len(AVAZU.fields) == 24
    for text, first in ((body, 1), (header + body, 2)):
        rows = one(tmp_path / "avazu.csv", text, AVAZU)
        assert rows.lines.tolist() == [first, first + 1]
        assert rows.labels.tolist() == [1, 1]
        assert cells(rows, "hour") == [b"0", b"23"]
        assert cells(rows, "weekday") == [b"2", b"6"]
        assert cells(rows, "is_weekend") == [b"0", b"1"]
        assert cells(rows, "C1") == [b"1005"] * 2
        assert cells(rows, "C20") == [b"-1"] * 2
        assert cells(rows, "C21") == [b"79"] * 2
        assert count_rows([tmp_path / "avazu.csv"], AVAZU) == 2


def test_a_header_in_another_order_is_followed(tmp_path: Path) -> None:
    order = list(reversed(range(24)))
    lines = [",".join(np.array(line.split(","))[order]) for line in (",".join(AVAZU.columns), AVAZU_ROW)]
    rows = one(tmp_path / "turned.csv", "\n".join(lines), AVAZU)
    plain = one(tmp_path / "plain.csv", AVAZU_ROW, AVAZU)
    assert [column.tolist() for column in rows.cells] == [column.tolist() for column in plain.cells]


@given(st.dates(date(2000, 1, 1), date(2099, 12, 31)), st.integers(0, 23))
def test_date_parts_are_the_calendars(day: date, hour: int) -> None:
    parts = date_parts(np.array([int(f"{day:%y%m%d}{hour:02d}")]))
    assert [part.item() for part in parts] == [hour, day.isoweekday() % 7, True]


@pytest.mark.parametrize("stamp", [14130100, 14100024, 14103200, 14022900, 14102124, -14102100, 2014102100])
def test_no_dates(stamp: int) -> None:
    assert not date_parts(np.array([stamp]))[2].any()


def test_leap_days() -> None:
    days = [date(2012, 2, 29), date(2012, 2, 29) + timedelta(1)]
    assert date_parts(np.array([12022900, 12030100]))[1].tolist() == [day.isoweekday() % 7 for day in days] == [3, 4]


def test_kdd12(tmp_path: Path) -> None:
    """As documented: clicks, impressions, display URL, ad, advertiser, depth, position, query, keyword, title,
    description, user; several clicks are a click."""
    text = (
        "0\t1\t4298118681424644510\t7686695\t385\t3\t3\t1601\t5521\t7709\t576\t490234\n"
        "3\t5\t4860571499428580850\t21560664\t37484\t2\t2\t2255103\t317\t48989\t44771\t490234\n"
    )
    rows = one(tmp_path / "training.txt", text, KDD12)
    assert len(rows.fields) == 11
    assert rows.labels.tolist() == [0, 1]
    assert cells(rows, "impression") == [b"1", b"5"]
    assert cells(rows, "display_url") == [b"4298118681424644510", b"4860571499428580850"]
    assert cells(rows, "ad_id") == [b"7686695", b"21560664"]
    assert cells(rows, "depth") == [b"3", b"2"]
    assert cells(rows, "user_id") == [b"490234"] * 2
    assert set(KDD12.thresholds.values()) == {10}


def test_adult_and_its_buckets(tmp_path: Path) -> None:
    """Labels with and without a dot, question marks missing, a blank last line."""
    row = "39, State-gov, 77516, Bachelors, 13, Never-married, ?, Own-child, White, Male, 2174, 0, 40, Cuba, "
    rows = one(tmp_path / "adult.csv", f"{row}<=50K\n{row}>50K.\n{row}<=50K.\n{row}>50K\n\n", ADULT)
    assert rows.labels.tolist() == [0, 1, 0, 1]
    assert cells(rows, "occupation") == [b""] * 4
    assert cells(rows, "workclass") == [b"State-gov"] * 4
    assert cells(rows, "age") == [b"39"] * 4
    assert cells(Buckets.fit(rows, ["age"]).apply(rows), "age") == [b"1"] * 4


def test_buckets_hold_equal_shares_and_heavy_values_are_alone() -> None:
    """Half of the numbers are 0; the rest, 1 to 100, fall into ten buckets of ten."""
    numbers = [0] * 100 + list(range(1, 101))
    texts = np.array([str(number).encode() for number in numbers] + [b""])
    count = len(texts)
    rows = Rows(Path("made"), np.arange(count), ("n",), (texts,), np.zeros(count, dtype=np.float32))
    found = Buckets.fit(rows, ["n"], 10).apply(rows).cells[0]
    assert found[-1] == b""
    zero, rest = found[:100], found[100:-1]
    assert len(set(zero.tolist())) == 1
    assert not set(zero.tolist()) & set(rest.tolist())
    sizes = np.unique(rest, return_counts=True)[1]
    assert len(sizes) == 10
    assert sizes.min() >= 9 and sizes.max() <= 11
    new = Rows(Path("new"), np.arange(2), ("n",), (np.array([b"-50", b"1e9"]),), np.zeros(2, dtype=np.float32))
    assert Buckets.fit(rows, ["n"], 10).apply(new).cells[0].tolist() == [b"0", rest[-1]]


def test_libfm_lines(tmp_path: Path) -> None:
    text = "1 4:1 17:1\r\n-1 3:1 9:1\r\n0 3:1 17:1\r\n"
    rows = one(tmp_path / "pairs.libfm", text, libfm("pairs", ["user", "item"]))
    assert rows.labels.tolist() == [1, 0, 0]
    assert cells(rows, "user") == [b"4", b"3", b"3"]
    assert cells(rows, "item") == [b"17", b"9", b"17"]
    assert FRAPPE.fields[:2] == ("user", "item")
    assert len(FRAPPE.fields) == 10


def test_all_layouts_have_their_published_number_of_fields() -> None:
    counts = {name: len(layout.fields) for name, layout in FORMATS.items()}
    assert counts == {"criteo": 39, "avazu": 24, "kdd12": 11, "adult": 14, "frappe": 10}


WORDS = st.text(st.sampled_from("abcdefghijklmn é"), max_size=20).map(str.strip)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 1), WORDS, WORDS), min_size=1, max_size=12),
    st.integers(1, 60),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_blocks_endings_blank_lines_and_gzip_change_nothing(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[int, str, str]],
    size: int,
    ending: str,
    zipped: bool,
    blank: bool,
    last: bool,
) -> None:
    """However a file is written and read, rows and lines are those that Python's own splitting finds."""
    made: list[str] = []
    where: list[int] = []
    for label, user, item in rows:
        made += [""] * blank
        made.append(f"{label}\t{user}\t{item}")
        where.append(len(made))
    data = b"\xef\xbb\xbf" + (ending.join(made) + ending * last).encode()
    path = tmp_path_factory.mktemp("any") / "rows.txt"
    path.write_bytes(gzip.compress(data) if zipped else data)

    def parse(table: Table) -> Rows:
        labels = table.column("label") == b"1"
        columns = (table.column("user"), table.column("item"))
        return Rows(table.path, table.lines, ("user", "item"), columns, labels.astype(np.float32))

    layout = Format(
        name="any",
        columns=("label", "user", "item"),
        separators="\t\t",
        fields=("user", "item"),
        parse=parse,
        label="label",
    )
    found = list(read_files([path, path], layout, size=size))
    got = [
        (int(label), user.decode(), item.decode(), int(line))
        for block in found
        for label, user, item, line in zip(block.labels, *block.cells, block.lines, strict=True)
    ]
    assert got == [(*row, line) for row, line in zip(rows, where, strict=True)] * 2
    assert count_rows([path, path], layout) == 2 * len(rows)
