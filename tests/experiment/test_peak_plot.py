"""Error against bytes: a point for each method, names that can be read, bytes where they belong."""

from __future__ import annotations

import itertools
import math

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex

from acclimate.experiment.plots import Point, against_peak
from acclimate.experiment.plots.style import colours


def crowd() -> list[Point]:
    some = [
        Point(
            label=f"a method with settings {number}",
            peak=5e7 * 1.07**number,
            error=22 + 0.1 * (number % 4),
            group="all",
        )
        for number in range(16)
    ]
    return [
        Point(label="source", peak=0, error=44.2, group="none"),
        Point(label="bn", peak=0, error=23.5, group="none"),
        *some,
    ]


def drawn(points: list[Point]):
    figure = against_peak(points)
    FigureCanvasAgg(figure).draw()
    axes = figure.axes[0]
    spots = [scatter.get_offsets()[0] for scatter in axes.collections if len(scatter.get_offsets())]
    names = [text for text in axes.texts if text.get_text()]
    return figure, axes, spots[: len(points)], names


def test_every_point_stands_at_its_bytes_and_its_error() -> None:
    points = crowd()
    _, axes, spots, names = drawn(points)
    assert len(spots) == len(points) == len(names)
    for point, (x, y) in zip(points[2:], spots[2:], strict=True):
        assert (x, y) == pytest.approx((point.peak / 1e6, point.error))
    assert axes.get_xscale() == "log"


def test_who_keeps_nothing_stands_left_of_all_others_at_a_mark() -> None:
    points = crowd()
    _, axes, spots, _ = drawn(points)
    assert spots[0][0] == spots[1][0] < min(point.peak for point in points[2:]) / 1e6
    places, labels = axes.get_xticks(), [label.get_text() for label in axes.get_xticklabels()]
    assert labels[list(places).index(spots[0][0])] == "0" and labels.count("0") == 1


def test_a_point_far_above_stands_at_the_edge_and_tells_its_error() -> None:
    _, axes, spots, names = drawn(crowd())
    low, high = axes.get_ylim()
    assert high < 30 and low < 22 and spots[0][1] <= high
    assert names[0].get_text() == "source, 44.2 %" and names[1].get_text() == "bn"
    near = [
        Point(label="a", peak=1, error=20.0),
        Point(label="b", peak=2, error=21),
        Point(label="c", peak=4, error=22),
    ]
    _, _, spots, names = drawn(near)
    assert [spot[1] for spot in spots] == [20, 21, 22] and names[2].get_text() == "c"


def test_names_cover_no_other_name_and_no_point() -> None:
    points = crowd()
    figure, axes, spots, names = drawn(points)
    renderer = FigureCanvasAgg(figure).get_renderer()
    boxes = [name.get_window_extent(renderer) for name in names]
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
    for box, (x, y) in itertools.product(boxes, spots):
        assert not box.contains(*axes.transData.transform((x, y)))
    frame = figure.bbox
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 for box in boxes)


def test_a_colour_is_a_group() -> None:
    _, axes, _, _ = drawn(crowd())
    faces = [to_hex(scatter.get_facecolor()[0]) for scatter in axes.collections if len(scatter.get_offsets())]
    palette = colours(["none", "all"])
    assert faces[:18] == [palette["none"]] * 2 + [palette["all"]] * 16
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["none", "all"]


@pytest.mark.parametrize("values", [{"peak": -1.0}, {"peak": math.inf}, {"error": math.nan}])
def test_a_point_has_numbers(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="finite"):
        Point(**{"label": "a", "peak": 1.0, "error": 2.0, **values})


def test_nothing_is_no_picture_and_one_point_is() -> None:
    with pytest.raises(ValueError, match="at least one"):
        against_peak([])
    for peak in (0.0, 3e3, 4e10):
        drawn([Point(label="one", peak=peak, error=1.0)])
