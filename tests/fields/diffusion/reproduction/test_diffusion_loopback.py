"""Real processes over an emulated link: bytes by the formula, seconds no less than these take, and kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from acclimate.fields.diffusion.cost import SHAPES, received_bytes
from acclimate.fields.diffusion.reproduction.costs import loopback_grid
from acclimate.fields.diffusion.reproduction.loopback import Job, loopback

pytest.importorskip("diffusers")


def test_the_link_takes_what_the_bytes_need_and_the_model_foresees_it(tmp_path: Path) -> None:
    cases = (("gather", "whole"), ("ring", "one_bit"))
    job = Job(model=None, devices=2, seconds=1.0, count=2, steps=4, cases=cases)
    told: list[str] = []
    whole, bit = loopback(tmp_path, job, told=told.append)
    shape = replace(SHAPES["digits-dit"], copies=2, steps=4)
    assert whole.sent == received_bytes(shape, 2) and bit.sent == received_bytes(shape, 2, "one_bit", exchange="ring")
    for each in (whole, bit):
        needed = (each.sent + each.overhead) / each.bandwidth
        assert each.limited >= 0.99 * needed
        assert each.predicted == pytest.approx(each.free + needed)
    assert loopback(tmp_path, job, told=told.append) == [whole, bit] and len(told) == 1
    grid = loopback_grid(2, [whole, bit])
    assert [line.name for line in grid.lines] == ["gather, whole", "ring, one_bit"]
    assert grid.lines[0].cells[-1] == "1.00"


@pytest.mark.slow
def test_seconds_are_those_of_the_model_where_the_link_is_what_takes_time(tmp_path: Path) -> None:
    cases = (("gather", "whole"), ("gather", "two_bit"), ("gather", "one_bit"))
    found = loopback(tmp_path, Job(model=None, devices=2, seconds=10.0, count=4, cases=cases))
    seconds = [each.limited for each in found]
    assert seconds == sorted(seconds, reverse=True)
    for each in found:
        if (each.sent + each.overhead) / each.bandwidth >= 5 * each.free:
            assert each.limited == pytest.approx(each.predicted, rel=0.15)
    assert (found[0].sent + found[0].overhead) / found[0].bandwidth >= 5 * found[0].free  # on a machine at rest
