"""What every method of the field promises: no answer by company, no trace of what is bad, a state to resume from."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable

import numpy as np
import pytest
import torch
from _pytest.mark import ParameterSet
from torch import Tensor, nn

import acclimate
from acclimate.core.method import Method
from acclimate.fields.vision_language import VisionLanguage, adapt, registry
from acclimate.fields.vision_language.methods.boostadapter import BoostAdapter
from acclimate.fields.vision_language.methods.cosmic import COSMIC
from acclimate.fields.vision_language.methods.dmn import DMN
from acclimate.fields.vision_language.methods.tda import TDA
from acclimate.fields.vision_language.methods.tip_adapter import TipAdapter
from acclimate.fields.vision_language.methods.tpt import TPT
from acclimate.fields.vision_language.methods.zero import ZERO
from acclimate.fields.vision_language.methods.zero_shot import ZeroShot
from conformance import checks
from conformance.tools import assert_same, bits, book, verdict_deferred

from . import oracle
from .world import World, world

CLASSES, SIDE, WIDTH, FINER = 5, 6, 16, 12


class Encoder(nn.Module):
    """A tiny one, which knows how many images each of its forwards saw, and which."""

    def __init__(self, seed: int, width: int, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(3 * SIDE * SIDE, width, generator=draw) / 8)
        self.dtype = dtype
        self.seen: list[Tensor] = []
        self.error: BaseException | None = None
        self.factor = 1.0

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(images.clone())
        if self.error is not None:
            raise self.error
        return self.factor * ((images.flatten(1) - 0.5) @ self.weight).to(self.dtype)

    @property
    def rows(self) -> list[int]:
        return [len(images) for images in self.seen]


class Prompts(nn.Module):
    """Texts behind a context that can be tuned."""

    def __init__(self, texts: Tensor) -> None:
        super().__init__()
        self.register_buffer("names", texts.clone())
        self.context = nn.Parameter(torch.zeros(texts.shape[1]))

    def forward(self) -> Tensor:
        return nn.functional.normalize(self.names + self.context, dim=1)


PROTOTYPES = torch.rand(CLASSES, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(7))
SHOWN = Encoder(0, WIDTH)(PROTOTYPES).detach()
TEXTS = SHOWN + 0.3 * torch.randn(CLASSES, WIDTH, generator=torch.Generator().manual_seed(8))


def factory(dtype: torch.dtype = torch.float32) -> VisionLanguage:
    return VisionLanguage(
        Encoder(0, WIDTH, dtype),
        TEXTS,
        logit_scale=12.0,
        auxiliary=Encoder(1, FINER, dtype),
        prompts=Prompts(nn.functional.normalize(TEXTS, dim=1)),
    )


def batch(number: int, count: int = 8) -> Tensor:
    draw = torch.Generator().manual_seed(100 + number)
    labels = torch.randint(CLASSES, (count,), generator=draw)
    return (0.6 * PROTOTYPES[labels] + 0.4 * torch.rand(count, 3, SIDE, SIDE, generator=draw)).contiguous()


SMALL: dict[str, Method] = {
    "zero-shot": ZeroShot(),
    "tda": TDA(places=2, negative_places=1),
    "boostadapter": BoostAdapter(views=3, sure=0.7, places=2, area=0.3),
    "zero": ZERO(views=3, sure=0.7),
    "dmn": DMN(views=2, places=2),
    "cosmic": COSMIC(views=2, places=2, auxiliary_places=2, refresh=5),
    "tip-adapter": TipAdapter(features=SHOWN.repeat(2, 1), labels=torch.arange(CLASSES).repeat(2), shots=2),
    "tpt": TPT(views=3, sure=0.7),
}
"""Places and intervals that a few batches fill and reach; a method that is not here runs on its own settings."""

NAMES = list(registry.classes())
KEEPING = ("boostadapter", "cosmic", "dmn", "tda")
"""Those that keep features of the stream."""


def subject(name: str) -> Method:
    return SMALL[name] if name in SMALL else registry.build(name)


def for_features(name: str, of: World) -> Method:
    """The same settings for a world of features."""
    few = {"features": of.texts.repeat(2, 1), "labels": torch.arange(len(of.texts)).repeat(2)}
    return dataclasses.replace(subject(name), **(few if name == "tip-adapter" else {}))


OFTEN = (
    checks.learning.check_learns,
    checks.state.check_reset,
    checks.state.check_snapshot,
    checks.source.check_frozen,
    checks.source.check_tenants,
    checks.transactions.check_bad_batches,
    checks.transactions.check_bad_rows,
)
SLOW = (
    checks.state.check_save,
    checks.state.check_deepcopy,
    checks.state.check_seeds,
    checks.state.check_merged,
    checks.source.check_unwrap,
    checks.source.check_overlay,
    checks.source.check_source_block,
    checks.source.check_dropout,
    checks.callers.check_batch_of_one,
    checks.callers.check_callers,
    checks.callers.check_quiet,
)
"""What tests of features below look at as well, in less time."""


def cases() -> list[ParameterSet]:
    """What keeps nothing of the stream need not learn."""
    return [
        pytest.param(name, check, id=f"{name}-{check.__name__[6:]}", marks=(pytest.mark.slow,) * (check in SLOW))
        for name in NAMES
        for check in (*OFTEN, *SLOW)
        if name in (*KEEPING, "tpt") or check is not checks.learning.check_learns
    ]


@pytest.mark.parametrize(("name", "check"), cases())
def test_promise_of_the_house(name: str, check: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """On images; the promise is in the docstring of the check."""
    told = checks.transactions.bad_batches
    # one more axis makes views of one image out of eight images, which is nothing bad here
    monkeypatch.setattr(
        checks.transactions, "bad_batches", lambda x: {kind: bad for kind, bad in told(x).items() if kind != "axis"}
    )
    check(subject(name), factory, batch)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_promises_where_the_verdict_is_read_late(name):
    with verdict_deferred():
        for check in (checks.state.check_reset, checks.state.check_snapshot, checks.transactions.check_bad_rows):
            check(subject(name), factory, batch)


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
        assert name == "zero" or torch.equal(found, source(batch(1)))
    if name != "zero":  # it has counts to give, and nothing that could be spoiled
        assert not adapted.last.updated and adapted.last.held == 8
        assert_same(book(adapted), book(twin), "state after features that are NaN")
        assert_same(adapted(batch(1)), twin(batch(1)), "answers after it")


def model_of(name: str, of: World) -> VisionLanguage:
    texts = nn.functional.normalize(of.texts, dim=1)
    return VisionLanguage(None, of.texts, logit_scale=of.scale, prompts=Prompts(texts) if name == "tpt" else None)


def over(name: str, of: World) -> acclimate.Adapted:
    return acclimate.adapt(model_of(name, of), for_features(name, of), guard=None)


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


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_stream_goes_on_bit_for_bit(name, tmp_path):
    """By its name alone, and by an instance; and what it is reset to is what it was reset to before."""
    of = world(2, images=36, views=5)
    adapted, twin = over(name, of), over(name, of)
    batches = list(of.batches(9))
    for x, z in batches[:2]:
        adapted(x, auxiliary=z), twin(x, auxiliary=z)
    adapted.save(tmp_path / "state")
    for method in (None, for_features(name, of)):
        loaded = acclimate.load(model_of(name, of), tmp_path / "state", method=method)
        assert_same(book(loaded), book(adapted), "state after load()")
    for x, z in batches[2:]:
        assert_same(loaded(x, auxiliary=z), twin(x, auxiliary=z), "answers after load()")
    assert_same(book(loaded), book(twin), "state in the end")
    loaded.reset()
    assert_same(book(loaded), book(over(name, of)), "state after reset()")


@pytest.mark.parametrize("name", NAMES)
def test_frozen_from_the_start_nothing_is_kept(name):
    of = world(2, images=6, views=5)
    adapted, fresh = over(name, of), over(name, of)
    with adapted.frozen():
        first = of.answers(adapted, 3)
        assert first.isfinite().all()
        assert_same(of.answers(adapted, 3), first, "the same again")
    assert_same(book(adapted), book(fresh), "state")
    assert_same(of.answers(adapted, 6), of.answers(fresh, 6), "answers after it")


@pytest.mark.parametrize("name", NAMES)
def test_the_model_that_came_is_left_alone(name):
    of = world(2, images=30, views=5)
    model = model_of(name, of)
    before = {key: bits(value) for key, value in model.state_dict().items()}
    alone = model(of.views)
    adapted = acclimate.adapt(model, for_features(name, of), guard=None)
    of.answers(adapted, 10)
    assert adapted.unwrap() is model and "derived" not in model.__dict__
    assert {key: bits(value) for key, value in model.state_dict().items()} == before
    assert_same(model(of.views), alone, "its own answers")
    with adapted.source() as source:
        assert_same(source(of.views), alone, "answers of the source")
    assert torch.equal(adapted.module.text_features, model.text_features)


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


def test_no_step_takes_labels():
    taken = {"step": ["state", "x"], "respond": ["state", "x"], "answer": ["state", "sample", "learn"]}
    for name, cls in registry.classes().items():
        for verb, arguments in taken.items():
            if hasattr(cls, verb):
                assert list(inspect.signature(getattr(cls, verb)).parameters) == ["self", *arguments], f"{name}.{verb}"
    of = world(2, images=20, views=5)
    with pytest.raises((TypeError, ValueError)):
        over("cosmic", of)(of.views, of.auxiliary, of.labels)


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
