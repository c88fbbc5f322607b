"""One class, one view, half precision; and what a second space is worth."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

import acclimate
from acclimate.fields.vision_language.methods.cosmic import COSMIC
from acclimate.fields.vision_language.methods.dmn import DMN
from acclimate.fields.vision_language.methods.tda import TDA
from acclimate.fields.vision_language.methods.zero_shot import ZeroShot
from conformance.tools import assert_same, book

from . import oracle
from .subjects import NAMES, batch, factory, over, subject
from .world import world

EDGES = {
    "one class": {"classes": 1, "groups": 1},
    "two classes": {"classes": 2, "groups": 1},
    "fewer classes than neighbours": {"classes": 4, "groups": 2},
    "one view": {"views": 1},
    "two views": {"views": 2},
}


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("name", NAMES)
def test_edges(name, edge):
    if name == "tpt" and edge == "one class":
        pytest.skip("of one class every answer is certain; weights are not tuned then, and an error says so")
    of = world(3, **{"images": 24, "views": 3, **EDGES[edge]})
    adapted = over(name, of)
    found = of.answers(adapted, 5)
    assert found.shape == (24, len(of.texts)) and found.isfinite().all()
    assert adapted.last.updated, adapted.last.reason


@pytest.mark.parametrize("edge", EDGES)
def test_edges_are_answered_as_specified(edge):
    of = world(3, **{"images": 24, "views": 3, **EDGES[edge]})
    told = oracle.COSMIC(of.texts.double().numpy(), of.scale, places=1, auxiliary_places=1, refresh=5)
    found = of.answers(of.adapt(COSMIC(places=1, auxiliary_places=1, refresh=5)), 5).exp().double().numpy()
    clear = 0
    for row, views, auxiliary in zip(found, of.views, of.auxiliary, strict=True):
        scores = told.step(views.double().numpy(), auxiliary.double().numpy())
        if told.clear:
            np.testing.assert_allclose(row, scores, rtol=1e-4, atol=1e-5)
        clear += told.clear
    assert clear > 6


@pytest.mark.parametrize("name", NAMES)
def test_one_class_is_all_there_is(name):
    """Every image is near the text of class 2: the others stay empty, and no answer turns."""
    of = world(4, images=30, views=5)
    near = of.texts[2] + 0.02 * of.views
    one = dataclasses.replace(of, views=near)
    adapted = over(name, one)
    found = one.answers(adapted, 7)
    assert found.isfinite().all() and bool((found.argmax(1) == 2).all())
    for slot, counts in ((key, slot.tensor) for key, slot in adapted.state.table.slots.items() if "counts" in key):
        assert name == "tip-adapter" or not counts[torch.arange(6) != 2].any(), slot


@pytest.mark.parametrize("name", NAMES)
def test_half_encoders_have_state_in_single_precision(name):
    halves = acclimate.adapt(factory(torch.float16), subject(name), guard=None)
    singles = acclimate.adapt(factory(), subject(name), guard=None)
    for number in range(3):
        found, wanted = halves(batch(number)), singles(batch(number))
        assert found.dtype == torch.float32
        # of log scores: half the digits, and a decision may fall otherwise
        assert float((found.softmax(1) - wanted.softmax(1)).abs().median()) < 0.02
    for key, slot in halves.state.table.slots.items():
        assert not slot.tensor.is_floating_point() or slot.tensor.dtype == torch.float32, key


@pytest.mark.parametrize("name", NAMES)
def test_mixed_precision_ends_at_the_encoders(name):
    """Features are answered, and kept, bit for bit as without it; of images encoders alone are coarser."""
    of = world(2, images=24, views=5)
    mixed, plain = over(name, of), over(name, of)
    wanted = of.answers(plain, 8)
    with torch.autocast("cpu", torch.bfloat16):
        found = of.answers(mixed, 8)
    assert_same(found, wanted, "answers")
    assert_same(book(mixed), book(plain), "state")
    adapted = acclimate.adapt(factory(), subject(name), guard=None)
    with torch.autocast("cpu", torch.bfloat16):
        assert adapted(batch(0)).dtype == torch.float32 and adapted.last.updated


@pytest.mark.parametrize("seed", range(3))
def test_what_a_tighter_auxiliary_space_is_worth(seed):
    """20 classes in 5 groups, texts that are off, a second space with less noise: accuracy in the stated order."""
    of = world(
        seed, classes=20, images=300, views=4, width=48, finer=32, groups=5, scale=50.0, noise=0.9, jitter=0.4,
        text_noise=0.9, finer_noise=0.5,
    )  # fmt: skip
    zero_shot, tda, dmn = (of.accuracy(method) for method in (ZeroShot(), TDA(), DMN(places=8)))
    cosmic, blind = of.accuracy(COSMIC(places=4, auxiliary_places=4)), of.accuracy(COSMIC.preset("without-auxiliary"))
    told = f"zero-shot {zero_shot}, tda {tda}, dmn {dmn}, cosmic {cosmic}, without the second space {blind}"
    assert zero_shot + 3 < max(tda, dmn), told
    assert max(tda, dmn) + 3 < cosmic, told
    assert blind + 3 < cosmic, told
