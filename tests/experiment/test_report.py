"""Report and figures: self-contained, complete, without global state."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import matplotlib as mpl
import pytest

from acclimate.experiment import Results
from acclimate.experiment.plots import cost_bars, error_over_time, gain_over_source, heat_map, memory_bars, to_svg
from acclimate.experiment.report import report_html, write_report


@pytest.fixture
def results(gradual_record) -> Results:
    return Results.of(gradual_record)


def test_the_report_needs_nothing_from_outside(results: Results) -> None:
    html = report_html(results)
    links = re.findall(r"""(?:src|href|url|action|srcset)\s*[=(]\s*["']?([^"'\s)>]+)""", html)
    assert links and all(link.startswith("data:image/svg+xml;base64,") for link in links)
    assert "<script" not in html and "@import" not in html and "<link" not in html
    for link in links:
        picture = base64.b64decode(link.partition("base64,")[2]).decode()
        assert all(target.startswith("#") for target in re.findall(r"""(?:href|src)=["']([^"']+)""", picture))
        assert "<script" not in picture and "@import" not in picture


def test_the_report_names_every_method_corruption_and_choice(results: Results) -> None:
    html = report_html(results)
    for label in (*results.methods, *results.corruptions):
        assert label in html
    header = results.header
    assert header.stream["fingerprints"]["0"] in html
    assert header.model["fingerprint"] in html
    for title in ("Verdict", "Worst cell", "Error over time", "Protocol", "Environment", "Repeat it", "mean at 5"):
        assert title in html
    assert str(header.environment["torch"]) in html


def test_names_are_escaped(tiny_record) -> None:
    tiny_record.header.environment["cpu"] = "<script>alert(1)</script>"
    assert "<script>" not in report_html(Results.of(tiny_record))


def test_the_report_is_a_file(results: Results, tmp_path: Path) -> None:
    path = write_report(results, tmp_path / "deep" / "r.html")
    assert path.read_text().startswith("<!doctype html>")


@pytest.mark.parametrize("draw", [error_over_time, heat_map, gain_over_source, cost_bars, memory_bars])
def test_figures_leave_no_trace(results: Results, draw) -> None:
    before = dict(mpl.rcParams)
    svg = to_svg(draw(results))
    assert svg.count("</svg>") == 1
    assert dict(mpl.rcParams) == before
    assert to_svg(draw(results)) == svg


def test_a_source_alone_can_be_reported(make_plan, tmp_path: Path) -> None:
    from acclimate.experiment import run

    results = Results.of(run(make_plan("source", seeds=(0,)), tmp_path))
    assert "source" in report_html(results)
    with pytest.raises(ValueError, match="no gain"):
        gain_over_source(Results.of(run(make_plan("bn", seeds=(0,)), tmp_path / "bn")))
