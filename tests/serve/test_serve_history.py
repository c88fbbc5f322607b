"""The recent past of a stream, against a plain list of everything that happened."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from acclimate.serve.history import COLUMNS, History

NAMES = st.sampled_from([*COLUMNS, "evidence", "gain", "gap"])
POINTS = st.lists(st.dictionaries(NAMES, st.floats()), max_size=60)


@given(st.integers(1, 20), POINTS)
def test_it_is_the_end_of_everything_that_happened(length, points):
    history = History(length)
    for point in points:
        history.add(point)
    found = history.points()
    assert len(found) == min(length, len(points))
    for shown, point in zip(found, points[-length:], strict=False):
        assert shown.keys() >= set(COLUMNS)
        for name, value in shown.items():
            expected = point.get(name, math.nan)
            assert value == (expected if math.isfinite(expected) else None)
        assert point.keys() <= shown.keys()


def test_names_are_bounded():
    history = History(4)
    for number in range(100):
        history.add({f"name-{number}": 1.0, "time": float(number)})
    (*_, last) = history.points()
    assert len(last) == 32
    assert last["time"] == 99
