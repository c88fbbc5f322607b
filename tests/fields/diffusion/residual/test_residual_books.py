"""Means over tensors, by hand."""

from __future__ import annotations

from acclimate.fields.diffusion.residual.books import Key, Stats


def test_branches_that_differ_in_length_are_averaged_as_far_as_they_go() -> None:
    errors = {
        Key(0, 0, "k"): (0.0, 0.5, 0.25),
        Key(0, 0, "v"): (0.0, 0.25, 0.75),
        Key(0, 0, "k", branch=1): (0.5, 0.75),
        Key(0, 0, "v", branch=1): (0.5, 0.5),
        Key(0, 0, "q>1"): (9.0,),
    }
    stats = Stats(5, 0, 0, 0, errors, {})
    assert stats.error_by_step() == (0.25, 0.5, 0.5)
    assert stats.error_by_step("v") == (0.25, 0.375, 0.75)
    assert stats.error_by_step("q") == (9.0,)
    assert stats.error_by_step("o") == ()
