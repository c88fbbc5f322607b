"""Images are answered in turn: where batches begin does not matter, and each is encoded once, as views of its own."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

import acclimate
from acclimate.fields.vision_language import VisionLanguage, adapt
from acclimate.fields.vision_language.methods.cosmic import COSMIC
from conformance.tools import assert_same

from .subjects import NAMES, SMALL, batch, factory, over, subject
from .world import World, world


@pytest.mark.parametrize("name", NAMES)
def test_where_batches_begin_does_not_matter(name):
    of = world(2, images=30, views=5)
    whole = of.answers(over(name, of), 30)
    for sizes in ((1,), (7, 1, 12)):
        found = of.answers(over(name, of), *sizes)
        torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-5)
        assert torch.equal(found.argmax(1), whole.argmax(1))


@pytest.mark.parametrize("name", NAMES)
def test_where_batches_of_images_begin_does_not_matter(name):
    """Views are made here, by the number of the image in the stream."""
    x = batch(0, 12)
    whole = acclimate.adapt(factory(), subject(name), guard=None)(x)
    adapted = acclimate.adapt(factory(), subject(name), guard=None)
    found = torch.cat([adapted(part) for part in x.split([1, 6, 5])])
    torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-5)
    assert torch.equal(found.argmax(1), whole.argmax(1))


VIEWED = ("boostadapter", "cosmic", "dmn", "tpt", "zero")


@pytest.mark.parametrize("name", VIEWED)
def test_views_belong_to_the_number_of_the_image(name):
    """Not to its place in a batch: what is encoded is the same, bit for bit; the first view is the image."""

    def encoded(*sizes: int, seed: int = 0) -> Tensor:
        adapted = acclimate.adapt(factory(), subject(name), guard=None, seed=seed)
        for part in x.split(list(sizes)):
            adapted(part)
        return torch.cat([seen.unflatten(0, (-1, views)) for seen in adapted.module.image_encoder.seen])

    views = subject(name).views
    x = torch.cat([batch(0, 5), batch(0, 5)])
    found = encoded(10)
    assert torch.equal(found[:, 0], x)
    assert torch.equal(encoded(3, 1, 6), found)
    assert all(not torch.equal(found[n, 1:], found[n + 5, 1:]) for n in range(5)), "the same image, later in the stream"
    assert not torch.equal(found[0, 0], found[0, 1])
    assert not torch.equal(encoded(10, seed=1)[:, 1:], found[:, 1:])


def test_a_bad_row_takes_no_number():
    """The images after it have the views that they would have without it."""
    seen = []
    x = batch(0)
    for bad in (True, False):
        adapted = acclimate.adapt(factory(), SMALL["dmn"], guard=None)
        adapted(torch.cat([x[:2], x[2:3] * float("nan"), x[3:]]) if bad else torch.cat([x[:2], x[3:]]))
        seen.append(torch.cat(adapted.module.image_encoder.seen))
    assert torch.equal(*seen)


@pytest.mark.parametrize("name", NAMES)
def test_each_view_is_encoded_once_and_the_image_once_by_the_auxiliary(name):
    method = subject(name)
    adapted = acclimate.adapt(factory(), method, guard=None)
    first, second = adapted.module.image_encoder, adapted.module.auxiliary_encoder
    with adapted.frozen():
        pass
    for number in range(2):
        adapted(batch(number))
        assert first.rows == [8 * method.views] * (number + 1)
        assert second.rows == ([8] * (number + 1) if name == "cosmic" else [])
        assert adapted.last.forwards == method.views
        if name == "cosmic":
            assert torch.equal(second.seen[-1], batch(number)), "the image itself, not a view"


def test_what_nobody_looks_at_is_not_encoded():
    for weights in ((1.0, 1.0, 0.0), (1.0, 0.0, 0.0)):
        adapted = acclimate.adapt(factory(), COSMIC(views=2, weights=weights), guard=None)
        adapted(batch(0))
        assert adapted.module.auxiliary_encoder.rows == []
        assert not any("auxiliary" in key for key in adapted.state.table.slots)


def test_states_that_take_turns_keep_their_own_cliques():
    """Snapshots of two streams that were last rebuilt at the same image, put in by turns with resets between them."""
    method = COSMIC(places=3, auxiliary_places=3)
    streams = [world(seed, images=24, views=5) for seed in (2, 3)]
    both = World(streams[0].texts, torch.cat([of.views for of in streams]), torch.cat([of.auxiliary for of in streams]),
                 torch.zeros(48), streams[0].scale)  # fmt: skip
    parts = [(both.views[:24], both.auxiliary[:24]), (both.views[24:], both.auxiliary[24:])]
    adapted, wanted, tags = both.adapt(method), [], []
    probe = both.views[::5], both.auxiliary[::5]
    for x, z in parts:
        adapted.reset()
        adapted(x[:9], auxiliary=z[:9])
        tags.append(adapted.snapshot())
        alone = both.adapt(method)
        alone(x[:9], auxiliary=z[:9])
        with alone.frozen():
            wanted.append(alone(probe[0], auxiliary=probe[1]))
    assert not torch.allclose(*wanted)
    for turn in (0, 1, 0, 1, 1, 0):
        adapted.reset()
        adapted.restore(tags[turn])
        with adapted.frozen():
            assert_same(adapted(probe[0], auxiliary=probe[1]), wanted[turn], f"answers of stream {turn}")


@pytest.mark.parametrize("name", NAMES)
def test_what_would_count_batches_is_refused(name):
    with pytest.raises(ValueError, match="steps must be one of 1, found 2"):
        dataclasses.replace(subject(name), steps=2)
    if name != "tpt":  # it forgets with each image in any case
        with pytest.raises(ValueError, match="episodic must be one of False, found True"):
            dataclasses.replace(subject(name), episodic=True)


def test_a_cache_that_changed_while_the_graph_had_to_wait_is_not_forgotten():
    """Four images of four classes at once, then one image again and again, which changes no cache any more."""
    draw = torch.Generator().manual_seed(0)
    texts, finer = torch.eye(6, 8) + 0.1, torch.eye(6, 7)
    model = VisionLanguage(None, texts, logit_scale=20.0)
    adapted = adapt(model, method=COSMIC(warm_refresh=5, places=50, auxiliary_places=1))
    for number in range(4):
        adapted(texts[number : number + 1], auxiliary=finer[number : number + 1])
    for _ in range(6):
        adapted(texts[:1] + 0.3 * torch.rand(1, 8, generator=draw), auxiliary=finer[:1])
    state = adapted.state
    assert state["auxiliary.counts"].tolist() == [1, 1, 1, 1, 0, 0]
    assert (state["auxiliary_graph.nodes"].abs().amax(1) > 0).tolist() == [True] * 4 + [False] * 2
    assert int(state["auxiliary_graph.built"]) == 5


def test_frozen_answers_of_tpt_do_not_depend_on_what_came_before():
    of = world(2, images=12, views=5)
    adapted, twin = over("tpt", of), over("tpt", of)
    adapted(of.views[:8])
    with adapted.frozen(), twin.frozen():
        assert_same(adapted(of.views[8:]), twin(of.views[8:]), "frozen answers")
