"""Calls and encoders whose features are not one row for each image are refused, and nothing is kept of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from acclimate.fields.vision_language import adapt
from acclimate.fields.vision_language.methods.cosmic import COSMIC
from conformance.tools import assert_same, book

from .subjects import SMALL, TEXTS, WIDTH, Encoder, batch, factory, over, subject
from .world import world


def test_without_auxiliary_features_cosmic_says_so_and_keeps_nothing():
    of = world(2, images=8, views=5)
    adapted = over("cosmic", of)
    with pytest.raises(ValueError, match="looks at auxiliary features, and none came with the call"):
        adapted(of.views)
    assert_same(book(adapted), book(over("cosmic", of)), "state")
    without = adapt(Encoder(0, WIDTH), TEXTS, SMALL["cosmic"])
    with pytest.raises(ValueError, match="the model was built without one"):
        without(batch(0))
    assert int(without.state["samples"]) == 0 and not without.state["clip.counts"].any()


MISFITS = {
    "a row too many": (
        lambda z: torch.cat([z, z[:1]]),
        r"found auxiliary features \[9, 12\] for 8 images, expected fl",
    ),
    "rows missing": (lambda z: z[:4], r"\[4, 12\] for 8 images, expected floats \[8, A\]"),
    "one axis": (lambda z: z[:, 0], r"torch.float32 \[8\] for 8 images"),
    "three axes": (lambda z: z[:, None], r"\[8, 1, 12\] for 8 images"),
    "whole numbers": (lambda z: z.long(), r"torch.int64 \[8, 12\] for 8 images"),
    "no tensor": (lambda z: z.tolist(), "found auxiliary features list"),
}


@pytest.mark.parametrize("kind", MISFITS)
@pytest.mark.parametrize("name", ["cosmic", "tda"])
def test_auxiliary_features_of_other_images_are_refused(name, kind):
    """However many rows of the batch are bad: those left out are counted, too."""
    of = world(2, images=16, views=3)
    adapted, twin = (adapt(of.model(), method=subject(name)) for _ in range(2))
    for each in (adapted, twin):
        each(of.views[:8], auxiliary=of.auxiliary[:8])
    spoil, told = MISFITS[kind]
    for bad in (0, 1, 4):
        x = of.views[8:].clone()
        x[:bad] = float("nan")
        with pytest.raises(ValueError, match=told):
            adapted(x, auxiliary=spoil(of.auxiliary[8:]))
        assert_same(book(adapted), book(twin), "state")


def test_another_width_in_mid_stream_is_told():
    of = world(2, images=16, views=3)
    adapted, twin = over("cosmic", of), over("cosmic", of)
    for each in (adapted, twin):
        each(of.views[:8], auxiliary=of.auxiliary[:8])
    with pytest.raises(ValueError, match="found auxiliary features of 7 numbers, expected 12, as those before"):
        adapted(of.views[8:], auxiliary=of.auxiliary[8:, :7])
    assert_same(book(adapted), book(twin), "state")


@pytest.mark.parametrize("which", ["image_encoder", "auxiliary_encoder"])
@pytest.mark.parametrize("change", [lambda rows: torch.cat([rows, rows]), lambda rows: rows[:1]])
def test_an_encoder_of_another_number_of_rows_is_told(which, change):
    model = factory()
    encoder = getattr(model, which)
    setattr(model, which, nn.Sequential(encoder, Changed(change)))
    adapted = adapt(model, method=COSMIC(views=1))
    with pytest.raises(ValueError, match=r"an encoder returned \[\d+, \d+\] for 8 images, expected features \[8, D\]"):
        adapted(batch(0))
    assert int(adapted.state["samples"]) == 0


class Changed(nn.Module):
    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.change = change

    def forward(self, rows: Tensor) -> Tensor:
        return self.change(rows)


@pytest.mark.parametrize("name", ["cosmic", "tda", "zero-shot"])
def test_features_of_another_width_than_the_texts_are_told(name):
    """Of an encoder, and of a call."""
    told = f"found features of {WIDTH - 3} numbers for text features of {WIDTH}, expected as many"
    model = factory()
    model.image_encoder = nn.Sequential(model.image_encoder, Changed(lambda rows: rows[:, 3:]))
    adapted = adapt(model, method=subject(name))
    with pytest.raises(ValueError, match=told):
        adapted(batch(0))
    without = adapt(None, TEXTS, method=SMALL[name])
    with pytest.raises(ValueError, match=told):
        without(torch.rand(4, WIDTH - 3), auxiliary=torch.rand(4, 5))
