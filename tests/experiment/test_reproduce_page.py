"""The page of reproduced tables: needs nothing else, says what is published, and can be read in any width."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from acclimate.experiment.reproduce.part import Drawing, Grid, Line, Shown
from acclimate.experiment.reproduce.write import write_all

GRID = Grid(
    key="table-1",
    head=["fog", "mean", "± seeds"],
    lines=[
        Line("measured", "palm", [12.34, 15.678, None]),
        Line("published", "palm <b>, published", [13.2, 15.5, None]),
        Line("measured", "bn", ["did not run", None, None]),
    ],
    title="The paper's",
)


class Reader(HTMLParser):
    """The tree as far as these tests look at it: rows with their class and cells, and each tag with what it lies in."""

    VOID = ("meta", "img")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[tuple[str, list[tuple[str, dict[str, str], str]]]] = []
        self.tags: list[tuple[str, dict[str, str], tuple[str, ...]]] = []
        self.feed(text)
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.append((tag, values, tuple(self.open)))
        if tag == "tr":
            self.rows.append((values.get("class", ""), []))
        if tag in ("td", "th"):
            self.rows[-1][1].append((tag, values, ""))
        if tag not in self.VOID:
            self.open.append(f"{tag}.{values.get('class', '')}")

    def handle_endtag(self, tag):
        assert self.open.pop().partition(".")[0] == tag

    def handle_data(self, data):
        if any(place.startswith(("td.", "th.")) for place in self.open):
            tag, values, text = self.rows[-1][1][-1]
            self.rows[-1][1][-1] = (tag, values, text + data)


@pytest.fixture
def page(tmp_path: Path) -> str:
    figure = Figure(figsize=(5, 3))
    figure.subplots().plot([1, 2])
    parts = [
        Shown(title="Table 1: a & b", protocol="here", grids=[GRID], notes=["as `adapt(net, 'x')` < 3"]),
        Shown(
            title="Figure 2", protocol="there", drawings=[Drawing(key="f", figure=figure, alternative='A "line" < 2')]
        ),
    ]
    return write_all(tmp_path, "Tables <1>", "Written by a & b", parts)[1].read_text()


def test_it_is_one_whole_document_that_needs_nothing(page: str) -> None:
    read = Reader(page)
    tags = {tag for tag, _, _ in read.tags}
    assert not tags & {"script", "link", "iframe"} and "@import" not in page and "url(" not in page
    for _, values, _ in read.tags:
        for name in ("src", "href"):
            assert values.get(name, "#").startswith(("data:image/png;base64,", "#"))
    assert "Tables &lt;1&gt;" in page and "a &amp; b" in page and "palm &lt;b&gt;" in page


def test_links_lead_to_sections(page: str) -> None:
    tags = Reader(page).tags
    links = [values["href"] for tag, values, _ in tags if tag == "a"]
    assert links == [f"#{values['id']}" for tag, values, _ in tags if tag == "section"]
    assert len(links) == 2


def test_tables_scroll_by_themselves_and_name_rows_and_columns(page: str) -> None:
    read = Reader(page)
    places = [around for tag, _, around in read.tags if tag == "table"]
    assert len(places) == 1 and places[0][-1] == "div.scroll"
    (_, head), *rows = read.rows
    assert [(tag, values.get("scope"), text) for tag, values, text in head] == [
        ("td", None, ""), ("th", "col", "fog"), ("th", "col", "mean"), ("th", "col", "± seeds"),
    ]  # fmt: skip
    assert [[text for _, _, text in cells] for _, cells in rows] == [
        ["palm", "12.3", "15.68", "-"],
        ["palm <b>, published", "13.2", "15.5", "-"],
        ["bn", "did not run", "-", "-"],
    ]
    assert all(cells[0][:2] == ("th", {"scope": "row"}) for _, cells in rows)


def test_published_lines_look_unlike_measured_ones_and_no_cell_is_stretched(page: str) -> None:
    rows = Reader(page).rows[1:]
    assert [kind for kind, _ in rows] == ["", "published", ""]
    assert re.search(r"tr\.published[^{]*\{[^}]*italic", page)
    classes = {values.get("class") for _, cells in rows for _, values, _ in cells}
    assert classes == {None, "mean"}, "cells of settings are wide and to the left"


def test_figures_are_embedded_in_their_own_size_with_words(page: str) -> None:
    (image,) = [values for tag, values, _ in Reader(page).tags if tag == "img"]
    assert image["alt"] == 'A "line" < 2'
    assert image["style"] == "max-width: 5in"
    data = base64.b64decode(image["src"].partition("base64,")[2])
    assert data.startswith(b"\x89PNG") and int.from_bytes(data[16:20]) == 5 * 150


def test_code_in_notes_is_shown_as_code(page: str) -> None:
    assert "as <code>adapt(net, &#x27;x&#x27;)</code> &lt; 3" in page
