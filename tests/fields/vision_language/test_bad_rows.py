"""What is bad leaves no trace: encoders that break, images whose features are no features, calls that do not fit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import acclimate
from acclimate.fields.vision_language import adapt
from conformance.tools import assert_same, book

from .subjects import NAMES, SMALL, Encoder, batch, factory, for_features, model_of, over, subject
from .world import World, world


@pytest.mark.parametrize("which", ["image_encoder", "auxiliary_encoder"])
@pytest.mark.parametrize("name", NAMES)
def test_an_encoder_that_breaks_leaves_no_trace(name, which):
    """It raises, or gives NaN: then the source answers."""
    adapted, twin = (acclimate.adapt(factory(), subject(name), guard=None) for _ in range(2))
    for each in (adapted, twin):
        each(batch(0))
    encoder = getattr(adapted.module, which)
    if not encoder.seen:
        return
    for error in (RuntimeError("broken"), KeyboardInterrupt()):
        encoder.error = error
        with pytest.raises(type(error)):
            adapted(batch(1))
        encoder.error = None
        assert_same(book(adapted), book(twin), f"state after {error!r}")
    encoder.factor = float("nan")
    found = adapted(batch(1))
    encoder.factor = 1.0
    with adapted.source() as source:
        assert torch.equal(found, source(batch(1)))
    assert not adapted.last.updated and adapted.last.held == 8
    assert_same(book(adapted), book(twin), "state after features that are NaN")
    assert_same(adapted(batch(1)), twin(batch(1)), "answers after it")


@pytest.mark.parametrize("name", NAMES)
def test_a_bad_row_of_features_leaves_no_trace(name):
    """Not even where one number of one view is NaN: the rest counts as the batch without that image."""
    of = world(2, images=32, views=5)
    adapted, twin = over(name, of), over(name, of)
    for number, (x, z) in enumerate(of.batches(8)):
        bad, good = x.clone(), torch.arange(8) != number
        bad[number, min(number, 3), 2] = float("nan")
        found, expected = adapted(bad, auxiliary=z), twin(x[good], auxiliary=z[good])
        assert_same(found[good], expected, "answers to the others")
        assert adapted.last.updated and adapted.last.held == 1
        assert_same(book(adapted), book(twin), "state after it")


def stream(name: str, of: World, sizes: int, x: Tensor, z: Tensor) -> tuple[acclimate.Adapted, Tensor, int]:
    """A new adaptation by the way in, its answers, and how many were held."""
    adapted = adapt(model_of(name, of), method=for_features(name, of))
    found, held = [], 0
    for rows, other in zip(x.split(sizes), z.split(sizes), strict=True):
        found.append(adapted(rows, auxiliary=other))
        held += adapted.last.held
    return adapted, torch.cat(found), held


@pytest.mark.parametrize("name", NAMES)
def test_a_feature_that_is_zero_leaves_no_trace(name):
    """Without views there is no telling by one value that it is none: the others count as the batch without it."""
    of = world(2, images=24, views=1)
    x, z = of.views[:, 0].clone(), of.auxiliary
    good = torch.ones(24, dtype=torch.bool)
    good[[1, 12]] = False
    x[~good] = 0
    adapted, found, held = stream(name, of, 8, x, z)
    assert held == 2
    twin = adapt(model_of(name, of), method=for_features(name, of))
    for rows in torch.arange(24).split(8):
        kept = rows[good[rows]]
        assert_same(found[kept], twin(x[kept], auxiliary=z[kept]), "answers to the others")
    assert not found[~good].any(), "no class is nearer to nothing than another"
    assert_same(book(adapted), book(twin), "state")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0])
def test_an_auxiliary_feature_that_is_none_is_held_alone(value):
    """In whatever batches it comes: what is kept is what is kept without the image."""
    of = world(2, images=32, views=3)
    good = torch.arange(32) != 13
    z = of.auxiliary.clone()
    z[13] = value
    twin, wanted, _ = stream("cosmic", of, 31, of.views[good], z[good])
    for sizes in (1, 8, 32):
        adapted, found, held = stream("cosmic", of, sizes, of.views, z)
        assert held == 1
        torch.testing.assert_close(found[good], wanted, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found[13:14], of.model()(of.views[13:14]), rtol=1e-4, atol=1e-5)
        for key in ("clip.counts", "auxiliary.counts", "samples"):
            assert torch.equal(adapted.state[key], twin.state[key]), (sizes, key)
    adapted, found, _ = stream("cosmic", of, 32, of.views, z)
    assert_same(found[good], twin_of(of, good, z), "answers to the others, in the same batch")


def twin_of(of: World, good: Tensor, z: Tensor) -> Tensor:
    return stream("cosmic", of, 31, of.views[good], z[good])[1]


class Spoiled(nn.Module):
    """An encoder that fails on images that are bright, crops of them included."""

    def __init__(self, encoder: Encoder, factor: float) -> None:
        super().__init__()
        self.encoder, self.factor = encoder, factor

    def forward(self, images: Tensor) -> Tensor:
        bright = images.flatten(1).amax(1) > 2
        return torch.where(bright[:, None], self.factor, 1.0) * self.encoder(images)


@pytest.mark.parametrize("factor", [float("nan"), 0.0])
@pytest.mark.parametrize("which", ["image_encoder", "auxiliary_encoder"])
@pytest.mark.parametrize("name", NAMES)
def test_one_image_that_an_encoder_fails_on_is_held_alone(name, which, factor):
    """The others have the numbers, and so the views, that they would have without it."""
    model = factory()
    setattr(model, which, Spoiled(getattr(model, which), factor))
    adapted, twin = (adapt(model, method=subject(name)) for _ in range(2))
    good = torch.arange(8) != 3
    for number in range(2):
        x = batch(number)
        x[3] += 5
        found = adapted(x)
        looked = which == "image_encoder" or name == "cosmic"
        kept = good if looked else torch.ones(8, dtype=torch.bool)
        assert_same(found[kept], twin(x[kept]), "answers to the others")
        assert found.isfinite().all() and adapted.last.updated and adapted.last.held == int(looked)
        assert_same(book(adapted), book(twin), "state")
    with adapted.frozen():
        assert adapted(x).isfinite().all() and adapted.last.held == int(looked)
        assert not looked or which == "auxiliary_encoder" or not adapted(x)[3].any()


def test_without_the_way_in_what_was_held_is_noted():
    model = factory()
    model.image_encoder = Spoiled(model.image_encoder, 0.0)
    x = batch(0)
    x[3] += 5
    adapted = acclimate.adapt(model, SMALL["cosmic"], guard=None)
    adapted(x)
    assert adapted.last.values["held"] == 1 and int(adapted.state["samples"]) == 7


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0])
@pytest.mark.parametrize("name", NAMES)
def test_what_points_nowhere_is_answered_alike_alone_and_in_company(name, value):
    """No class is nearer to it than another, wherever the batch begins, frozen or not, and of the source itself."""
    model = factory()
    model.image_encoder = Spoiled(model.image_encoder, value)
    x = batch(0)
    x[3] += 5
    with torch.no_grad():
        assert not model(x)[3].any()
    company, alone = (adapt(model, method=subject(name)) for _ in range(2))
    assert not company(x)[3].any() and not alone(x[3:4]).any()
    assert company.last.held == alone.last.held == 1
    with alone.frozen():
        assert not alone(x[3:4]).any()
